import { type LoraAdapter, type LoraPair, TARGETS, type Target } from "../adapter";
import type { Weights } from "../base-weights";
import { LinearMemory } from "../linear-memory";
import { sizeOf } from "../peft";

/** Positions whose loss is taken in one call; each needs a row of logits. */
const TARGETS_AT_ONCE = 32;
/** The kernel takes ranks in multiples of this; what is beyond the adapter's own rank stays 0. */
const RANK_STEP = 4;

interface Kernel {
  readonly memory: WebAssembly.Memory;
  heapBase(): number;
  configure(...sizes: number[]): void;
  configureAttention(...sizesAndPointers: number[]): void;
  setWeights(...pointers: number[]): void;
  setAdapter(table: number, rank: number, scale: number): void;
  setBuffers(...pointers: number[]): void;
  begin(count: number, tokens: number): void;
  forwardAttention(layer: number): void;
  forwardMlp(layer: number): void;
  losses(count: number, positions: number, targets: number, share: number): number;
  backwardMlp(layer: number): void;
  backwardAttention(layer: number): void;
}

/** Which part of the base an adapter changes, and how strongly. */
export interface AdapterShape {
  readonly targets: readonly Target[];
  readonly rank: number;
  /** lora_alpha / rank. */
  readonly scale: number;
}

/** A conversation as the model reads it, and which token it should say next at each position; −1 where any will do. */
export interface Example {
  readonly tokens: readonly number[];
  readonly targets: readonly number[];
}

interface Piece {
  readonly layer: number;
  readonly target: Target;
  /** In floats, of the parameters: A (padded rank, inputs), then B (padded rank, outputs). */
  readonly from: number;
  readonly inputs: number;
  readonly outputs: number;
}

/**
 * Computes losses of examples, and the gradients of an adapter, in WebAssembly SIMD and float32. The base's weights are
 * a copy that nothing writes. Work comes as generators of short steps: each is far below 50 ms at the longest context,
 * so that whoever drives it can give others their turn in between.
 */
export class Machine {
  /** Of the adapter; B is stored transposed, (rank, outputs). */
  readonly parameterCount: number;
  readonly #kernel: Kernel;
  readonly #memory: LinearMemory;
  readonly #weights: Weights;
  readonly #shape: AdapterShape;
  readonly #pieces: readonly Piece[];
  readonly #paddedRank: number;
  readonly #parametersAt: number;
  readonly #gradientsAt: number;
  readonly #tokens: number;
  readonly #positions: number;
  readonly #targets: number;

