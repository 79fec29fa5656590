import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { booked } from "../../../src/core/remainders";
import { SimulatedGate } from "./simulated-gate";

beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 5, 15, 12) }));
afterEach(() => void vi.useRealTimers());

/** Micro-dollars per million tokens of the models that are called here: price and cost. */
const PRICES = { c: [20_000, 33_333], d: [33_333, 20_000] } as const;

describe("amounts below a micro-dollar", () => {
  it("add up to their exact sum, to one micro-dollar, and no call is booked above its own rounded up", () => {
    const amounts = fc.array(fc.oneof(fc.nat(3_000_000), fc.nat(1e12), fc.constant(null)), { maxLength: 200 });
    fc.assert(
      fc.property(amounts, (each) => {
        let [sum, exact, rest] = [0, 0, 0];
        for (const amount of each) {
          const before = rest;
          const next = booked(amount, rest);
          rest = next.rest;
          if (amount === null) expect(next).toEqual({ microdollars: null, rest: before });
          else expect(next.microdollars).toBeLessThanOrEqual(Math.ceil(amount / 1e6));
          sum += next.microdollars ?? 0;
          exact += amount ?? 0;
          expect(rest).toBeLessThan(1e6);
          expect(sum * 1e6 + rest).toBe(exact);
        }
      }),
    );
  });

  it("are carried by model from call to call of a tenant, over keys' hours, restarts and expiries, for price and cost", async () => {
    const step = fc.record({
      model: fc.constantFrom("c" as const, "d" as const),
      tokens: fc.integer({ min: 0, max: 20 }),
      next: fc.constantFrom("nothing", "wake", "an hour later"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
        const gate = new SimulatedGate({ requestsPerMinute: 10_000, tokensPerMinute: 1_000_000 });
        const tokensOf = { c: 0, d: 0 };
        for (const [index, { model, tokens, next }] of steps.entries()) {
          await gate.admit(`r${index}`, { model });
          await gate.finish(`r${index}`, tokens);
          tokensOf[model] += tokens;
          if (next === "wake") gate.wake();
          if (next === "an hour later") await vi.advanceTimersByTimeAsync(3_600_000);
        }
        for (const model of ["c", "d"] as const) {
          const events = gate.events().filter((event) => event.model === model);
          const [price, cost] = PRICES[model].map((each) => Math.floor((each * tokensOf[model]) / 1e6));
          expect(events.reduce((sum, { priceMicrodollars }) => sum + (priceMicrodollars ?? 0), 0)).toBe(price);
          expect(events.reduce((sum, { costMicrodollars }) => sum + (costMicrodollars ?? 0), 0)).toBe(cost);
        }
        expect(gate.failures).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });
});

describe("a provider that counts more than was reserved", () => {
  it("is believed in tokens, while the tenant pays for what was reserved and the platform for the rest", async () => {
    const gate = new SimulatedGate({ tokensPerMinute: 1_000 });
    await gate.admit("r"); // 10 tokens of the prompt and 20 of output, a micro-dollar each
    await gate.finish("r", 500);
    expect(gate.events()).toMatchObject([
      { promptTokens: 0, completionTokens: 500, overrunTokens: 480, priceMicrodollars: 20, costMicrodollars: 500 },
    ]);
    expect(gate.spend()).toEqual({ settled: 20, held: 0 });
  });
});
