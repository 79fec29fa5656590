import { multiply, quantise } from "./matrix";
import { dot, exp, sumOfF32, sumsOfF32 } from "./simd";

export { multiply, quantise };

/**
 * One step of a Llama decoder over rows of any sequences: each row is one token at one position, with its own cache
 * and its own adapter. A row's result depends on its own sequence alone, bit for bit. Pointers and layouts come from
 * `../engine.ts`; nothing is allocated here.
 */
let hidden: i32;
let layers: i32;
let heads: i32;
let kvHeads: i32;
let headDim: i32;
let inner: i32;
let vocabulary: i32;
let epsilon: f32;

/** Tokens of a cache block, as a power of two. */
const BLOCK_BITS: i32 = 4;
const BLOCK: i32 = 1 << BLOCK_BITS;

let embedding: usize; // int8 (vocabulary, hidden)
let embeddingScales: usize;
let finalNorm: usize;
let cosines: usize; // (position, headDim / 2)
let sines: usize;
/** Of each layer: attention norm, qkv, its scales, o, its scales, mlp norm, gate and up, their scales, down, its scales. */
let layerTable: usize;
const LAYER_ENTRIES: usize = 10;

// Buffers of a step, a row for each token in it.
let x: usize; // (rows, hidden) the residual stream
let normed: usize; // (rows, hidden)
let qkv: usize; // (rows, queries, keys, values)
let attended: usize; // (rows, heads × headDim)
let gateUp: usize; // (rows, 2 × inner)
let quantised: usize; // int16 (rows, the widest input)
let quantisedScales: usize; // (rows)
let scores: usize; // (context)
let projected: usize; // (the largest rank)

export function configure(
  hidden_: i32,
  layers_: i32,
  heads_: i32,
  kvHeads_: i32,
  headDim_: i32,
  inner_: i32,
  vocabulary_: i32,
  epsilon_: f32,
): void {
  hidden = hidden_;
  layers = layers_;
  heads = heads_;
  kvHeads = kvHeads_;
  headDim = headDim_;
  inner = inner_;
  vocabulary = vocabulary_;
  epsilon = epsilon_;
}

export function setWeights(
  embedding_: usize,
  embeddingScales_: usize,
  finalNorm_: usize,
  cosines_: usize,
  sines_: usize,
  layerTable_: usize,
): void {
  embedding = embedding_;
  embeddingScales = embeddingScales_;
  finalNorm = finalNorm_;
  cosines = cosines_;
  sines = sines_;
  layerTable = layerTable_;
}

export function setBuffers(
  x_: usize,
  normed_: usize,
  qkv_: usize,
  attended_: usize,
  gateUp_: usize,
  quantised_: usize,
  quantisedScales_: usize,
  scores_: usize,
  projected_: usize,
): void {
  x = x_;
  normed = normed_;
  qkv = qkv_;
  attended = attended_;
  gateUp = gateUp_;
  quantised = quantised_;
  quantisedScales = quantisedScales_;
  scores = scores_;
  projected = projected_;
}

/**
 * @param tokens int32 (rows)
 * @param positions int32 (rows)
 * @param tables (rows) pointers to the blocks of each row's sequence
 * @param adapters (rows) pointers to adapters; 0 for none
 * @param wanted int32 (rows) not 0 where the last hidden state is asked for
 * @param states out: (wanted rows, hidden) normed hidden states, in the order of the rows
 */
