import { dot, exp, sumOfF32 } from "../../kernel/simd";

/** What a layer does besides its products, forward and backward. Counts are floats, multiples of 4. */

/** out += values. */
export function add(out: usize, values: usize, count: i32): void {
  const bytes = (<usize>count) << 2;
  for (let i: usize = 0; i < bytes; i += 16) v128.store(out + i, f32x4.add(v128.load(out + i), v128.load(values + i)));
}

export function scaleBy(values: usize, count: i32, by: f32): void {
  const bytes = (<usize>count) << 2;
  const factor = f32x4.splat(by);
  for (let i: usize = 0; i < bytes; i += 16) v128.store(values + i, f32x4.mul(v128.load(values + i), factor));
}

/** Root mean square layer normalisation (Zhang & Sennrich 2019) of one row. */
export function norm(out: usize, from: usize, weight: usize, count: i32, epsilon: f32): void {
  const scale = f32x4.splat(inverseRms(from, count, epsilon));
  const bytes = (<usize>count) << 2;
  for (let i: usize = 0; i < bytes; i += 16) {
    v128.store(out + i, f32x4.mul(f32x4.mul(v128.load(from + i), scale), v128.load(weight + i)));
  }
}

/** d += the gradient of the norm's input, where `gradient` is that of its output. */
export function normBackward(d: usize, gradient: usize, from: usize, weight: usize, count: i32, epsilon: f32): void {
  const inverse = inverseRms(from, count, epsilon);
  const bytes = (<usize>count) << 2;
  let along = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const weighted = f32x4.mul(v128.load(gradient + i), v128.load(weight + i));
    along = f32x4.add(along, f32x4.mul(weighted, v128.load(from + i)));
  }
  const scale = f32x4.splat(inverse);
  const back = f32x4.splat((sumOfF32(along) * inverse * inverse * inverse) / <f32>count);
  for (let i: usize = 0; i < bytes; i += 16) {
    const weighted = f32x4.mul(v128.load(gradient + i), v128.load(weight + i));
    const change = f32x4.sub(f32x4.mul(weighted, scale), f32x4.mul(v128.load(from + i), back));
    v128.store(d + i, f32x4.add(v128.load(d + i), change));
  }
}

// @ts-ignore: decorator
@inline
function inverseRms(from: usize, count: i32, epsilon: f32): f32 {
  return <f32>1 / sqrt<f32>(dot(from, from, count) / <f32>count + epsilon);
}

/** out = gate × sigmoid(gate) × up (SwiGLU, Shazeer 2020). */
export function activate(out: usize, gate: usize, up: usize, count: i32): void {
  const bytes = (<usize>count) << 2;
  for (let i: usize = 0; i < bytes; i += 16) {
    const g = v128.load(gate + i);
    v128.store(out + i, f32x4.mul(f32x4.mul(g, sigmoid(g)), v128.load(up + i)));
  }
}

/** From the gradient of the activation, in place, that of the gate; `dUp` becomes that of the other factor. */
export function activateBackward(d: usize, dUp: usize, gate: usize, up: usize, count: i32): void {
  const bytes = (<usize>count) << 2;
  const one = f32x4.splat(1);
  for (let i: usize = 0; i < bytes; i += 16) {
    const g = v128.load(gate + i);
    const s = sigmoid(g);
    const silu = f32x4.mul(g, s);
    const gradient = v128.load(d + i);
    v128.store(dUp + i, f32x4.mul(gradient, silu));
    const slope = f32x4.mul(s, f32x4.add(one, f32x4.sub(g, silu)));
    v128.store(d + i, f32x4.mul(f32x4.mul(gradient, v128.load(up + i)), slope));
  }
}

// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp(f32x4.neg(x))));
}

/** Rotary position embedding of a row's heads; with `direction` −1 its inverse, which is also its gradient. */
export function rotate(at: usize, heads: i32, headDim: i32, cosines: usize, sines: usize, direction: f32): void {
  const half = (<usize>headDim) << 1; // bytes of half a head
  const turn = f32x4.splat(direction);
  for (let head: i32 = 0; head < heads; head++, at += half << 1) {
    for (let i: usize = 0; i < half; i += 16) {
      const a = v128.load(at + i);
      const b = v128.load(at + half + i);
      const cosine = v128.load(cosines + i);
      const sine = f32x4.mul(v128.load(sines + i), turn);
      v128.store(at + i, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
      v128.store(at + half + i, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)));
    }
  }
}

/** Values become e^(value − most). @returns their sum */
export function exponentials(at: usize, count: i32, most: f32): f32 {
  const bytes = (<usize>count) << 2;
  const from = f32x4.splat(most);
  let total = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = exp(f32x4.sub(v128.load(at + i), from));
    v128.store(at + i, value);
    total = f32x4.add(total, value);
  }
  return sumOfF32(total);
}