  constructor(module: WebAssembly.Module, weights: Weights, shape: AdapterShape) {
    this.#weights = weights;
    this.#shape = shape;
    this.#kernel = new WebAssembly.Instance(module, {
      env: { abort: () => undefined }, // the compiler names it; the kernel never calls it
    }).exports as unknown as Kernel;
    this.#memory = new LinearMemory(this.#kernel.memory, this.#kernel.heapBase());
    this.#paddedRank = Math.ceil(shape.rank / RANK_STEP) * RANK_STEP;
    this.#pieces = piecesOf(weights, shape.targets, this.#paddedRank);
    const last = this.#pieces.at(-1);
    this.parameterCount = last ? last.from + this.#paddedRank * (last.inputs + last.outputs) : 0;
    this.#parametersAt = this.#floats(this.parameterCount);
    this.#gradientsAt = this.#floats(this.parameterCount);
    this.#placeWeights();
    this.#placeAdapter();
    this.#placeBuffers();
    const { max_position_embeddings: context } = weights.config;
    this.#tokens = this.#floats(context);
    this.#positions = this.#floats(TARGETS_AT_ONCE);
    this.#targets = this.#floats(TARGETS_AT_ONCE);
  }

  /** Of the whole instance. */
  get memoryBytes(): number {
    return this.#memory.bytes;
  }

  /** A view of what is trained. */
  get parameters(): Float32Array {
    return this.#memory.floats(this.#parametersAt, this.parameterCount);
  }

  /** A view of the gradients; {@link examine} adds to it. */
  get gradients(): Float32Array {
    return this.#memory.floats(this.#gradientsAt, this.parameterCount);
  }

  /** A is normal with the variance 1 / inputs, B is 0: at first the adapter changes nothing (Hu et al. 2021). */
  initialise(normal: () => number): void {
    const { parameters } = this;
    parameters.fill(0);
    for (const { from, inputs } of this.#pieces) {
      for (let i = 0; i < this.#shape.rank * inputs; i++) parameters[from + i] = normal() / Math.sqrt(inputs);
    }
  }

  /**
   * The sum of an example's losses, nats. With a `share` other than 0 its gradient, times that share, is added to
   * {@link gradients}. Yields between steps.
   */
  *examine({ tokens, targets }: Example, share: number): Generator<undefined, number> {
    const { num_hidden_layers: layers } = this.#weights.config;
    const kernel = this.#kernel;
    this.#memory.ints(this.#tokens, tokens.length).set(tokens);
    kernel.begin(tokens.length, this.#tokens);
    for (let layer = 0; layer < layers; layer++) {
      kernel.forwardAttention(layer);
      yield;
      kernel.forwardMlp(layer);
      yield;
    }
    const asked = targets.flatMap((target, position) => (target < 0 ? [] : [position]));
    let loss = 0;
    for (let from = 0; from < asked.length; from += TARGETS_AT_ONCE) {
      const positions = asked.slice(from, from + TARGETS_AT_ONCE);
      this.#memory.ints(this.#positions, positions.length).set(positions);
      this.#memory.ints(this.#targets, positions.length).set(positions.map((at) => targets[at] as number));
      loss += kernel.losses(positions.length, this.#positions, this.#targets, share);
      yield;
    }
    if (share === 0) return loss;
    for (let layer = layers - 1; layer >= 0; layer--) {
      kernel.backwardMlp(layer);
      yield;
      kernel.backwardAttention(layer);
      yield;
    }
    return loss;
  }

  /** What was trained so far, as the engine and PEFT take it. */
  adapter(): LoraAdapter {
    const { rank, scale } = this.#shape;
    const { parameters } = this;
    const layers = this.#weights.layers.map((): Partial<Record<Target, LoraPair>> => ({}));
    for (const { layer, target, from, inputs, outputs } of this.#pieces) {
      const a = parameters.slice(from, from + rank * inputs);
      const b = new Float32Array(outputs * rank);
      transpose(b, parameters.subarray(from + this.#paddedRank * inputs), rank, outputs);
      (layers[layer] as Partial<Record<Target, LoraPair>>)[target] = { a, b };
    }
    return { rank, scale, layers };
  }

  /** Goes on from an adapter of the same shape. */
  load({ layers }: LoraAdapter): void {
    const { rank } = this.#shape;
    const { parameters } = this;
    parameters.fill(0);
    for (const { layer, target, from, inputs, outputs } of this.#pieces) {
      const pair = layers[layer]?.[target];
      if (pair?.a.length !== rank * inputs || pair.b.length !== rank * outputs)
        throw new TypeError(`the adapter has another shape in layer ${layer}, ${target}`);
      parameters.set(pair.a, from);
      transpose(parameters.subarray(from + this.#paddedRank * inputs), pair.b, outputs, rank);
    }
  }

  #floats(count: number): number {
    return this.#memory.reserve(4 * count);
  }

  #table(pointers: readonly number[]): number {
    const at = this.#memory.reserve(4 * pointers.length);
    this.#memory.ints(at, pointers.length).set(pointers);
    return at;
  }

  #placeWeights(): void {
    const { config, embedding, layers, norm, cos, sin } = this.#weights;
    const { hidden_size: hidden, head_dim: headDim, intermediate_size: inner } = config;
    const [queryDim, kvDim] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim];
    this.#kernel.configure(hidden, queryDim, kvDim, headDim, inner, config.vocab_size, config.rms_norm_eps);
    const copy = (values: Float32Array) => this.#memory.copyFloats(values);
    const table = layers.flatMap(({ attentionNorm, q, k, v, o, mlpNorm, gate, up, down }) =>
      [attentionNorm, q, k, v, o, mlpNorm, gate, up, down].map(copy),
    );
    this.#kernel.setWeights(copy(embedding), copy(norm), copy(cos), copy(sin), this.#table(table));
  }

  #placeAdapter(): void {
    const entries = new Array<number>(4 * TARGETS.length * this.#weights.layers.length).fill(0);
    for (const { layer, target, from, inputs } of this.#pieces) {
      const at = 4 * (layer * TARGETS.length + TARGETS.indexOf(target));
      const b = from + this.#paddedRank * inputs;
      const pointers = [this.#parametersAt, this.#gradientsAt].flatMap((base) => [base + 4 * from, base + 4 * b]);
      entries.splice(at, 4, ...pointers);
    }
    this.#kernel.setAdapter(this.#table(entries), this.#paddedRank, this.#shape.scale);
  }

  #placeBuffers(): void {
    const { config, layers } = this.#weights;
    const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim, vocab_size: vocabulary } = config;
    const [queryDim, kvDim] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim];
    const context = config.max_position_embeddings;
    const rows = (width: number) => this.#floats(context * width);
    const widest = Math.max(inner, hidden, queryDim);
    const kept = layers.flatMap((_, layer) => [
      ...[hidden, queryDim, kvDim, kvDim, queryDim, hidden, inner, inner].map(rows),
      ...TARGETS.map((target) =>
        this.#pieces.some((piece) => piece.layer === layer && piece.target === target) ? rows(this.#paddedRank) : 0,
      ),
    ]);
    this.#kernel.setBuffers(
      this.#table(kept),
      ...[hidden, hidden, hidden, hidden, widest, widest, queryDim, kvDim, kvDim, this.#paddedRank].map(rows),
      ...[hidden, hidden, vocabulary].map((width) => this.#floats(TARGETS_AT_ONCE * width)),
    );
    const scores = () => this.#floats(ATTENTION_ROWS * context);
    const { num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
    this.#kernel.configureAttention(heads, kvHeads, headDim, scores(), scores());
  }
}

/** Rows of queries that the kernel takes at once; it counts with it too. */
const ATTENTION_ROWS = 32;

function piecesOf({ config, layers }: Weights, targets: readonly Target[], paddedRank: number): Piece[] {
  let from = 0;
  return layers.flatMap((_, layer) =>
    TARGETS.filter((target) => targets.includes(target)).map((target) => {
      const [inputs, outputs] = sizeOf(target, config);
      const piece = { layer, target, from, inputs, outputs };
      from += paddedRank * (inputs + outputs);
      return piece;
    }),
  );
}

/** to (columns, rows) = from (rows, columns). */
function transpose(to: Float32Array, from: Float32Array, rows: number, columns: number): void {
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) to[column * rows + row] = from[row * columns + column] as number;
}
