import { dot, exp, sumOfF32 } from "../../kernel/simd";
import { dots, sums } from "./products";

/**
 * Causal attention with shared keys and values, forward and backward. Rows are taken in blocks that see no key beyond
 * their last row; weights are computed again on the way back instead of being kept, which a sequence would pay with
 * the square of its length.
 */
const BLOCK: i32 = 32;

let heads: i32;
let kvHeads: i32;
let headDim: i32;
let weights: usize; // (BLOCK, the longest sequence)
let gradients: usize; // (BLOCK, the longest sequence)

export function configureAttention(heads_: i32, kvHeads_: i32, headDim_: i32, weights_: usize, gradients_: usize): void {
  heads = heads_;
  kvHeads = kvHeads_;
  headDim = headDim_;
  weights = weights_;
  gradients = gradients_;
}

/** out (rows, heads × headDim) of queries of the same shape, and keys and values (rows, kvHeads × headDim). */
export function attend(out: usize, queries: usize, keys: usize, values: usize, rows: i32): void {
  const queryDim = heads * headDim;
  const kvDim = kvHeads * headDim;
  memory.fill(out, 0, (<usize>(rows * queryDim)) << 2);
  for (let first: i32 = 0; first < rows; first += BLOCK) {
    const count = min(BLOCK, rows - first);
    const seen = first + count;
    for (let head: i32 = 0; head < heads; head++) {
      const own = (<usize>(first * queryDim + head * headDim)) << 2;
      const shared = (<usize>((head * kvHeads) / heads) * headDim) << 2;
      dots(weights, seen, queries + own, queryDim, keys + shared, kvDim, count, seen, headDim);
      normalise(first, count, seen);
      sums(out + own, queryDim, weights, seen, 1, values + shared, kvDim, count, headDim, seen);
    }
  }
}

/** Adds to the gradients of queries, keys and values; `dOut` is that of what {@link attend} gave. */
export function attendBackward(
  dOut: usize,
  dQueries: usize,
  dKeys: usize,
  dValues: usize,
  queries: usize,
  keys: usize,
  values: usize,
  rows: i32,
): void {
  const queryDim = heads * headDim;
  const kvDim = kvHeads * headDim;
  for (let first: i32 = 0; first < rows; first += BLOCK) {
    const count = min(BLOCK, rows - first);
    const seen = first + count;
    for (let head: i32 = 0; head < heads; head++) {
      const own = (<usize>(first * queryDim + head * headDim)) << 2;
      const shared = (<usize>((head * kvHeads) / heads) * headDim) << 2;
      dots(weights, seen, queries + own, queryDim, keys + shared, kvDim, count, seen, headDim);
      normalise(first, count, seen);
      dots(gradients, seen, dOut + own, queryDim, values + shared, kvDim, count, seen, headDim);
      softmaxBackward(count, seen);
      sums(dQueries + own, queryDim, gradients, seen, 1, keys + shared, kvDim, count, headDim, seen);
      sums(dKeys + shared, kvDim, gradients, 1, seen, queries + own, queryDim, seen, headDim, count);
      sums(dValues + shared, kvDim, weights, 1, seen, dOut + own, queryDim, seen, headDim, count);
    }
  }
}

/** Scores become weights: softmax over the keys up to the row's own, nothing for later ones. */
function normalise(first: i32, count: i32, seen: i32): void {
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(<f32>headDim));
  const lanes = v128(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
  for (let row: i32 = 0; row < count; row++) {
    const at = weights + ((<usize>(row * seen)) << 2);
    const visible = i32x4.splat(first + row + 1);
    let most = f32x4.splat(-Infinity);
    for (let s: i32 = 0; s < seen; s += 4) {
      const isSeen = i32x4.lt_s(i32x4.add(lanes, i32x4.splat(s)), visible);
      const score = f32x4.mul(v128.load(at + ((<usize>s) << 2)), scale);
      const counted = v128.bitselect(score, f32x4.splat(-Infinity), isSeen);
      v128.store(at + ((<usize>s) << 2), counted);
      most = f32x4.max(most, counted);
    }
    const largest = f32x4.splat(
      max(
        max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
        max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
      ),
    );
    let total = f32x4.splat(0);
    for (let s: i32 = 0; s < seen; s += 4) {
      const isSeen = i32x4.lt_s(i32x4.add(lanes, i32x4.splat(s)), visible);
      const weight = v128.and(exp(f32x4.sub(v128.load(at + ((<usize>s) << 2)), largest)), isSeen);
      v128.store(at + ((<usize>s) << 2), weight);
      total = f32x4.add(total, weight);
    }
    const inverse = f32x4.splat(<f32>1 / sumOfF32(total));
    for (let s: i32 = 0; s < seen; s += 4) {
      v128.store(at + ((<usize>s) << 2), f32x4.mul(v128.load(at + ((<usize>s) << 2)), inverse));
    }
  }
}

/** The gradients of the weights become those of the products of queries and keys. */
function softmaxBackward(count: i32, seen: i32): void {
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(<f32>headDim));
  for (let row: i32 = 0; row < count; row++) {
    const offset = (<usize>(row * seen)) << 2;
    const mean = f32x4.splat(dot(weights + offset, gradients + offset, seen));
    for (let s: i32 = 0; s < seen; s += 4) {
      const at = offset + ((<usize>s) << 2);
      const change = f32x4.mul(v128.load(weights + at), f32x4.sub(v128.load(gradients + at), mean));
      v128.store(gradients + at, f32x4.mul(change, scale));
    }
  }
}
