import { attend, attendBackward, configureAttention } from "./attention";
import { activate, activateBackward, add, exponentials, norm, normBackward, rotate, scaleBy } from "./elementwise";
import { dots, sums } from "./products";

export { configureAttention };

/**
 * One sequence through a Llama decoder with LoRA adapters and back again, for the gradients of the adapters alone.
 * Each layer is two calls on either way, so that others get their turn in between. Pointers and layouts come from
 * `../machine.ts`; nothing is allocated here. Rows are padded with zeros to a multiple of 4: they come last, where no
 * real row sees them, and have no gradient.
 */
let hidden: i32;
let queryDim: i32;
let kvDim: i32;
let headDim: i32;
let inner: i32;
let vocabulary: i32;
let epsilon: f32;

let embedding: usize; // (vocabulary, hidden)
let finalNorm: usize;
let cosines: usize; // (position, headDim / 2)
let sines: usize;

/** Of each layer: attention norm, q, k, v, o, mlp norm, gate, up, down. */
let weightTable: usize;
const WEIGHT_ENTRIES: usize = 9;
/** Of each layer: its input, q, k, v, what attention gave, the middle, gate, up, and the adapters' seven projections. */
let keptTable: usize;
const KEPT_ENTRIES: usize = 15;
/** Of each layer and each of its seven matrices: A (rank, inputs), B (rank, outputs), and their gradients; 0 for none. */
let adapterTable: usize;
const ADAPTER_ENTRIES: usize = 4;
const TARGETS: usize = 7;

let rank: i32;
let scale: f32;
let rows: i32;

let x: usize; // (rows, hidden) the residual stream
let d: usize; // (rows, hidden) its gradient
let normed: usize; // (rows, hidden)
let dNormed: usize; // (rows, hidden)
let wide: usize; // (rows, the widest)
let dWide: usize; // (rows, the widest)
let dQueries: usize;
let dKeys: usize;
let dValues: usize;
let dProjected: usize; // (rows, rank)
let states: usize; // (targets at once, hidden)
let dStates: usize;
let logits: usize; // (targets at once, vocabulary)

export function configure(
  hidden_: i32,
  queryDim_: i32,
  kvDim_: i32,
  headDim_: i32,
  inner_: i32,
  vocabulary_: i32,
  epsilon_: f32,
): void {
  hidden = hidden_;
  queryDim = queryDim_;
  kvDim = kvDim_;
  headDim = headDim_;
  inner = inner_;
  vocabulary = vocabulary_;
  epsilon = epsilon_;
}

export function setWeights(embedding_: usize, finalNorm_: usize, cosines_: usize, sines_: usize, weightTable_: usize): void {
  embedding = embedding_;
  finalNorm = finalNorm_;
  cosines = cosines_;
  sines = sines_;
  weightTable = weightTable_;
}

export function setAdapter(adapterTable_: usize, rank_: i32, scale_: f32): void {
  adapterTable = adapterTable_;
  rank = rank_;
  scale = scale_;
}

export function setBuffers(
  keptTable_: usize,
  x_: usize,
  d_: usize,
  normed_: usize,
  dNormed_: usize,
  wide_: usize,
  dWide_: usize,
  dQueries_: usize,
  dKeys_: usize,
  dValues_: usize,
  dProjected_: usize,
  states_: usize,
  dStates_: usize,
  logits_: usize,
): void {
  keptTable = keptTable_;
  x = x_;
  d = d_;
  normed = normed_;
  dNormed = dNormed_;
  wide = wide_;
  dWide = dWide_;
  dQueries = dQueries_;
  dKeys = dKeys_;
  dValues = dValues_;
  dProjected = dProjected_;
  states = states_;
  dStates = dStates_;
  logits = logits_;
}

/** @param tokens int32 (count) */
export function begin(count: i32, tokens: usize): void {
  rows = (count + 3) & ~3;
  const bytes = <usize>(hidden << 2);
  for (let row: usize = 0; row < <usize>count; row++) {
    memory.copy(x + row * bytes, embedding + <usize>load<i32>(tokens + (row << 2)) * bytes, bytes);
  }
  memory.fill(x + <usize>count * bytes, 0, <usize>(rows - count) * bytes);
  memory.fill(d, 0, <usize>rows * bytes);
}

