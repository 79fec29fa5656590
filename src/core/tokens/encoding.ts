import { BytePairs, MAX_PIECE_BYTES } from "./byte-pairs";
import type { Vocabulary } from "./vocabulary";

/**
 * How a text is cut before its bytes are merged, as the encodings' own definitions do. No case takes more than one
 * look back, so a text is cut in one pass whatever stands in it.
 */
const CONTRACTION = "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const REST = "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n<more>]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
export const PATTERNS = {
  /** GPT-4, and Llama 3. */
  cl100k: `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${REST.replace("<more>", "")}`,
  /** GPT-4o and later. */
  o200k: `[^\\r\\n\\p{L}\\p{N}]?(?:${upper}*${lower}+|${upper}+${lower}*)(?:${CONTRACTION})?|${REST.replace("<more>", "/")}`,
} as const;

/** Pieces that were merged are remembered within one text: words come back. */
const MAX_REMEMBERED = 8_192;
/** Bytes that are merged for one text; those beyond count as they are. */
export const MAX_MERGED_BYTES = 256 * 1_024;

/** A byte-pair encoding of texts, of which only the number of tokens is asked. */
export class Encoding {
  readonly #pattern: RegExp;
  readonly #pairs: BytePairs;
  readonly #piece = new Uint8Array(MAX_PIECE_BYTES + 4);

  constructor(
    pattern: string,
    readonly vocabulary: Vocabulary,
  ) {
    this.#pattern = new RegExp(pattern, "gu");
    this.#pairs = new BytePairs(vocabulary);
  }

  /**
   * An upper bound of a text's tokens: their number, but where it would cost too much to know. Then bytes stand for
   * tokens, of which no encoding makes more.
   * @param enough the count may stop beyond this many
   */
  bound(text: string, enough = Number.POSITIVE_INFINITY): number {
    const pattern = this.#pattern;
    const remembered = new Map<string, number>();
    let toMerge = MAX_MERGED_BYTES;
    let tokens = 0;
    pattern.lastIndex = 0;
    for (let start = 0; start < text.length && tokens <= enough; ) {
      // What no case covers cannot be, since every character is a letter, a number, a space or something else.
      const end = pattern.test(text) ? pattern.lastIndex : text.length;
      const size = this.#write(text, start, end);
      if (size < 0 || (toMerge <= 0 && this.vocabulary.rankOf(this.#piece, 0, size) === -1)) {
        tokens += size < 0 ? bytesOf(text, start, end) : size;
      } else if (size === 1 || this.vocabulary.rankOf(this.#piece, 0, size) !== -1) tokens++;
      else {
        const word = text.slice(start, end);
        const known = remembered.get(word);
        const count = known ?? this.#pairs.count(this.#piece, size);
        if (known === undefined) toMerge -= size;
        if (known === undefined && remembered.size < MAX_REMEMBERED) remembered.set(word, count);
        tokens += count;
      }
      start = end;
    }
    return tokens;
  }

  /** Writes a piece as UTF-8. @returns its bytes, or -1 where it is too long to be merged */
  #write(text: string, start: number, end: number): number {
    const piece = this.#piece;
    let size = 0;
    for (let at = start; at < end; at++) {
      if (size > MAX_PIECE_BYTES) return -1;
      const code = text.codePointAt(at) ?? 0;
      if (code < 0x80) piece[size++] = code;
      else if (code < 0x800) {
        piece[size++] = 0xc0 | (code >> 6);
        piece[size++] = 0x80 | (code & 0x3f);
      } else if (code < 0x10000) {
        piece[size++] = 0xe0 | (code >> 12);
        piece[size++] = 0x80 | ((code >> 6) & 0x3f);
        piece[size++] = 0x80 | (code & 0x3f);
      } else {
        at++; // it is a pair of surrogates
        piece[size++] = 0xf0 | (code >> 18);
        piece[size++] = 0x80 | ((code >> 12) & 0x3f);
        piece[size++] = 0x80 | ((code >> 6) & 0x3f);
        piece[size++] = 0x80 | (code & 0x3f);
      }
    }
    return size > MAX_PIECE_BYTES ? -1 : size;
  }
}

/** Bytes of a text as UTF-8, counted without writing it. Half of a surrogate pair counts as what replaces it. */
export function bytesOf(text: string, start = 0, end = text.length): number {
  let bytes = 0;
  for (let at = start; at < end; at++) {
    const code = text.charCodeAt(at);
    if (code < 0x80) bytes++;
    else if (code < 0x800) bytes += 2;
    else if (code >= 0xd800 && code < 0xdc00 && at + 1 < end && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00) {
      at++;
      bytes += 4;
    } else bytes += 3;
  }
  return bytes;
}
