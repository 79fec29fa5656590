import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allocate, weightOf } from "../../../src/core/cost-allocation";

const shares = fc
  .uniqueArray(fc.tuple(fc.string({ minLength: 1 }), fc.integer({ min: 0, max: 1e9 })), {
    selector: ([name]) => name,
    maxLength: 40,
  })
  .map((pairs) => new Map(pairs));

describe("a shared cost", () => {
  it("is divided to the last micro-dollar, in proportion, and never to those who took nothing", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e12 }), shares, (amount, by) => {
        const parts = allocate(amount, by);
        const total = [...by.values()].reduce((sum, share) => sum + share, 0);
        expect([...parts.values()].reduce((sum, part) => sum + part, 0)).toBe(total === 0 ? 0 : amount);
        for (const [name, share] of by) {
          const part = parts.get(name) ?? -1;
          if (share === 0) expect(part).toBe(0);
          else expect(Math.abs(part - amount * (share / total))).toBeLessThan(1);
        }
      }),
    );
  });

  it("is divided the same way in whatever order its sharers are named", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), shares, (amount, by) => {
        const turned = new Map([...by].reverse());
        expect(new Map([...allocate(amount, turned)].sort())).toEqual(new Map([...allocate(amount, by)].sort()));
      }),
    );
  });
});

describe("the weight of a call in a shared cost", () => {
  it("counts an output token as twice an input token", () => {
    expect(weightOf({ inputTokens: 7, outputTokens: 5 })).toBe(17);
  });
});
