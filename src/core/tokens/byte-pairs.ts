import type { Vocabulary } from "./vocabulary";

/** Longest piece that is merged; a longer one counts its bytes, which no encoding exceeds. */
export const MAX_PIECE_BYTES = 4_096;
/** Bits of a place in a piece: the rest of a heap's entry is the rank. */
const PLACE_BITS = 12;

/**
 * Byte-pair encoding as Sennrich et al. (2016) apply it to bytes: of all neighbours that make a token together, those
 * of the lowest rank merge first, the leftmost of equals. Only counts; its buffers are made once.
 */
export class BytePairs {
  readonly #next = new Int16Array(MAX_PIECE_BYTES + 1); // start of the following part, by start
  readonly #previous = new Int16Array(MAX_PIECE_BYTES + 1);
  readonly #ranks = new Int32Array(MAX_PIECE_BYTES + 1); // of the part together with the one that follows it
  /** A binary heap of rank and place; each merge adds at most two entries. */
  readonly #heap = new Int32Array(3 * MAX_PIECE_BYTES);
  #heapSize = 0;

  constructor(readonly vocabulary: Vocabulary) {}

  /**
   * How many tokens a piece is that is none by itself.
   * @param piece its bytes, from the first on
   * @param size how many, 1 to {@link MAX_PIECE_BYTES}
   */
  count(piece: Uint8Array, size: number): number {
    this.#heapSize = 0;
    for (let start = 0; start <= size; start++) {
      this.#next[start] = start + 1;
      this.#previous[start] = start - 1;
      this.#ranks[start] = -1;
    }
    for (let start = 0; start + 1 < size; start++) this.#rate(piece, start, size);
    let tokens = size;
    while (this.#heapSize > 0) {
      const entry = this.#pop();
      const start = entry & ((1 << PLACE_BITS) - 1);
      if (this.#ranks[start] !== entry >>> PLACE_BITS) continue; // one of the two has merged meanwhile
      this.#merge(piece, start, size);
      tokens--;
    }
    return tokens;
  }

  #merge(piece: Uint8Array, start: number, size: number): void {
    const gone = this.#next[start] ?? size;
    const following = this.#next[gone] ?? size;
    this.#next[start] = following;
    this.#previous[following] = start;
    this.#ranks[gone] = -1;
    this.#rate(piece, start, size);
    const before = this.#previous[start] ?? -1;
    if (before >= 0) this.#rate(piece, before, size);
  }

  /** What the part that starts here makes with its neighbour. */
  #rate(piece: Uint8Array, start: number, size: number): void {
    const following = this.#next[start] ?? size;
    const rank = following >= size ? -1 : this.vocabulary.rankOf(piece, start, this.#next[following] ?? size);
    this.#ranks[start] = rank;
    if (rank !== -1) this.#push((rank << PLACE_BITS) | start);
  }

  #push(entry: number): void {
    const heap = this.#heap;
    let at = this.#heapSize++;
    for (let parent = (at - 1) >> 1; at > 0 && (heap[parent] ?? 0) > entry; parent = (at - 1) >> 1) {
      heap[at] = heap[parent] ?? 0;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): number {
    const heap = this.#heap;
    const top = heap[0] ?? 0;
    const last = heap[--this.#heapSize] ?? 0;
    let at = 0;
    for (let child = 1; child < this.#heapSize; child = 2 * at + 1) {
      if (child + 1 < this.#heapSize && (heap[child + 1] ?? 0) < (heap[child] ?? 0)) child++;
      if ((heap[child] ?? 0) >= last) break;
      heap[at] = heap[child] ?? 0;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}
