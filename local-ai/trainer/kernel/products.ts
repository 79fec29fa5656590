import { sumsOfF32 } from "../../kernel/simd";

/**
 * Matrix products of float32 with strides in floats. Training needs two: rows with rows (a layer's outputs), and sums
 * of rows (the gradients of its inputs and of adapters). Both walk the right side in pieces that stay in the nearest
 * cache while all rows of the left side pass over them.
 */

/** out (m, n) = a (m, k) · b (n, k)ᵀ. m is a multiple of 2; n and k are multiples of 4. */
export function dots(
  out: usize,
  outStride: i32,
  a: usize,
  aStride: i32,
  b: usize,
  bStride: i32,
  m: i32,
  n: i32,
  k: i32,
): void {
  const outStep = (<usize>outStride) << 2;
  const aStep = (<usize>aStride) << 2;
  const bStep = (<usize>bStride) << 2;
  const width = (<usize>k) << 2;
  for (let column: i32 = 0; column < n; column += 4, b += bStep << 2, out += 16) {
    const b1 = b + bStep;
    const b2 = b1 + bStep;
    const b3 = b2 + bStep;
    let left = a;
    let to = out;
    for (let row: i32 = 0; row < m; row += 2, left += aStep << 1, to += outStep << 1) {
      const next = left + aStep;
      let s0 = f32x4.splat(0);
      let s1 = f32x4.splat(0);
      let s2 = f32x4.splat(0);
      let s3 = f32x4.splat(0);
      let t0 = f32x4.splat(0);
      let t1 = f32x4.splat(0);
      let t2 = f32x4.splat(0);
      let t3 = f32x4.splat(0);
      for (let i: usize = 0; i < width; i += 16) {
        const x = v128.load(left + i);
        const y = v128.load(next + i);
        let w = v128.load(b + i);
        s0 = f32x4.add(s0, f32x4.mul(x, w));
        t0 = f32x4.add(t0, f32x4.mul(y, w));
        w = v128.load(b1 + i);
        s1 = f32x4.add(s1, f32x4.mul(x, w));
        t1 = f32x4.add(t1, f32x4.mul(y, w));
        w = v128.load(b2 + i);
        s2 = f32x4.add(s2, f32x4.mul(x, w));
        t2 = f32x4.add(t2, f32x4.mul(y, w));
        w = v128.load(b3 + i);
        s3 = f32x4.add(s3, f32x4.mul(x, w));
        t3 = f32x4.add(t3, f32x4.mul(y, w));
      }
      v128.store(to, sumsOfF32(s0, s1, s2, s3));
      v128.store(to + outStep, sumsOfF32(t0, t1, t2, t3));
    }
  }
}

/**
 * out (m, n) += a (m, k) · b (k, n). The left side has a stride for its rows and one for its columns, so that it may
 * be the transpose of what lies in memory. m is a multiple of 2, n of 16.
 */
export function sums(
  out: usize,
  outStride: i32,
  a: usize,
  aRowStride: i32,
  aColumnStride: i32,
  b: usize,
  bStride: i32,
  m: i32,
  n: i32,
  k: i32,
): void {
  const outStep = (<usize>outStride) << 2;
  const aRow = (<usize>aRowStride) << 2;
  const aColumn = (<usize>aColumnStride) << 2;
  const bStep = (<usize>bStride) << 2;
  for (let column: i32 = 0; column < n; column += 16, b += 64, out += 64) {
    let left = a;
    let to = out;
    for (let row: i32 = 0; row < m; row += 2, left += aRow << 1, to += outStep << 1) {
      const below = to + outStep;
      let s0 = v128.load(to);
      let s1 = v128.load(to + 16);
      let s2 = v128.load(to + 32);
      let s3 = v128.load(to + 48);
      let t0 = v128.load(below);
      let t1 = v128.load(below + 16);
      let t2 = v128.load(below + 32);
      let t3 = v128.load(below + 48);
      let from = left;
      let right = b;
      for (let i: i32 = 0; i < k; i++, from += aColumn, right += bStep) {
        const x = v128.load32_splat(from);
        const y = v128.load32_splat(from + aRow);
        let w = v128.load(right);
        s0 = f32x4.add(s0, f32x4.mul(x, w));
        t0 = f32x4.add(t0, f32x4.mul(y, w));
        w = v128.load(right + 16);
        s1 = f32x4.add(s1, f32x4.mul(x, w));
        t1 = f32x4.add(t1, f32x4.mul(y, w));
        w = v128.load(right + 32);
        s2 = f32x4.add(s2, f32x4.mul(x, w));
        t2 = f32x4.add(t2, f32x4.mul(y, w));
        w = v128.load(right + 48);
        s3 = f32x4.add(s3, f32x4.mul(x, w));
        t3 = f32x4.add(t3, f32x4.mul(y, w));
      }
      v128.store(to, s0);
      v128.store(to + 16, s1);
      v128.store(to + 32, s2);
      v128.store(to + 48, s3);
      v128.store(below, t0);
      v128.store(below + 16, t1);
      v128.store(below + 32, t2);
      v128.store(below + 48, t3);
    }
  }
}
