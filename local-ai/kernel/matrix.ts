import { sumsOfI32 } from "./simd";

/**
 * Products of int8 weights, with one scale a row, and activations of 12 bits, with one scale a vector. The sums are
 * integers, hence exact: a vector's product is the same bits alone or among others.
 */
const MOST: f32 = 2047;

/**
 * x (count, floats) → int16 with its scale. The largest magnitude becomes 2047.
 * @returns the scale
 */
export function quantise(to: usize, x: usize, count: i32): f32 {
  let most = f32x4.splat(0);
  const bytes = (<usize>count) << 2;
  for (let i: usize = 0; i < bytes; i += 16) most = f32x4.max(most, f32x4.abs(v128.load(x + i)));
  const largest = max(
    max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
    max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
  );
  const inverse = f32x4.splat(largest > 0 ? MOST / largest : 0);
  for (let i: usize = 0, o: usize = to; i < bytes; i += 32, o += 16) {
    const low = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + i), inverse)));
    const high = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + i + 16), inverse)));
    v128.store(o, i16x8.narrow_i32x4_s(low, high));
  }
  return largest / MOST;
}

/**
 * out (batch, rows) = x (batch, columns) · weightsᵀ (rows, columns). Rows and columns are multiples of 8.
 * `stride` is the distance of two outputs, in floats.
 */
export function multiply(
  out: usize,
  stride: i32,
  weights: usize,
  scales: usize,
  x: usize,
  xScales: usize,
  rows: i32,
  columns: i32,
  batch: i32,
): void {
  let at: i32 = 0;
  for (; at + 4 <= batch; at += 4) {
    four(out, stride, weights, scales, x + <usize>((at * columns) << 1), xScales + (<usize>at << 2), rows, columns);
    out += <usize>(stride << 4);
  }
  for (; at < batch; at++) {
    one(out, weights, scales, x + <usize>((at * columns) << 1), load<f32>(xScales + (<usize>at << 2)), rows, columns);
    out += <usize>(stride << 2);
  }
}

/** One vector: four rows at a time. */
function one(out: usize, weights: usize, scales: usize, x: usize, xScale: f32, rows: i32, columns: i32): void {
  const width = <usize>columns;
  const scale = f32x4.splat(xScale);
  for (let row: i32 = 0; row < rows; row += 4) {
    const w0 = weights;
    const w1 = w0 + width;
    const w2 = w1 + width;
    const w3 = w2 + width;
    let s0 = i32x4.splat(0);
    let s1 = i32x4.splat(0);
    let s2 = i32x4.splat(0);
    let s3 = i32x4.splat(0);
    for (let i: usize = 0; i < width; i += 8) {
      const values = v128.load(x + (i << 1));
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(v128.load_ext<i8>(w0 + i), values));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(v128.load_ext<i8>(w1 + i), values));
      s2 = i32x4.add(s2, i32x4.dot_i16x8_s(v128.load_ext<i8>(w2 + i), values));
      s3 = i32x4.add(s3, i32x4.dot_i16x8_s(v128.load_ext<i8>(w3 + i), values));
    }
    const sums = f32x4.convert_i32x4_s(sumsOfI32(s0, s1, s2, s3));
    v128.store(out, f32x4.mul(f32x4.mul(v128.load(scales), scale), sums));
    weights = w3 + width;
    scales += 16;
    out += 16;
  }
}

/** Four vectors: each weight is read once for all of them. */
function four(out: usize, stride: i32, weights: usize, scales: usize, x: usize, xScales: usize, rows: i32, columns: i32): void {
  const width = <usize>columns;
  const next = width << 1;
  const step = <usize>(stride << 2);
  const scaleOf = v128.load(xScales);
  for (let row: i32 = 0; row < rows; row += 2) {
    const w1 = weights + width;
    let a0 = i32x4.splat(0);
    let a1 = i32x4.splat(0);
    let a2 = i32x4.splat(0);
    let a3 = i32x4.splat(0);
    let b0 = i32x4.splat(0);
    let b1 = i32x4.splat(0);
    let b2 = i32x4.splat(0);
    let b3 = i32x4.splat(0);
    let from = x;
    for (let i: usize = 0; i < width; i += 8, from += 16) {
      const a = v128.load_ext<i8>(weights + i);
      const b = v128.load_ext<i8>(w1 + i);
      let values = v128.load(from);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(a, values));
      b0 = i32x4.add(b0, i32x4.dot_i16x8_s(b, values));
      values = v128.load(from + next);
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(a, values));
      b1 = i32x4.add(b1, i32x4.dot_i16x8_s(b, values));
      values = v128.load(from + next * 2);
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(a, values));
      b2 = i32x4.add(b2, i32x4.dot_i16x8_s(b, values));
      values = v128.load(from + next * 3);
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(a, values));
      b3 = i32x4.add(b3, i32x4.dot_i16x8_s(b, values));
    }
    store4(out, step, f32x4.mul(f32x4.mul(v128.load32_splat(scales), scaleOf), f32x4.convert_i32x4_s(sumsOfI32(a0, a1, a2, a3))));
    store4(
      out + 4,
      step,
      f32x4.mul(f32x4.mul(v128.load32_splat(scales + 4), scaleOf), f32x4.convert_i32x4_s(sumsOfI32(b0, b1, b2, b3))),
    );
    weights = w1 + width;
    scales += 8;
    out += 8;
  }
}

// @ts-ignore: decorator
@inline
function store4(out: usize, step: usize, values: v128): void {
  store<f32>(out, f32x4.extract_lane(values, 0));
  store<f32>(out + step, f32x4.extract_lane(values, 1));
  store<f32>(out + step * 2, f32x4.extract_lane(values, 2));
  store<f32>(out + step * 3, f32x4.extract_lane(values, 3));
}
