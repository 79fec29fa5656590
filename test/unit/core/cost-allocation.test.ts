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

describe("a cost that several share", () => {
  const of = (amount: number, ...shares: [string, number][]) => Object.fromEntries(allocate(amount, new Map(shares)));

  it("is nobody's where nobody took anything, and never that of one who took nothing", () => {
    expect(of(10, ["a", 0], ["b", 0])).toEqual({ a: 0, b: 0 });
    expect(of(10, ["a", 0], ["b", 3])).toEqual({ a: 0, b: 10 });
    expect(of(2, ["a", 0], ["b", 3], ["c", 3], ["d", 3])).toMatchObject({ a: 0 });
  });

  it("gives what is left to the largest remainders, and of equal ones by name", () => {
    expect(of(10, ["b", 1], ["a", 1], ["c", 1])).toEqual({ a: 4, b: 3, c: 3 });
    expect(of(11, ["c", 1], ["b", 1], ["a", 1])).toEqual({ a: 4, b: 4, c: 3 });
    expect(of(10, ["a", 10], ["b", 15], ["c", 16])).toEqual({ a: 2, b: 4, c: 4 });
    expect(of(1, ["a", 1], ["b", 2])).toEqual({ a: 0, b: 1 });
  });

  it("is exact beyond what a number counts exactly", () => {
    const amount = Number.MAX_SAFE_INTEGER;
    const parts = of(amount, ["a", Number.MAX_SAFE_INTEGER], ["b", Number.MAX_SAFE_INTEGER - 2]);
    expect(BigInt(parts.a ?? 0) + BigInt(parts.b ?? 0)).toBe(BigInt(amount));
    expect((parts.a ?? 0) - (parts.b ?? 0)).toBe(1);
    const large = fc.integer({ min: 2 ** 40, max: 2 ** 52 });
    fc.assert(
      fc.property(large, large, large, large, (amount, a, b, c) => {
        const shares = { a, b, c };
        const total = BigInt(a) + BigInt(b) + BigInt(c);
        const divided = of(amount, ["a", a], ["b", b], ["c", c]);
        // Those who were given more than their whole part have the largest remainders, all of it without a rounding.
        const rests = (["a", "b", "c"] as const).map((name) => {
          const product = BigInt(amount) * BigInt(shares[name]);
          return { rest: product % total, more: BigInt(divided[name] ?? -1) - product / total };
        });
        expect(rests.every(({ more }) => more === 0n || more === 1n)).toBe(true);
        for (const { rest } of rests.filter(({ more }) => more === 1n)) {
          for (const other of rests.filter(({ more }) => more === 0n)) expect(rest >= other.rest).toBe(true);
        }
      }),
    );
  });
});
