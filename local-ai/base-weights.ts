/**
 * The weights of a Llama decoder (Touvron et al. 2023) in float32: RMSNorm, rotary embeddings (half rotation, the
 * order of Hugging Face's weights), grouped-query attention, SwiGLU, tied embedding. `decoder.ts` computes with them.
 */
import type { Tensor } from "./safetensors";

export interface Config {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
}

interface Layer {
  readonly attentionNorm: Float32Array; // (hidden)
  readonly q: Float32Array; // (heads × headDim, hidden)
  readonly k: Float32Array; // (kvHeads × headDim, hidden)
  readonly v: Float32Array; // (kvHeads × headDim, hidden)
  readonly o: Float32Array; // (hidden, heads × headDim)
  readonly mlpNorm: Float32Array; // (hidden)
  readonly gate: Float32Array; // (intermediate, hidden)
  readonly up: Float32Array; // (intermediate, hidden)
  readonly down: Float32Array; // (hidden, intermediate)
}

export interface Weights {
  readonly config: Config;
  readonly embedding: Float32Array; // (vocab, hidden), also the output matrix
  readonly layers: readonly Layer[];
  readonly norm: Float32Array; // (hidden)
  readonly cos: Float32Array; // (position, headDim / 2)
  readonly sin: Float32Array; // (position, headDim / 2)
}

/** @throws TypeError when a tensor is missing or has another shape than the config says, or a size is no multiple of 4 */
export function bindWeights(config: Config, tensors: ReadonlyMap<string, Tensor>): Weights {
  const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim } = config;
  const queryDim = config.num_attention_heads * headDim;
  const kvDim = config.num_key_value_heads * headDim;
  if ([hidden, inner, queryDim, headDim].some((size) => size % 4 !== 0)) {
    throw new TypeError("weights: hidden, intermediate and head sizes must be multiples of 4");
  }
  const take = (name: string, ...shape: number[]): Float32Array => {
    const tensor = tensors.get(`model.${name}.weight`);
    if (tensor?.shape.join() !== shape.join())
      throw new TypeError(`weights: ${name} is not of shape ${shape.join(" × ")}`);
    return tensor.data;
  };
  const half = headDim / 2;
  const angles = Float32Array.from({ length: config.max_position_embeddings * half }, (_, i) => {
    return Math.floor(i / half) / config.rope_theta ** ((i % half) / half);
  });
  return {
    config,
    embedding: take("embed_tokens", config.vocab_size, hidden),
    layers: Array.from({ length: config.num_hidden_layers }, (_, l) => ({
      attentionNorm: take(`layers.${l}.input_layernorm`, hidden),
      q: take(`layers.${l}.self_attn.q_proj`, queryDim, hidden),
      k: take(`layers.${l}.self_attn.k_proj`, kvDim, hidden),
      v: take(`layers.${l}.self_attn.v_proj`, kvDim, hidden),
      o: take(`layers.${l}.self_attn.o_proj`, hidden, queryDim),
      mlpNorm: take(`layers.${l}.post_attention_layernorm`, hidden),
      gate: take(`layers.${l}.mlp.gate_proj`, inner, hidden),
      up: take(`layers.${l}.mlp.up_proj`, inner, hidden),
      down: take(`layers.${l}.mlp.down_proj`, hidden, inner),
    })),
    norm: take("norm", hidden),
    cos: angles.map(Math.cos),
    sin: angles.map(Math.sin),
  };
}
