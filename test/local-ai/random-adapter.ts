import { type LoraAdapter, TARGETS, type Target } from "../../local-ai/adapter";
import type { Weights } from "../../local-ai/base-weights";
import { sizeOf } from "../../local-ai/peft";

/** An adapter of small random numbers, the same for the same seed. */
export function randomAdapter(
  { config, layers }: Weights,
  rank: number,
  targets: readonly Target[],
  seed: number,
): LoraAdapter {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 4_294_967_296 - 0.5) * 0.1;
  };
  const pair = (target: Target) => {
    const [inputs, outputs] = sizeOf(target, config);
    const a = Float32Array.from({ length: rank * inputs }, next);
    return { a, b: Float32Array.from({ length: rank * outputs }, next) };
  };
  const chosen = TARGETS.filter((target) => targets.includes(target));
  const layer = () => Object.fromEntries(chosen.map((target) => [target, pair(target)]));
  return { rank, scale: 2, layers: layers.map(layer) };
}
