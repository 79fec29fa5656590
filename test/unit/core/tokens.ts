import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tiktoken } from "js-tiktoken/lite";
import cl100k from "js-tiktoken/ranks/cl100k_base";
import o200k from "js-tiktoken/ranks/o200k_base";
import llama3 from "llama3-tokenizer-js";
import { Encoding, PATTERNS } from "../../../src/core/tokens/encoding";
import { Vocabulary } from "../../../src/core/tokens/vocabulary";

const FOLDER = join(import.meta.dirname, "../../../src/inference/tokenizers");
export const vocabularyFile = (name: string): ArrayBuffer => {
  const { buffer, byteOffset, byteLength } = readFileSync(join(FOLDER, `${name}.bin`));
  return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
};

const [openai, newer] = [new Tiktoken(cl100k), new Tiktoken(o200k)];
const ofGpt4 = vocabularyFile("cl100k");

/** Token ids as OpenAI's clients send them. */
export const idsOf = (text: string): number[] => openai.encode(text, [], []);

/** Each encoding of ours beside the field's own implementation of it. */
export const ENCODINGS = [
  {
    name: "cl100k",
    encoding: new Encoding(PATTERNS.cl100k, new Vocabulary([ofGpt4])),
    real: (text: string) => openai.encode(text, [], []).length,
  },
  {
    name: "o200k",
    encoding: new Encoding(PATTERNS.o200k, new Vocabulary([vocabularyFile("o200k")])),
    real: (text: string) => newer.encode(text, [], []).length,
  },
  {
    name: "Llama 3",
    encoding: new Encoding(PATTERNS.cl100k, new Vocabulary([ofGpt4, vocabularyFile("llama3-extension")])),
    real: (text: string) => llama3.encode(text, { bos: false, eos: false }).length,
  },
] as const;
