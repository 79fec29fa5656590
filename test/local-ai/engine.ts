import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bindWeights, type Config, type Weights } from "../../local-ai/base-weights";
import { Batcher } from "../../local-ai/batcher";
import { BLOCK_TOKENS, Decoder } from "../../local-ai/decoder";
import type { Engine } from "../../local-ai/generate";
import { parseSafetensors } from "../../local-ai/safetensors";
import type { Sampling } from "../../local-ai/sampler";
import { Tokenizer, type TokenizerFile } from "../../local-ai/tokenizer";

const WEIGHTS = join(import.meta.dirname, "../../local-ai/weights");
const readJson = <T>(name: string): T => JSON.parse(readFileSync(join(WEIGHTS, name), "utf8")) as T;

export const weightsFile = (): ArrayBuffer => {
  const bytes = readFileSync(join(WEIGHTS, "model.fp16.safetensors.bin"));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
};

/** In float32, as the oracle computes with them. */
export const loadWeights = (): Weights => bindWeights(readJson<Config>("config.json"), parseSafetensors(weightsFile()));

export const loadTokenizer = () => new Tokenizer(readJson<TokenizerFile>("tokenizer.json"));

/** Types of Workers know modules only as bindings; Node compiles them. */
const compile = (file: string): WebAssembly.Module =>
  new (WebAssembly.Module as unknown as new (bytes: Uint8Array) => WebAssembly.Module)(readFileSync(file));
const KERNEL = join(import.meta.dirname, "../../local-ai/kernel/engine.wasm");
export const loadDecoder = (blocks = (16 * 512) / BLOCK_TOKENS) => new Decoder(compile(KERNEL), loadWeights(), blocks);

const TRAINER = join(import.meta.dirname, "../../local-ai/trainer/kernel/trainer.wasm");
export const loadTrainerModule = () => compile(TRAINER);

/** The engine as the embedded model loads it, read from the files. */
export const loadEngine = (): Engine => ({ batcher: new Batcher(loadDecoder()), tokenizer: loadTokenizer() });

interface ReferenceCase {
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly last_logits: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly mean_last_hidden_first8: readonly number[];
}

/** What Hugging Face's transformers and PEFT computed from the same weights, with an adapter or without. */
export const referenceCases = (of: string | null = null): ReferenceCase[] => {
  const text = readFileSync(join(import.meta.dirname, "reference.json"), "utf8");
  const entries = JSON.parse(text) as { readonly adapter: string | null; readonly cases: ReferenceCase[] }[];
  return entries.filter(({ adapter }) => adapter === of).flatMap((entry) => entry.cases);
};

/** What Hugging Face's tokenizers made of the same file, its special tokens taken out: text is text. */
export const tokenizerReference = (): { readonly text: string; readonly ids: readonly number[] }[] =>
  JSON.parse(readFileSync(join(import.meta.dirname, "tokenizer-reference.json"), "utf8"));

export const GREEDY: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  seed: 1,
};
