import { type LoraAdapter, MAX_RANK, TARGETS } from "./adapter";
import type { Config, Weights } from "./base-weights";
import { Arena, LinearMemory } from "./linear-memory";

/** Tokens whose keys and values lie together; the kernel counts with it too. */
export const BLOCK_TOKENS = 16;
/** Tokens of all sequences that one step takes. */
export const MAX_ROWS = 64;
const ADAPTER_BYTES = 32 * 1024 * 1024;

/** One token of one sequence in a step. */
export interface Row {
  readonly token: number;
  readonly position: number;
  /** Of the sequence, from {@link Decoder.createTable}. */
  readonly table: number;
  /** From {@link Decoder.loadAdapter}; 0 is the base. */
  readonly adapter: number;
  /** What is asked for after it: the last hidden state, or with it the logits. */
  readonly wants: "nothing" | "state" | "logits";
}

interface Kernel {
  readonly memory: WebAssembly.Memory;
  heapBase(): number;
  configure(...sizes: number[]): void;
  setWeights(...pointers: number[]): void;
  setBuffers(...pointers: number[]): void;
  forward(
    rows: number,
    tokens: number,
    positions: number,
    tables: number,
    adapters: number,
    wanted: number,
    states: number,
  ): void;
  logits(rows: number, states: number, out: number): void;
}

/**
 * A Llama decoder in WebAssembly SIMD: int8 weights with a scale for each output row, activations of 12 bits with a
 * scale for each vector, everything else float32. Sequences advance together in one step; what a row gives depends
 * on its own sequence and adapter alone, bit for bit. Keys and values lie in blocks that tables name.
 */
export class Decoder {
  readonly config: Config;
  readonly blocks: number;
  readonly #kernel: Kernel;
  readonly #memory: LinearMemory;
  readonly #adapters: Arena;
  readonly #blocksAt: number;
  readonly #tables: number[] = [];
  readonly #arguments: Readonly<Record<"tokens" | "positions" | "tables" | "adapters" | "wanted", number>>;
  readonly #states: number;
  readonly #logits: number;