export function forwardAttention(layer: i32): void {
  const queries = kept(layer, 1);
  const keys = kept(layer, 2);
  const values = kept(layer, 3);
  const attended = kept(layer, 4);
  memory.copy(kept(layer, 0), x, floats(hidden));
  normAll(x, weight(layer, 0));
  linear(layer, 0, queries, queryDim, normed, hidden);
  linear(layer, 1, keys, kvDim, normed, hidden);
  linear(layer, 2, values, kvDim, normed, hidden);
  rotateAll(queries, queryDim, 1);
  rotateAll(keys, kvDim, 1);
  attend(attended, queries, keys, values, rows);
  linear(layer, 3, wide, hidden, attended, queryDim);
  add(x, wide, rows * hidden);
}

export function forwardMlp(layer: i32): void {
  const gate = kept(layer, 6);
  const up = kept(layer, 7);
  memory.copy(kept(layer, 5), x, floats(hidden));
  normAll(x, weight(layer, 5));
  linear(layer, 4, gate, inner, normed, hidden);
  linear(layer, 5, up, inner, normed, hidden);
  activate(wide, gate, up, rows * inner);
  linear(layer, 6, normed, hidden, wide, inner);
  add(x, normed, rows * hidden);
}

/**
 * Cross entropy at some positions, and unless `share` is 0 what it asks of the last hidden states.
 * @param positions int32 (count), each of another row
 * @param targets int32 (count)
 * @param share factor of the loss whose gradient is taken
 * @returns the sum of the losses, nats
 */
export function losses(count: i32, positions: usize, targets: usize, share: f32): f64 {
  const even = (count + 1) & ~1;
  const stateBytes = <usize>(hidden << 2);
  const logitBytes = <usize>(vocabulary << 2);
  memory.fill(states + <usize>count * stateBytes, 0, <usize>(even - count) * stateBytes);
  for (let i: usize = 0; i < <usize>count; i++) {
    norm(states + i * stateBytes, x + <usize>load<i32>(positions + (i << 2)) * stateBytes, finalNorm, hidden, epsilon);
  }
  dots(logits, vocabulary, states, hidden, embedding, hidden, even, vocabulary, hidden);
  let loss: f64 = 0;
  for (let i: usize = 0; i < <usize>count; i++) {
    loss += crossEntropy(logits + i * logitBytes, load<i32>(targets + (i << 2)), share);
  }
  if (share == 0) return loss;
  memory.fill(logits + <usize>count * logitBytes, 0, <usize>(even - count) * logitBytes);
  memory.fill(dStates, 0, <usize>even * stateBytes);
  sums(dStates, hidden, logits, vocabulary, 1, embedding, hidden, even, hidden, vocabulary);
  for (let i: usize = 0; i < <usize>count; i++) {
    const at = <usize>load<i32>(positions + (i << 2)) * stateBytes;
    normBackward(d + at, dStates + i * stateBytes, x + at, finalNorm, hidden, epsilon);
  }
  return loss;
}

export function backwardMlp(layer: i32): void {
  const gate = kept(layer, 6);
  const up = kept(layer, 7);
  const middle = kept(layer, 5);
  activate(wide, gate, up, rows * inner);
  memory.fill(dWide, 0, floats(inner));
  linearBackward(layer, 6, d, hidden, wide, inner, dWide);
  const dUp = wide; // the activation is not needed any more
  activateBackward(dWide, dUp, gate, up, rows * inner);
  normAll(middle, weight(layer, 5));
  memory.fill(dNormed, 0, floats(hidden));
  linearBackward(layer, 4, dWide, inner, normed, hidden, dNormed);
  linearBackward(layer, 5, dUp, inner, normed, hidden, dNormed);
  normAllBackward(middle, weight(layer, 5));
}

export function backwardAttention(layer: i32): void {
  const input = kept(layer, 0);
  const dAttended = dWide;
  memory.fill(dAttended, 0, floats(queryDim));
  linearBackward(layer, 3, d, hidden, kept(layer, 4), queryDim, dAttended);
  memory.fill(dQueries, 0, floats(queryDim));
  memory.fill(dKeys, 0, floats(kvDim));
  memory.fill(dValues, 0, floats(kvDim));
  attendBackward(dAttended, dQueries, dKeys, dValues, kept(layer, 1), kept(layer, 2), kept(layer, 3), rows);
  rotateAll(dQueries, queryDim, -1);
  rotateAll(dKeys, kvDim, -1);
  normAll(input, weight(layer, 0));
  memory.fill(dNormed, 0, floats(hidden));
  linearBackward(layer, 0, dQueries, queryDim, normed, hidden, dNormed);
  linearBackward(layer, 1, dKeys, kvDim, normed, hidden, dNormed);
  linearBackward(layer, 2, dValues, kvDim, normed, hidden, dNormed);
  normAllBackward(input, weight(layer, 0));
}

