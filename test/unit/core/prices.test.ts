import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { microdollarsOf, type PriceBook, pricesOf, UNPRICED } from "../../../src/core/prices";
import { parsePrices } from "../../../src/inference/prices";

const book: PriceBook = {
  priceVersion: "p1",
  costVersion: "c1",
  models: {
    both: {
      price: { input: 10_000_000, cachedInput: 1_000_000, output: 100_000_000 },
      cost: { input: 4_000_000, cachedInput: 4_000_000, output: 40_000_000 },
    },
    cost: { price: null, cost: { input: 1, cachedInput: 1, output: 1 } },
  },
};
const price = fc.record({ input: fc.nat(1e9), cachedInput: fc.nat(1e9), output: fc.nat(1e9) });
const tokens = fc.record({ promptTokens: fc.nat(1e6), cachedTokens: fc.nat(1e6), completionTokens: fc.nat(1e6) });

describe("the prices of a call", () => {
  it("are those of its model, each with the version of its own ledger", () => {
    const { price, cost } = book.models.both as NonNullable<(typeof book.models)[string]>;
    expect(pricesOf(book, "both")).toEqual({ price, priceVersion: "p1", cost, costVersion: "c1" });
    expect(pricesOf(book, "cost")).toMatchObject({ price: null, priceVersion: null, costVersion: "c1" });
  });

  it("are none for a model that the book does not name, whatever it is called", () => {
    for (const name of ["other", "constructor", "__proto__", "toString"]) {
      expect(pricesOf(book, name)).toEqual(UNPRICED);
    }
  });

  it("are written in dollars per million tokens, and counted in micro-dollars", () => {
    const document = (price: object) => ({
      ...{ price_version: "p", cost_version: "c" },
      models: { m: { price, cost: null } },
    });
    expect(parsePrices(document({ input: 2.5, output: 10 }))).toMatchObject({
      ...{ priceVersion: "p", costVersion: "c" },
      models: { m: { price: { input: 2_500_000, output: 10_000_000, cachedInput: 2_500_000 }, cost: null } },
    });
    expect(parsePrices(document({ input: 2, output: 0, cached_input: 0.000001 })).models.m?.price?.cachedInput).toBe(1);
    for (const wrong of [{ input: -1, output: 1 }, { input: 1 }, { input: 1, output: 1_000_001 }]) {
      expect(() => parsePrices(document(wrong))).toThrow();
    }
  });
});

describe("what tokens cost", () => {
  it("is the price of each kind of token, to the nearest micro-dollar", () => {
    const of = (promptTokens: number, cachedTokens: number, completionTokens: number) =>
      microdollarsOf(
        { input: 3_000_000, cachedInput: 1_000_000, output: 7_000_000 },
        { promptTokens, cachedTokens, completionTokens },
      );
    expect([of(10, 0, 0), of(0, 0, 10), of(10, 4, 0), of(10, 4, 5)]).toEqual([30, 70, 22, 57]);
    const tiny = { input: 300_000, cachedInput: 0, output: 0 };
    const one = (promptTokens: number) => microdollarsOf(tiny, { promptTokens, cachedTokens: 0, completionTokens: 0 });
    expect([one(1), one(2), one(4)]).toEqual([0, 1, 1]);
  });

  it("is whole, never negative, never more for cached tokens than for fresh ones, whatever a provider reports", () => {
    fc.assert(
      fc.property(price, tokens, (each, used) => {
        const cost = microdollarsOf(each, used);
        expect(Number.isInteger(cost) && cost >= 0).toBe(true);
        const fresh = microdollarsOf(each, { ...used, cachedTokens: 0 });
        expect(cost).toBeLessThanOrEqual(fresh);
        expect(microdollarsOf(each, { ...used, cachedTokens: used.promptTokens })).toBeLessThanOrEqual(cost);
      }),
    );
  });
});