  /** @param blocks keys and values that can be held at once, in blocks of {@link BLOCK_TOKENS} tokens */
  constructor(module: WebAssembly.Module, weights: Weights, blocks: number) {
    this.config = weights.config;
    this.blocks = blocks;
    this.#kernel = new WebAssembly.Instance(module, {
      env: { abort: () => undefined }, // the compiler names it; the kernel never calls it
    }).exports as unknown as Kernel;
    const { config } = this;
    this.#memory = new LinearMemory(this.#kernel.memory, this.#kernel.heapBase());
    const { hidden_size: hidden, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = config;
    const { num_hidden_layers: layers, intermediate_size: inner, vocab_size: vocabulary } = config;
    this.#kernel.configure(hidden, layers, heads, kvHeads, headDim, inner, vocabulary, config.rms_norm_eps);
    this.#placeWeights(weights);
    const floats = (count: number) => this.#memory.reserve(4 * count);
    const qkv = (heads + 2 * kvHeads) * headDim;
    this.#kernel.setBuffers(
      ...[hidden, hidden, qkv, heads * headDim, 2 * inner].map((width) => floats(MAX_ROWS * width)),
      this.#memory.reserve(2 * MAX_ROWS * Math.max(hidden, inner, heads * headDim)),
      floats(MAX_ROWS),
      floats(config.max_position_embeddings + BLOCK_TOKENS),
      floats(MAX_RANK),
    );
    const ints = () => floats(MAX_ROWS);
    this.#arguments = { tokens: ints(), positions: ints(), tables: ints(), adapters: ints(), wanted: ints() };
    this.#states = floats(MAX_ROWS * hidden);
    this.#logits = floats(MAX_ROWS * vocabulary);
    this.#blocksAt = this.#memory.reserve(blocks * this.blockBytes);
    this.#adapters = new Arena(this.#memory.reserve(ADAPTER_BYTES), ADAPTER_BYTES);
  }

  /** Of the whole instance. */
  get memoryBytes(): number {
    return this.#memory.bytes;
  }

  get blockBytes(): number {
    const { num_hidden_layers, num_key_value_heads, head_dim } = this.config;
    return 4 * num_hidden_layers * 2 * BLOCK_TOKENS * num_key_value_heads * head_dim;
  }

  /** Room for the block numbers of one sequence. */
  createTable(): number {
    const entries = Math.ceil(this.config.max_position_embeddings / BLOCK_TOKENS);
    return this.#tables.pop() ?? this.#memory.reserve(4 * entries);
  }

  freeTable(table: number): void {
    this.#tables.push(table);
  }

  /** The block that holds the positions from `index` × {@link BLOCK_TOKENS} on. */
  setBlock(table: number, index: number, block: number): void {
    this.#memory.ints(table + 4 * index, 1)[0] = this.#blocksAt + block * this.blockBytes;
  }

  /** @returns its handle, or undefined when it does not fit beside those that are loaded */
  loadAdapter(adapter: LoraAdapter): number | undefined {
    const { layers } = adapter;
    const head = 8 + 8 * TARGETS.length * layers.length;
    const pairs = layers.flatMap((layer) => TARGETS.map((target) => layer[target]));
    const floats = pairs.reduce((sum, pair) => sum + (pair ? pair.a.length + pair.b.length : 0), 0);
    const at = this.#adapters.take(head + 16 + 4 * floats);
    if (at === undefined) return undefined;
    const pointers = this.#memory.ints(at, head / 4);
    pointers.fill(0);
    pointers[0] = adapter.rank;
    this.#memory.floats(at + 4, 1)[0] = adapter.scale;
    let next = Math.ceil((at + head) / 16) * 16;
    for (const [index, pair] of pairs.entries()) {
      if (!pair) continue;
      pointers[2 + 2 * index] = next;
      this.#memory.floats(next, pair.a.length).set(pair.a);
      next += pair.a.byteLength;
      pointers[3 + 2 * index] = next;
      transpose(this.#memory.floats(next, pair.b.length), pair.b, adapter.rank);
      next += pair.b.byteLength;
    }
    return at;
  }

  freeAdapter(handle: number): void {
    this.#adapters.give(handle);
  }

  /**
   * Advances all rows by their token. Rows that want logits come before those that want a state alone.
   * @returns views of (wanting rows, hidden) and (rows that want logits, vocabulary); the next step overwrites them
   */
  step(rows: readonly Row[]): { readonly states: Float32Array; readonly logits: Float32Array } {
    if (rows.length > MAX_ROWS) throw new RangeError(`a step takes ${MAX_ROWS} rows, not ${rows.length}`);
    const { tokens, positions, tables, adapters, wanted } = this.#arguments;
    const fill = (at: number, of: (row: Row) => number) => {
      const view = this.#memory.ints(at, rows.length);
      for (let row = 0; row < rows.length; row++) view[row] = of(rows[row] as Row);
    };
    fill(tokens, ({ token }) => token);
    fill(positions, ({ position }) => position);
    fill(tables, ({ table }) => table);
    fill(adapters, ({ adapter }) => adapter);
    fill(wanted, ({ wants }) => (wants === "nothing" ? 0 : 1));
    this.#kernel.forward(rows.length, tokens, positions, tables, adapters, wanted, this.#states);
    const states = rows.filter(({ wants }) => wants !== "nothing").length;
    const logits = rows.filter(({ wants }) => wants === "logits").length;
    if (logits > 0) this.#kernel.logits(logits, this.#states, this.#logits);
    return {
      states: this.#memory.floats(this.#states, states * this.config.hidden_size),
      logits: this.#memory.floats(this.#logits, logits * this.config.vocab_size),
    };
  }

  #placeWeights({ config, embedding, layers, norm, cos, sin }: Weights): void {
    const { hidden_size: hidden, intermediate_size: inner } = config;
    const queries = config.num_attention_heads * config.head_dim;
    const entries = layers.flatMap((layer) => [
      this.#memory.copyFloats(layer.attentionNorm),
      ...this.#quantised([layer.q, layer.k, layer.v], hidden),
      ...this.#quantised([layer.o], queries),
      this.#memory.copyFloats(layer.mlpNorm),
      ...this.#quantised([layer.gate, layer.up], hidden),
      ...this.#quantised([layer.down], inner),
    ]);
    const table = this.#memory.reserve(4 * entries.length);
    this.#memory.ints(table, entries.length).set(entries);
    const [embeddingAt = 0, embeddingScales = 0] = this.#quantised([embedding], hidden);
    const [normAt, cosAt, sinAt] = [norm, cos, sin].map((values) => this.#memory.copyFloats(values)) as number[];
    this.#kernel.setWeights(embeddingAt, embeddingScales, normAt as number, cosAt as number, sinAt as number, table);
  }

  /** Matrices one below the other, as int8 with a scale for each row: its largest magnitude is 127. */
  #quantised(matrices: readonly Float32Array[], columns: number): [weights: number, scales: number] {
    const count = matrices.reduce((sum, { length }) => sum + length, 0);
    const at = this.#memory.reserve(count);
    const scalesAt = this.#memory.reserve((4 * count) / columns);
    const weights = this.#memory.bytesAt(at, count);
    const scales = this.#memory.floats(scalesAt, count / columns);
    let row = 0;
    for (const matrix of matrices) {
      for (let from = 0; from < matrix.length; from += columns, row++) {
        let most = 0;
        for (let i = 0; i < columns; i++) most = Math.max(most, Math.abs(matrix[from + i] as number));
        scales[row] = most / 127;
        const inverse = most > 0 ? 127 / most : 0;
        for (let i = 0; i < columns; i++)
          weights[row * columns + i] = Math.round((matrix[from + i] as number) * inverse);
      }
    }
    return [at, scalesAt];
  }
}

/** to (columns, rows) = from (rows, columns). */
function transpose(to: Float32Array, from: Float32Array, columns: number): void {
  const rows = from.length / columns;
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) to[column * rows + row] = from[row * columns + column] as number;
}
