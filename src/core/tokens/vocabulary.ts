/**
 * The tokens of a byte-pair encoding, found by their bytes. Built from files that {@link packVocabulary} describes;
 * a table of 32-bit slots with linear probing, because a Map of two hundred thousand strings would take many times
 * the memory of an isolate's fair share.
 */
export class Vocabulary {
  readonly #bytes: Uint8Array;
  /** Where each token starts in the bytes, by rank; one more for the end. */
  readonly #offsets: Uint32Array;
  /** Rank + 1 of the token that hashes there; 0 is free. */
  readonly #slots: Uint32Array;

  /** @param files each continues the ranks of the one before it */
  constructor(files: readonly ArrayBuffer[]) {
    const parts = files.map(unpack);
    const size = parts.reduce((sum, { lengths }) => sum + lengths.length, 0);
    this.#bytes = joined(parts.map(({ bytes }) => bytes));
    this.#offsets = new Uint32Array(size + 1);
    let rank = 0;
    for (const { lengths } of parts) {
      for (const length of lengths) this.#offsets[rank + 1] = (this.#offsets[rank++] ?? 0) + length;
    }
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(2 * size)));
    for (let token = 0; token < size; token++) this.#insert(token);
  }

  get size(): number {
    return this.#offsets.length - 1;
  }

  /** The bytes of tokens, one after the other; undefined where one of them is no rank. */
  bytesOf(ranks: readonly number[]): Uint8Array | undefined {
    if (!ranks.every((rank) => Number.isInteger(rank) && rank >= 0 && rank < this.size)) return undefined;
    return joined(ranks.map((rank) => this.#bytes.subarray(this.#offsets[rank], this.#offsets[rank + 1])));
  }

  /** The rank of the token that `text` holds from `start` to `end`; -1 where that is no token. Lower merges first. */
  rankOf(text: Uint8Array, start: number, end: number): number {
    const mask = this.#slots.length - 1;
    for (let slot = hashOf(text, start, end) & mask; ; slot = (slot + 1) & mask) {
      const rank = (this.#slots[slot] ?? 0) - 1;
      if (rank === -1 || this.#isAt(rank, text, start, end)) return rank;
    }
  }

  #isAt(rank: number, text: Uint8Array, start: number, end: number): boolean {
    const from = this.#offsets[rank] ?? 0;
    const length = (this.#offsets[rank + 1] ?? 0) - from;
    if (length !== end - start) return false;
    for (let at = 0; at < length; at++) if (this.#bytes[from + at] !== text[start + at]) return false;
    return true;
  }

  #insert(rank: number): void {
    const mask = this.#slots.length - 1;
    let slot = hashOf(this.#bytes, this.#offsets[rank] ?? 0, this.#offsets[rank + 1] ?? 0) & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = rank + 1;
  }
}

/**
 * A vocabulary as a file: the number of tokens as 32 bits, little endian; one byte of length for each; their bytes,
 * in order of rank.
 * @throws RangeError for a token of more than 255 bytes
 */
export function packVocabulary(tokens: readonly Uint8Array[]): Uint8Array {
  const count = new Uint8Array(4);
  new DataView(count.buffer).setUint32(0, tokens.length, true);
  if (tokens.some(({ length }) => length > 255)) throw new RangeError("a token of more than 255 bytes");
  return joined([count, Uint8Array.from(tokens, ({ length }) => length), ...tokens]);
}

function unpack(file: ArrayBuffer): { readonly lengths: Uint8Array; readonly bytes: Uint8Array } {
  const count = new DataView(file).getUint32(0, true);
  return { lengths: new Uint8Array(file, 4, count), bytes: new Uint8Array(file, 4 + count) };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** FNV-1a (Fowler, Noll, Vo), its high bits mixed into the low ones that choose the slot. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 0;
}
