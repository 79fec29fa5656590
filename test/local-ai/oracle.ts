/**
 * The forward pass in plain TypeScript and float32, in the spirit of llama2.c: run state, and a function that reads
 * from top to bottom. The engine is measured against it, in its results and in its speed.
 */
import type { Config, Weights } from "../../local-ai/base-weights";

/** One sequence: its key-value cache and the buffers of a step, allocated once. */
export class Sequence {
  readonly keys: Float32Array; // (layer, position, kvDim)
  readonly values: Float32Array; // (layer, position, kvDim)
  readonly x: Float32Array; // (hidden) the residual stream
  readonly normed: Float32Array; // (hidden)
  readonly q: Float32Array; // (heads × headDim)
  readonly attended: Float32Array; // (heads × headDim)
  readonly projected: Float32Array; // (hidden)
  readonly scores: Float32Array; // (position)
  readonly gate: Float32Array; // (intermediate)
  readonly up: Float32Array; // (intermediate)
  readonly logits: Float32Array; // (vocab)
  position = 0;

  /** @param capacity positions that this sequence will need at most */
  constructor(
    { config }: Weights,
    readonly capacity: number,
  ) {
    const kvDim = config.num_key_value_heads * config.head_dim;
    this.keys = new Float32Array(config.num_hidden_layers * capacity * kvDim);
    this.values = new Float32Array(this.keys.length);
    this.x = new Float32Array(config.hidden_size);
    this.normed = new Float32Array(config.hidden_size);
    this.q = new Float32Array(config.num_attention_heads * config.head_dim);
    this.attended = new Float32Array(this.q.length);
    this.projected = new Float32Array(config.hidden_size);
    this.scores = new Float32Array(capacity);
    this.gate = new Float32Array(config.intermediate_size);
    this.up = new Float32Array(config.intermediate_size);
    this.logits = new Float32Array(config.vocab_size);
  }
}

/** Advances by one token. Afterwards `sequence.normed` is the last hidden state. */
export function forward(weights: Weights, sequence: Sequence, token: number): void {
  const { config, layers, embedding } = weights;
  const { x, normed, q, projected, gate, up, position, capacity } = sequence;
  const { hidden_size: hidden, head_dim: headDim, rms_norm_eps: epsilon } = config;
  const kvDim = config.num_key_value_heads * headDim;
  if (position >= capacity) throw new RangeError(`sequence is full at ${capacity} positions`);
  x.set(embedding.subarray(token * hidden, (token + 1) * hidden));
  for (const [l, layer] of layers.entries()) {
    const at = (l * capacity + position) * kvDim;
    const key = sequence.keys.subarray(at, at + kvDim);
    rmsNorm(normed, x, layer.attentionNorm, epsilon);
    multiply(q, layer.q, normed);
    multiply(key, layer.k, normed);
    multiply(sequence.values.subarray(at, at + kvDim), layer.v, normed);
    rotate(weights, q, position);
    rotate(weights, key, position);
    attend(config, sequence, l);
    multiply(projected, layer.o, sequence.attended);
    for (let i = 0; i < hidden; i++) x[i]! += projected[i]!;
    rmsNorm(normed, x, layer.mlpNorm, epsilon);
    multiply(gate, layer.gate, normed);
    multiply(up, layer.up, normed);
    for (let i = 0; i < gate.length; i++) gate[i] = (gate[i]! / (1 + Math.exp(-gate[i]!))) * up[i]!;
    multiply(projected, layer.down, gate);
    for (let i = 0; i < hidden; i++) x[i]! += projected[i]!;
  }
  rmsNorm(normed, x, weights.norm, epsilon);
  sequence.position++;
}

/** Logits of the last position; only needed where a token is chosen. */
export function computeLogits(weights: Weights, sequence: Sequence): Float32Array {
  multiply(sequence.logits, weights.embedding, sequence.normed);
  return sequence.logits;
}

/** Causal attention of the newest position over all before it; several query heads share a key-value head. */
function attend(config: Config, sequence: Sequence, l: number): void {
  const { keys, values, q, attended, scores, position, capacity } = sequence;
  const { head_dim: headDim, num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
  const kvDim = kvHeads * headDim;
  const scale = 1 / Math.sqrt(headDim);
  const base = l * capacity * kvDim;
  for (let head = 0; head < heads; head++) {
    const queryAt = head * headDim;
    const offset = base + Math.floor((head * kvHeads) / heads) * headDim;
    let max = Number.NEGATIVE_INFINITY;
    for (let t = 0; t <= position; t++) {
      let dot = 0;
      for (let i = 0; i < headDim; i++) dot += q[queryAt + i]! * keys[offset + t * kvDim + i]!;
      scores[t] = dot * scale;
      if (scores[t]! > max) max = scores[t]!;
    }
    let sum = 0;
    for (let t = 0; t <= position; t++) sum += scores[t] = Math.exp(scores[t]! - max);
    attended.fill(0, queryAt, queryAt + headDim);
    for (let t = 0; t <= position; t++) {
      const weight = scores[t]! / sum;
      for (let i = 0; i < headDim; i++) attended[queryAt + i]! += weight * values[offset + t * kvDim + i]!;
    }
  }
}

/** Rotary position embedding: dimension i turns with dimension i + headDim / 2. */
function rotate({ config, cos, sin }: Weights, heads: Float32Array, position: number): void {
  const half = config.head_dim / 2;
  for (let start = 0; start < heads.length; start += config.head_dim) {
    for (let i = 0; i < half; i++) {
      const c = cos[position * half + i]!;
      const s = sin[position * half + i]!;
      const a = heads[start + i]!;
      const b = heads[start + half + i]!;
      heads[start + i] = a * c - b * s;
      heads[start + half + i] = b * c + a * s;
    }
  }
}

function rmsNorm(out: Float32Array, x: Float32Array, weight: Float32Array, epsilon: number): void {
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares += x[i]! * x[i]!;
  const scale = 1 / Math.sqrt(squares / x.length + epsilon);
  for (let i = 0; i < x.length; i++) out[i] = x[i]! * scale * weight[i]!;
}

/** out (rows) = matrix (rows, columns) · x (columns). Four sums at once keep the processor's pipes full. */
function multiply(out: Float32Array, matrix: Float32Array, x: Float32Array): void {
  const columns = x.length;
  for (let row = 0, at = 0; row < out.length; row++, at += columns) {
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let i = 0; i < columns; i += 4) {
      a += matrix[at + i]! * x[i]!;
      b += matrix[at + i + 1]! * x[i + 1]!;
      c += matrix[at + i + 2]! * x[i + 2]!;
      d += matrix[at + i + 3]! * x[i + 3]!;
    }
    out[row] = a + b + (c + d);
  }
}
