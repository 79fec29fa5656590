import { bytesOf, Encoding, PATTERNS } from "./encoding";
import { Vocabulary } from "./vocabulary";

/** Tokenizers that a catalogue may name. `bytes` is any that falls back to bytes: it makes no more tokens than those. */
export const TOKENIZERS = ["cl100k", "llama3", "o200k", "bytes"] as const;
export type TokenizerName = (typeof TOKENIZERS)[number];

/** Vocabularies as files, see `packVocabulary`. */
export interface VocabularyFiles {
  readonly cl100k: ArrayBuffer;
  readonly o200k: ArrayBuffer;
  /** What Llama 3 adds to cl100k. */
  readonly llama3Extension: ArrayBuffer;
}

/**
 * What a tokenizer that nobody named may make more of than the two that most of today's descend from. Older ones with
 * small vocabularies lie up to a sixth above them on English.
 */
const UNNAMED_MARGIN = 1.25;
/** English text has about four bytes a token. */
const BYTES_PER_TOKEN = 4;

/** Counts the tokens of texts by the tokenizer of a model. Each vocabulary is unpacked when it is first asked for. */
export class Tokenizers {
  readonly #files: VocabularyFiles;
  readonly #encodings = new Map<string, Encoding>();

  constructor(files: VocabularyFiles) {
    this.#files = files;
  }

  /**
   * Not below what the tokenizer makes of a text, whatever stands in it.
   * @param name null where the catalogue names none
   * @param enough the count may stop beyond this many
   */
  atMost(text: string, name: TokenizerName | null, enough?: number): number {
    const bytes = bytesOf(text);
    if (name === "bytes") return bytes;
    if (name !== null) return Math.min(bytes, this.#encoding(name).bound(text, enough));
    const [older, newer] = [this.#encoding("cl100k"), this.#encoding("o200k")];
    const most = Math.max(older.bound(text, enough), newer.bound(text, enough));
    return Math.min(bytes, Math.ceil(most * UNNAMED_MARGIN));
  }

  /** A fair guess that is not above what the tokenizer makes of ordinary text: nobody pays for what was only guessed. */
  guess(text: string, name: TokenizerName | null): number {
    if (name === "bytes") return Math.ceil(bytesOf(text) / BYTES_PER_TOKEN);
    if (name !== null) return this.#encoding(name).bound(text);
    return Math.min(this.#encoding("cl100k").bound(text), this.#encoding("o200k").bound(text));
  }

  /**
   * The text that token ids stand for, as clients write them that count for OpenAI's embedding models (cl100k).
   * @returns undefined where one of them is no token, or together they are no text
   */
  textOf(ids: readonly number[]): string | undefined {
    const bytes = this.#encoding("cl100k").vocabulary.bytesOf(ids);
    try {
      return bytes && new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return undefined;
    }
  }

  #encoding(name: Exclude<TokenizerName, "bytes">): Encoding {
    const known = this.#encodings.get(name);
    if (known) return known;
    const { cl100k, o200k, llama3Extension } = this.#files;
    const files = { cl100k: [cl100k], o200k: [o200k], llama3: [cl100k, llama3Extension] }[name];
    const encoding = new Encoding(PATTERNS[name === "o200k" ? "o200k" : "cl100k"], new Vocabulary(files));
    this.#encodings.set(name, encoding);
    return encoding;
  }
}