export function forward(
  rows: i32,
  tokens: usize,
  positions: usize,
  tables: usize,
  adapters: usize,
  wanted: usize,
  states: usize,
): void {
  const qkvDim = (heads + 2 * kvHeads) * headDim;
  const queryDim = heads * headDim;
  for (let row: i32 = 0; row < rows; row++) embed(x + offset(row, hidden), load<i32>(tokens + (<usize>row << 2)));
  for (let layer: i32 = 0; layer < layers; layer++) {
    normAll(rows, entry(layer, 0));
    product(qkv, qkvDim, entry(layer, 1), entry(layer, 2), normed, hidden, hidden, qkvDim, rows);
    for (let row: i32 = 0; row < rows; row++) {
      const at = qkv + offset(row, qkvDim);
      const adapter = load<usize>(adapters + (<usize>row << 2));
      if (adapter) {
        const from = normed + offset(row, hidden);
        adapt(adapter, layer, 0, at, queryDim, from, hidden);
        adapt(adapter, layer, 1, at + offset(1, queryDim), kvHeads * headDim, from, hidden);
        adapt(adapter, layer, 2, at + offset(1, queryDim + kvHeads * headDim), kvHeads * headDim, from, hidden);
      }
      const position = load<i32>(positions + (<usize>row << 2));
      rotate(at, heads + kvHeads, position);
      keep(load<usize>(tables + (<usize>row << 2)), layer, position, at + offset(1, queryDim));
    }
    for (let row: i32 = 0; row < rows; row++) {
      const table = load<usize>(tables + (<usize>row << 2));
      attend(table, layer, load<i32>(positions + (<usize>row << 2)), qkv + offset(row, qkvDim), attended + offset(row, queryDim));
    }
    product(normed, hidden, entry(layer, 3), entry(layer, 4), attended, queryDim, queryDim, hidden, rows);
    adaptAll(adapters, layer, 3, normed, hidden, hidden, attended, queryDim, queryDim, rows);
    add(x, normed, rows * hidden);
    normAll(rows, entry(layer, 5));
    product(gateUp, 2 * inner, entry(layer, 6), entry(layer, 7), normed, hidden, hidden, 2 * inner, rows);
    adaptAll(adapters, layer, 4, gateUp, 2 * inner, inner, normed, hidden, hidden, rows);
    adaptAll(adapters, layer, 5, gateUp + offset(1, inner), 2 * inner, inner, normed, hidden, hidden, rows);
    for (let row: i32 = 0; row < rows; row++) activate(gateUp + offset(row, 2 * inner));
    product(normed, hidden, entry(layer, 8), entry(layer, 9), gateUp, 2 * inner, inner, hidden, rows);
    adaptAll(adapters, layer, 6, normed, hidden, hidden, gateUp, 2 * inner, inner, rows);
    add(x, normed, rows * hidden);
  }
  for (let row: i32 = 0; row < rows; row++) {
    if (!load<i32>(wanted + (<usize>row << 2))) continue;
    norm(states, x + offset(row, hidden), finalNorm);
    states += offset(1, hidden);
  }
}

/** Logits (rows, vocabulary) of hidden states (rows, hidden): the embedding is the output matrix too. */
export function logits(rows: i32, states: usize, out: usize): void {
  product(out, vocabulary, embedding, embeddingScales, states, hidden, hidden, vocabulary, rows);
}

// @ts-ignore: decorator
@inline
function offset(row: i32, width: i32): usize {
  return (<usize>(row * width)) << 2;
}

// @ts-ignore: decorator
@inline
function entry(layer: i32, index: usize): usize {
  return load<usize>(layerTable + ((<usize>layer * LAYER_ENTRIES + index) << 2));
}

function product(
  out: usize,
  outStride: i32,
  weights: usize,
  scales: usize,
  from: usize,
  fromStride: i32,
  columns: i32,
  outputs: i32,
  rows: i32,
): void {
  for (let row: i32 = 0; row < rows; row++) {
    const scale = quantise(quantised + <usize>((row * columns) << 1), from + offset(row, fromStride), columns);
    store<f32>(quantisedScales + (<usize>row << 2), scale);
  }
  multiply(out, outStride, weights, scales, quantised, quantisedScales, outputs, columns, rows);
}

function embed(to: usize, token: i32): void {
  const from = embedding + <usize>(token * hidden);
  const scale = f32x4.splat(load<f32>(embeddingScales + (<usize>token << 2)));
  for (let i: usize = 0; i < <usize>hidden; i += 8) {
    const wide = v128.load_ext<i8>(from + i);
    v128.store(to + (i << 2), f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(wide)), scale));
    v128.store(to + (i << 2) + 16, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(wide)), scale));
  }
}

function normAll(rows: i32, weight: usize): void {
  for (let row: i32 = 0; row < rows; row++) norm(normed + offset(row, hidden), x + offset(row, hidden), weight);
}

