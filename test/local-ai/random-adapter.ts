import { type LoraAdapter, TARGETS, type Target } from "../../local-ai/adapter";
import type { Weights } from "../../local-ai/transformer";

/** An adapter of small random numbers, the same for the same seed. */
export function randomAdapter(
  { config, layers }: Weights,
  rank: number,
  targets: readonly Target[],
  seed: number,
): LoraAdapter {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 4_294_967_296 - 0.5) * 0.1;
  };
  const { hidden_size: hidden, intermediate_size: inner, head_dim } = config;
  const [queries, keys] = [config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim];
  const sizes: Readonly<Record<Target, readonly [inputs: number, outputs: number]>> = {
    q_proj: [hidden, queries],
    k_proj: [hidden, keys],
    v_proj: [hidden, keys],
    o_proj: [queries, hidden],
    gate_proj: [hidden, inner],
    up_proj: [hidden, inner],
    down_proj: [inner, hidden],
  };
  const pair = (target: Target) => {
    const [inputs, outputs] = sizes[target];
    const a = Float32Array.from({ length: rank * inputs }, next);
    return { a, b: Float32Array.from({ length: rank * outputs }, next) };
  };
  const chosen = TARGETS.filter((target) => targets.includes(target));
  const layer = () => Object.fromEntries(chosen.map((target) => [target, pair(target)]));
  return { rank, scale: 2, layers: layers.map(layer) };
}
