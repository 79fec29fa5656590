import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Sampler, type Sampling } from "../../local-ai/sampler";
import { GREEDY } from "./engine";

const logits = fc.array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 3, maxLength: 40 });
const draw = (values: readonly number[], sampling: Partial<Sampling>, times = 1, forbidden: readonly number[] = []) => {
  const sampler = new Sampler({ ...GREEDY, ...sampling }, forbidden);
  return Array.from({ length: times }, () => sampler.next(Float32Array.from(values)));
};
/** How often each id came up among many first draws. */
const shares = (values: readonly number[], sampling: Partial<Sampling>): number[] => {
  const counts = values.map(() => 0);
  for (const id of draw(values, sampling, 4000)) counts[id] = (counts[id] ?? 0) + 1;
  return counts.map((count) => count / 4000);
};

describe("sampler", () => {
  it("takes the most likely token at temperature 0, the lower id among equals", () => {
    expect(draw([1, 5, 5, 2], {})).toEqual([1]);
  });

  it("is the same for the same seed, whatever else is asked", () => {
    const sampling = fc.record({
      temperature: fc.constantFrom(0.1, 0.6, 1, 5),
      topP: fc.constantFrom(0, 0.5, 0.9, 1),
      topK: fc.constantFrom(0, 1, 5, 1000),
      repetitionPenalty: fc.constantFrom(0.5, 1, 2),
      frequencyPenalty: fc.constantFrom(-2, 0, 2),
      presencePenalty: fc.constantFrom(-2, 0, 2),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(logits, sampling, (values, options) => {
        const ids = draw(values, options, 20);
        expect(draw(values, options, 20)).toEqual(ids);
        expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < values.length)).toBe(true);
      }),
    );
  });

  it("draws in proportion to the probabilities at temperature 1", () => {
    const [first = 0, second = 0, third = 0] = shares([Math.log(0.6), Math.log(0.3), Math.log(0.1)], {
      temperature: 1,
    });
    expect(first).toBeCloseTo(0.6, 1);
    expect(second).toBeCloseTo(0.3, 1);
    expect(third).toBeCloseTo(0.1, 1);
  });

  it("keeps to the top k and, of them, to the fewest whose share reaches top p", () => {
    const values = [0.4, 0.1, 0.3, 0.2].map(Math.log);
    const drawn = (sampling: Partial<Sampling>) =>
      [...new Set(draw(values, { temperature: 1, ...sampling }, 500))].sort((a, b) => a - b);
    expect(drawn({ topK: 2 })).toEqual([0, 2]);
    expect(drawn({ topP: 0.65 })).toEqual([0, 2]);
    expect(drawn({ topP: 0.75 })).toEqual([0, 2, 3]);
    expect(drawn({ topP: 0 })).toEqual([0]);
    expect(drawn({ topK: 1, topP: 1 })).toEqual([0]);
    expect(drawn({})).toEqual([0, 1, 2, 3]);
  });

  it("prefers the lower id among equals, whatever came before", () => {
    const sampler = new Sampler({ ...GREEDY, temperature: 1, topK: 1 }, []);
    expect(sampler.next(Float32Array.of(1, 2, 3))).toBe(2);
    expect(sampler.next(Float32Array.of(5, 5, 5))).toBe(0);
  });

  it("turns to other tokens under each penalty", () => {
    expect(draw([2, 1.5], {}, 3)).toEqual([0, 0, 0]);
    expect(draw([2, 1.5], { repetitionPenalty: 2 }, 3)).toEqual([0, 1, 0]);
    expect(draw([2, 1.5], { presencePenalty: 1 }, 3)).toEqual([0, 1, 0]);
    expect(draw([2, 1.5], { frequencyPenalty: 1 }, 4)).toEqual([0, 1, 0, 1]);
  });

  it("never chooses a forbidden token", () => {
    for (const temperature of [0, 1]) {
      const ids = draw([9, 1, 8, 1], { temperature }, 200, [0, 2]);
      expect(ids.some((id) => id === 0 || id === 2)).toBe(false);
    }
  });
});