function norm(out: usize, from: usize, weight: usize): void {
  const squares = dot(from, from, hidden);
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(squares / <f32>hidden + epsilon));
  const bytes = (<usize>hidden) << 2;
  for (let i: usize = 0; i < bytes; i += 16) {
    v128.store(out + i, f32x4.mul(f32x4.mul(v128.load(from + i), scale), v128.load(weight + i)));
  }
}

/** Rotary position embedding: dimension i turns with dimension i + headDim / 2. */
function rotate(at: usize, count: i32, position: i32): void {
  const half = headDim >> 1;
  const bytes = (<usize>half) << 2;
  const c = cosines + offset(position, half);
  const s = sines + offset(position, half);
  for (let head: i32 = 0; head < count; head++, at += bytes << 1) {
    for (let i: usize = 0; i < bytes; i += 16) {
      const a = v128.load(at + i);
      const b = v128.load(at + bytes + i);
      const cosine = v128.load(c + i);
      const sine = v128.load(s + i);
      v128.store(at + i, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
      v128.store(at + bytes + i, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)));
    }
  }
}

/** A block: (layer, keys and values, position in the block, kvHeads × headDim). */
// @ts-ignore: decorator
@inline
function cached(table: usize, layer: i32, position: i32, kvDim: i32): usize {
  const block = load<usize>(table + (<usize>(position >> BLOCK_BITS) << 2));
  return block + offset(layer * 2 * BLOCK + (position & (BLOCK - 1)), kvDim);
}

function keep(table: usize, layer: i32, position: i32, keyAndValue: usize): void {
  const kvDim = kvHeads * headDim;
  const to = cached(table, layer, position, kvDim);
  const bytes = (<usize>kvDim) << 2;
  memory.copy(to, keyAndValue, bytes);
  memory.copy(to + offset(BLOCK, kvDim), keyAndValue + bytes, bytes);
}

/** Causal attention of one position over all before it; several query heads share a key-value head. */
function attend(table: usize, layer: i32, position: i32, query: usize, out: usize): void {
  const kvDim = kvHeads * headDim;
  const headBytes = (<usize>headDim) << 2;
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(<f32>headDim));
  const count = position + 1;
  const shared = heads / kvHeads;
  for (let head: i32 = 0; head < heads; head++, query += headBytes, out += headBytes) {
    const within = offset(head / shared, headDim);
    let most = f32x4.splat(-Infinity);
    for (let t: i32 = 0; t < count; t += 4) {
      // Beyond the end the block holds what an earlier owner left: computed, and then not counted.
      const key = cached(table, layer, t, kvDim) + within;
      const four = f32x4.mul(fourDots(query, key, offset(1, kvDim), headBytes), scale);
      const counted = t + 4 <= count ? four : v128.bitselect(four, f32x4.splat(-Infinity), firstLanes(count - t));
      v128.store(scores + (<usize>t << 2), counted);
      most = f32x4.max(most, counted);
    }
    const largest = max(
      max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
      max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
    );
    let total = f32x4.splat(0);
    for (let t: i32 = 0; t < count; t += 4) {
      const at = scores + (<usize>t << 2);
      let weight = exp(f32x4.sub(v128.load(at), f32x4.splat(largest)));
      if (t + 4 > count) weight = v128.and(weight, firstLanes(count - t));
      v128.store(at, weight);
      total = f32x4.add(total, weight);
    }
    const inverse = <f32>1 / sumOfF32(total);
    memory.fill(out, 0, headBytes);
    for (let first: i32 = 0; first < count; first += BLOCK) {
      const values = cached(table, layer, first, kvDim) + offset(BLOCK, kvDim) + within;
      weigh(out, values, offset(1, kvDim), scores + (<usize>first << 2), min(BLOCK, count - first), headBytes);
    }
    const by = f32x4.splat(inverse);
    for (let i: usize = 0; i < headBytes; i += 16) v128.store(out + i, f32x4.mul(v128.load(out + i), by));
  }
}

/** All bits of the first so many lanes, 1 to 3. */
// @ts-ignore: decorator
@inline
function firstLanes(count: i32): v128 {
  return i32x4.lt_s(v128(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0), i32x4.splat(count));
}

