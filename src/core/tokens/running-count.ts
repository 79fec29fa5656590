import { bytesOf } from "./encoding";

/** So many characters are kept uncounted: most texts end before anybody asks for their number. */
const MAX_UNCOUNTED = 16_384;
/** Of a text without a seam, so many characters at its end stay together. */
const TAIL = 512;
/** Where a text may be parted without changing its tokens much: in front of a space that a word follows. */
const SEAM = /\s(?=\S)/g;

/** Tokens of a text that comes in pieces: the same number however it is cut, each part counted once, and on demand. */
export class RunningCount {
  #counted = 0;
  #uncounted = "";
  #uncountedBytes = 0;
  #bytes = 0;

  /** @param count tokens of a text */
  constructor(readonly count: (text: string) => number) {}

  add(text: string): void {
    this.#uncounted += text;
    const bytes = bytesOf(text);
    this.#uncountedBytes += bytes;
    this.#bytes += bytes;
    if (this.#uncounted.length > MAX_UNCOUNTED) this.#settle();
  }

  get tokens(): number {
    this.#settle();
    return this.#counted + (this.#uncounted === "" ? 0 : this.count(this.#uncounted));
  }

  /** Of all that was added. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Not below their number, without counting. */
  get most(): number {
    return this.#counted + this.#uncountedBytes;
  }

  /** Counts for good what nothing that follows can change. */
  #settle(): void {
    const text = this.#uncounted;
    const seam = lastSeam(text) ?? text.length - TAIL;
    if (seam <= 0) return;
    this.#counted += this.count(text.slice(0, seam));
    this.#uncounted = text.slice(seam);
    this.#uncountedBytes = bytesOf(this.#uncounted);
  }
}

function lastSeam(text: string): number | undefined {
  let last: number | undefined;
  for (const { index } of text.matchAll(SEAM)) if (index > 0) last = index;
  return last;
}
