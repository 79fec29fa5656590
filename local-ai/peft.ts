import { z } from "zod";
import { type LoraAdapter, type LoraPair, MAX_RANK, TARGETS, type Target } from "./adapter";
import type { Config } from "./base-weights";
import { parseSafetensors, serialiseSafetensors, type Tensor } from "./safetensors";

/** What is wrong with an adapter's files, in a sentence for whoever uploaded them. */
export class AdapterError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "AdapterError";
  }
}

const MAX_CONFIG_BYTES = 64 * 1024;
const BLOCKS: Readonly<Record<Target, string>> = {
  ...{ q_proj: "self_attn", k_proj: "self_attn", v_proj: "self_attn", o_proj: "self_attn" },
  ...{ gate_proj: "mlp", up_proj: "mlp", down_proj: "mlp" },
};

const isUnset = (value: unknown) =>
  value === undefined ||
  value === null ||
  value === false ||
  JSON.stringify(value) === "{}" ||
  JSON.stringify(value) === "[]";
const unset = (what: string) => z.unknown().optional().refine(isUnset, `${what} is not supported`);

/** Hugging Face PEFT's adapter_config.json, as far as it changes what an adapter computes. */
const AdapterConfig = z.looseObject({
  peft_type: z.literal("LORA"),
  r: z.int().min(1).max(MAX_RANK),
  lora_alpha: z.number().positive().max(1_000_000),
  target_modules: z.union([z.array(z.enum(TARGETS)).min(1), z.literal("all-linear")]),
  use_rslora: z.boolean().nullish(),
  bias: z.literal("none").nullish(),
  model_type: z.literal("llama").nullish(),
  fan_in_fan_out: unset("a transposed base (fan_in_fan_out)"),
  use_dora: unset("DoRA (use_dora)"),
  modules_to_save: unset("a trained module of the base (modules_to_save)"),
  rank_pattern: unset("a rank for each module (rank_pattern)"),
  alpha_pattern: unset("an alpha for each module (alpha_pattern)"),
  layers_to_transform: unset("a choice of layers (layers_to_transform)"),
  layer_replication: unset("replication of layers (layer_replication)"),
});

/**
 * Reads `adapter_config.json` and `adapter_model.safetensors` as Hugging Face PEFT writes them.
 * @throws AdapterError
 */
export function parsePeft(configFile: Uint8Array, tensorsFile: Uint8Array, base: Config): LoraAdapter {
  const config = parseConfig(configFile);
  const tensors = parseTensors(tensorsFile);
  const targets = config.target_modules === "all-linear" ? TARGETS : config.target_modules;
  const layers = Array.from({ length: base.num_hidden_layers }, (_, layer) => {
    const pairs = [...new Set(targets)].map((target) => {
      const [inputs, outputs] = sizeOf(target, base);
      const take = (part: "A" | "B", ...shape: number[]) => takeTensor(tensors, nameOf(layer, target, part), shape);
      return [target, { a: take("A", config.r, inputs), b: take("B", outputs, config.r) }] as const;
    });
    return Object.fromEntries(pairs) as Partial<Record<Target, LoraPair>>;
  });
  const [unknown] = tensors.keys();
  if (unknown !== undefined)
    throw new AdapterError(`the adapter has a tensor that its config does not name: ${unknown}`);
  const scale = config.lora_alpha / (config.use_rslora ? Math.sqrt(config.r) : config.r);
  return { rank: config.r, scale, layers };
}

/** The two files, with the names, shapes and settings that PEFT expects. */
export function serialisePeft(
  adapter: LoraAdapter,
  baseModel: string,
): { readonly config: Uint8Array; readonly tensors: Uint8Array } {
  const targets = TARGETS.filter((target) => adapter.layers.some((layer) => layer[target]));
  const config = {
    ...{ peft_type: "LORA", task_type: "CAUSAL_LM", r: adapter.rank, lora_alpha: adapter.scale * adapter.rank },
    ...{ lora_dropout: 0, bias: "none", target_modules: targets, base_model_name_or_path: baseModel },
    ...{ model_type: "llama", inference_mode: true, fan_in_fan_out: false },
  };
  const tensors = new Map<string, Tensor>();
  for (const [layer, pairs] of adapter.layers.entries()) {
    for (const target of targets) {
      const pair = pairs[target];
      if (!pair) throw new TypeError(`layer ${layer} lacks ${target}, which others have`);
      const { rank } = adapter;
      tensors.set(nameOf(layer, target, "A"), { shape: [rank, pair.a.length / rank], data: pair.a });
      tensors.set(nameOf(layer, target, "B"), { shape: [pair.b.length / rank, rank], data: pair.b });
    }
  }
  const text = JSON.stringify(config, null, 1);
  return { config: new TextEncoder().encode(text), tensors: serialiseSafetensors(tensors, { format: "pt" }) };
}

/** Inputs and outputs of a matrix of the base. */
export function sizeOf(target: Target, base: Config): readonly [inputs: number, outputs: number] {
  const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim } = base;
  const [queries, keys] = [base.num_attention_heads * headDim, base.num_key_value_heads * headDim];
  const sizes: Readonly<Record<Target, readonly [number, number]>> = {
    q_proj: [hidden, queries],
    k_proj: [hidden, keys],
    v_proj: [hidden, keys],
    o_proj: [queries, hidden],
    gate_proj: [hidden, inner],
    up_proj: [hidden, inner],
    down_proj: [inner, hidden],
  };
  return sizes[target];
}

const nameOf = (layer: number, target: Target, part: "A" | "B") =>
  `base_model.model.model.layers.${layer}.${BLOCKS[target]}.${target}.lora_${part}.weight`;

function parseConfig(file: Uint8Array): z.output<typeof AdapterConfig> {
  if (file.byteLength > MAX_CONFIG_BYTES)
    throw new AdapterError(`adapter_config.json is larger than ${MAX_CONFIG_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(file));
  } catch {
    throw new AdapterError("adapter_config.json is not JSON");
  }
  const parsed = AdapterConfig.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new AdapterError(`adapter_config.json: '${issue?.path.join(".") ?? ""}' ${issue?.message ?? "is wrong"}`);
}

function parseTensors(file: Uint8Array): Map<string, Tensor> {
  try {
    return parseSafetensors(file);
  } catch (error) {
    throw new AdapterError(`adapter_model.safetensors: ${(error as Error).message}`);
  }
}

/** Takes it out, so that what stays is what nobody asked for. */
function takeTensor(tensors: Map<string, Tensor>, name: string, shape: readonly number[]): Float32Array {
  const tensor = tensors.get(name);
  tensors.delete(name);
  if (!tensor) throw new AdapterError(`the adapter lacks the tensor ${name}`);
  if (tensor.shape.join() !== shape.join())
    throw new AdapterError(
      `the tensor ${name} is ${tensor.shape.join(" × ")}, and the base needs ${shape.join(" × ")}`,
    );
  if (!tensor.data.every(Number.isFinite)) throw new AdapterError(`the tensor ${name} has values that are no numbers`);
  return tensor.data;
}