/** The query against four keys. */
// @ts-ignore: decorator
@inline
function fourDots(query: usize, key: usize, step: usize, bytes: usize): v128 {
  let a = f32x4.splat(0);
  let b = f32x4.splat(0);
  let c = f32x4.splat(0);
  let d = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const q = v128.load(query + i);
    a = f32x4.add(a, f32x4.mul(q, v128.load(key + i)));
    b = f32x4.add(b, f32x4.mul(q, v128.load(key + step + i)));
    c = f32x4.add(c, f32x4.mul(q, v128.load(key + step * 2 + i)));
    d = f32x4.add(d, f32x4.mul(q, v128.load(key + step * 3 + i)));
  }
  return sumsOfF32(a, b, c, d);
}

/** out += Σ weights[t] × values[t] over a part of a block. */
function weigh(out: usize, values: usize, step: usize, weights: usize, count: i32, bytes: usize): void {
  for (let i: usize = 0; i < bytes; i += 32) {
    let low = v128.load(out + i);
    let high = v128.load(out + i + 16);
    let from = values + i;
    for (let t: i32 = 0; t < count; t++, from += step) {
      const weight = v128.load32_splat(weights + (<usize>t << 2));
      low = f32x4.add(low, f32x4.mul(weight, v128.load(from)));
      high = f32x4.add(high, f32x4.mul(weight, v128.load(from + 16)));
    }
    v128.store(out + i, low);
    v128.store(out + i + 16, high);
  }
}

/** SwiGLU: gate × sigmoid(gate) × up, in the place of the gate. */
function activate(at: usize): void {
  const bytes = (<usize>inner) << 2;
  const one = f32x4.splat(1);
  for (let i: usize = 0; i < bytes; i += 16) {
    const gate = v128.load(at + i);
    const sigmoid = f32x4.div(one, f32x4.add(one, exp(f32x4.neg(gate))));
    v128.store(at + i, f32x4.mul(f32x4.mul(gate, sigmoid), v128.load(at + bytes + i)));
  }
}

function add(to: usize, from: usize, count: i32): void {
  const bytes = (<usize>count) << 2;
  for (let i: usize = 0; i < bytes; i += 16) v128.store(to + i, f32x4.add(v128.load(to + i), v128.load(from + i)));
}

function adaptAll(
  adapters: usize,
  layer: i32,
  target: i32,
  out: usize,
  outStride: i32,
  outputs: i32,
  from: usize,
  fromStride: i32,
  columns: i32,
  rows: i32,
): void {
  for (let row: i32 = 0; row < rows; row++) {
    const adapter = load<usize>(adapters + (<usize>row << 2));
    if (adapter) adapt(adapter, layer, target, out + offset(row, outStride), outputs, from + offset(row, fromStride), columns);
  }
}

/**
 * out += scale × B (A x). An adapter: its rank, its scale, then for each layer and target the pointers of A (rank,
 * columns) and of B transposed (rank, outputs); 0 where a matrix is not adapted.
 */
function adapt(adapter: usize, layer: i32, target: i32, out: usize, outputs: i32, from: usize, columns: i32): void {
  const pair = adapter + 8 + (<usize>(layer * 7 + target) << 3);
  let a = load<usize>(pair);
  if (!a) return;
  let b = load<usize>(pair + 4);
  const rank = load<i32>(adapter);
  const scale = load<f32>(adapter + 4);
  const bytes = (<usize>outputs) << 2;
  for (let r: i32 = 0; r < rank; r++) {
    store<f32>(projected + (<usize>r << 2), scale * dot(a, from, columns));
    a += offset(1, columns);
  }
  for (let i: usize = 0; i < bytes; i += 16) {
    let sum = v128.load(out + i);
    let at = b + i;
    for (let r: i32 = 0; r < rank; r++, at += bytes) {
      sum = f32x4.add(sum, f32x4.mul(v128.load32_splat(projected + (<usize>r << 2)), v128.load(at)));
    }
    v128.store(out + i, sum);
  }
}

/** First byte that nothing here uses. */
export function heapBase(): usize {
  return __heap_base;
}