/** Matrices of a layer in the order of the adapter's targets, and where they are in the table of weights. */
// @ts-ignore: decorator
@inline
function matrix(layer: i32, target: i32): usize {
  return weight(layer, target < 4 ? target + 1 : target + 2);
}

/** out (rows, outputs) = from (rows, inputs) through a matrix and its adapter. */
function linear(layer: i32, target: i32, out: usize, outputs: i32, from: usize, inputs: i32): void {
  dots(out, outputs, from, inputs, matrix(layer, target), inputs, rows, outputs, inputs);
  const a = adapter(layer, target, 0);
  if (!a) return;
  const projected = kept(layer, 8 + target);
  dots(projected, rank, from, inputs, a, inputs, rows, rank, inputs);
  scaleBy(projected, rows * rank, scale);
  sums(out, outputs, projected, rank, 1, adapter(layer, target, 1), outputs, rows, outputs, rank);
}

/** Adds to the gradients of the adapter and of the matrix's inputs. */
function linearBackward(layer: i32, target: i32, dOut: usize, outputs: i32, from: usize, inputs: i32, dFrom: usize): void {
  sums(dFrom, inputs, dOut, outputs, 1, matrix(layer, target), inputs, rows, inputs, outputs);
  const a = adapter(layer, target, 0);
  if (!a) return;
  const b = adapter(layer, target, 1);
  sums(adapter(layer, target, 3), outputs, kept(layer, 8 + target), 1, rank, dOut, outputs, rank, outputs, rows);
  dots(dProjected, rank, dOut, outputs, b, outputs, rows, rank, outputs);
  scaleBy(dProjected, rows * rank, scale);
  sums(adapter(layer, target, 2), inputs, dProjected, 1, rank, from, inputs, rank, inputs, rows);
  sums(dFrom, inputs, dProjected, rank, 1, a, inputs, rows, inputs, rank);
}

/** Logits become the gradient of their cross entropy, times `share`. */
function crossEntropy(at: usize, target: i32, share: f32): f64 {
  const bytes = <usize>(vocabulary << 2);
  let most: f32 = -Infinity;
  for (let i: usize = 0; i < bytes; i += 4) most = max(most, load<f32>(at + i));
  const chosen = at + ((<usize>target) << 2);
  const margin = load<f32>(chosen) - most;
  const total = exponentials(at, vocabulary, most);
  scaleBy(at, vocabulary, share / total);
  store<f32>(chosen, load<f32>(chosen) - share);
  return <f64>(Mathf.log(total) - margin);
}

function normAll(from: usize, by: usize): void {
  const bytes = <usize>(hidden << 2);
  for (let row: usize = 0; row < <usize>rows; row++) norm(normed + row * bytes, from + row * bytes, by, hidden, epsilon);
}

function normAllBackward(from: usize, by: usize): void {
  const bytes = <usize>(hidden << 2);
  for (let row: usize = 0; row < <usize>rows; row++) {
    normBackward(d + row * bytes, dNormed + row * bytes, from + row * bytes, by, hidden, epsilon);
  }
}

function rotateAll(at: usize, width: i32, direction: f32): void {
  const angles = <usize>(headDim << 1);
  for (let row: usize = 0; row < <usize>rows; row++) {
    const turned = at + row * <usize>(width << 2);
    rotate(turned, width / headDim, headDim, cosines + row * angles, sines + row * angles, direction);
  }
}

// @ts-ignore: decorator
@inline
function floats(width: i32): usize {
  return (<usize>(rows * width)) << 2;
}

// @ts-ignore: decorator
@inline
function weight(layer: i32, index: i32): usize {
  return load<usize>(weightTable + ((<usize>layer * WEIGHT_ENTRIES + <usize>index) << 2));
}

// @ts-ignore: decorator
@inline
function kept(layer: i32, index: i32): usize {
  return load<usize>(keptTable + ((<usize>layer * KEPT_ENTRIES + <usize>index) << 2));
}

// @ts-ignore: decorator
@inline
function adapter(layer: i32, target: i32, index: i32): usize {
  const entry = (<usize>layer * TARGETS + <usize>target) * ADAPTER_ENTRIES + <usize>index;
  return load<usize>(adapterTable + (entry << 2));
}

/** First byte that the module itself does not use. */
export function heapBase(): usize {
  return __heap_base;
}
