const PAGE_BYTES = 65_536;
const ALIGNMENT = 16;
const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** A WebAssembly memory that only grows: for what lives as long as the instance. Addresses are bytes. */
export class LinearMemory {
  #top: number;

  /** @param start first byte that the module itself does not use */
  constructor(
    readonly memory: WebAssembly.Memory,
    start: number,
  ) {
    this.#top = aligned(start);
  }

  get bytes(): number {
    return this.memory.buffer.byteLength;
  }

  reserve(bytes: number): number {
    const at = this.#top;
    this.#top = aligned(at + bytes);
    const missing = this.#top - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE_BYTES));
    return at;
  }

  /** Views are short-lived: growing the memory detaches them. */
  floats(at: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, count);
  }

  ints(at: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, at, count);
  }

  bytesAt(at: number, count: number): Int8Array {
    return new Int8Array(this.memory.buffer, at, count);
  }

  copyFloats(values: Float32Array): number {
    const at = this.reserve(values.byteLength);
    this.floats(at, values.length).set(values);
    return at;
  }
}

/** A bounded part of a memory whose pieces come and go: first fit, neighbours that are free become one. */
export class Arena {
  /** Free pieces in order of their address. */
  #free: { at: number; bytes: number }[];
  readonly #taken = new Map<number, number>();

  constructor(at: number, bytes: number) {
    this.#free = [{ at, bytes }];
  }

  /** @returns undefined when no free piece is large enough */
  take(wanted: number): number | undefined {
    const bytes = aligned(wanted);
    const index = this.#free.findIndex((piece) => piece.bytes >= bytes);
    const piece = this.#free[index];
    if (!piece) return undefined;
    const { at } = piece;
    if (piece.bytes === bytes) this.#free.splice(index, 1);
    else this.#free[index] = { at: at + bytes, bytes: piece.bytes - bytes };
    this.#taken.set(at, bytes);
    return at;
  }

  give(at: number): void {
    const bytes = this.#taken.get(at);
    if (bytes === undefined) throw new RangeError(`nothing was taken at ${at}`);
    this.#taken.delete(at);
    const merged: { at: number; bytes: number }[] = [];
    for (const piece of [...this.#free, { at, bytes }].sort((a, b) => a.at - b.at)) {
      const last = merged.at(-1);
      if (last && last.at + last.bytes === piece.at) last.bytes += piece.bytes;
      else merged.push({ ...piece });
    }
    this.#free = merged;
  }
}
