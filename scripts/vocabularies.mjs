// Vocabularies of the byte-pair encodings that models of today use, packed as src/core/tokens/vocabulary.ts reads them.
import cl100k from "js-tiktoken/ranks/cl100k_base";
import o200k from "js-tiktoken/ranks/o200k_base";
import llama3 from "llama3-tokenizer-js";
import { packVocabulary } from "../src/core/tokens/vocabulary.ts";

/** Tokens of Llama 3 that are not those of cl100k, which it begins with. */
const LLAMA3_FIRST = 100_256;
const LLAMA3_END = 128_000;

export async function vocabularies() {
  const base = tiktoken(cl100k.bpe_ranks);
  const extension = llama3.vocabById.slice(LLAMA3_FIRST, LLAMA3_END).map(bytesOfGpt2);
  const isContinued = base.every((token, rank) => token.equals(bytesOfGpt2(llama3.vocabById[rank])));
  if (base.length !== LLAMA3_FIRST || !isContinued) throw new Error("Llama 3 does not begin as cl100k does");
  return {
    cl100k: packVocabulary(base),
    "llama3-extension": packVocabulary(extension),
    o200k: packVocabulary(tiktoken(o200k.bpe_ranks)),
  };
}

/** Lines of "! <first rank> <base64> <base64> …". */
function tiktoken(text) {
  const tokens = [];
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const [, first, ...words] = line.split(" ");
    for (const [at, word] of words.entries()) tokens[Number(first) + at] = Buffer.from(word, "base64");
  }
  if (tokens.includes(undefined)) throw new Error("a rank without a token");
  return tokens;
}

/** GPT-2 wrote each byte as a printable character of its own: those that are not printable from U+0100 on. */
const BYTES = new Map();
const isPrintable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
for (let byte = 0, others = 0; byte < 256; byte++) {
  BYTES.set(String.fromCodePoint(isPrintable(byte) ? byte : 256 + others++), byte);
}
function bytesOfGpt2(written) {
  return Buffer.from(Array.from(written, (character) => BYTES.get(character)));
}
