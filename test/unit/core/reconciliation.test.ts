import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addEstimates, compareWithMeter, type Estimates, NO_ESTIMATES } from "../../../src/core/reconciliation";
import { type CallFacts, recordsOf } from "../../../src/core/records";
import { NO_REMAINDER } from "../../../src/core/remainders";

const COST = { input: 300_000, cachedInput: 300_000, output: 900_000 };
const PRICES = { price: COST, priceVersion: "1", cost: COST, costVersion: "1" };
const BOUND = { prompt: 200, output: 100 };

/** What a call really took, and what its provider said of it. */
interface Truth {
  readonly prompt: number;
  readonly output: number;
  /** Null: the provider said nothing, and the platform counted this much by itself. */
  readonly seenOutput: number | null;
  /** False for one that failed before it reached the provider. */
  readonly reached: boolean;
}
const reported = fc.record({
  prompt: fc.integer({ min: 1, max: BOUND.prompt }),
  output: fc.integer({ min: 0, max: BOUND.output }),
  seenOutput: fc.constant(null).map(() => -1),
  reached: fc.constant(true),
});
const silent = fc
  .record({
    prompt: fc.integer({ min: 1, max: BOUND.prompt }),
    output: fc.integer({ min: 0, max: BOUND.output }),
    seen: fc.double({ min: 0, max: 1, noNaN: true }),
    reached: fc.boolean(),
  })
  .map(({ seen, ...call }) => ({ ...call, seenOutput: Math.floor(call.output * seen) }));
const asTruth = (call: { prompt: number; output: number; seenOutput: number; reached: boolean }): Truth => ({
  ...call,
  seenOutput: call.seenOutput < 0 ? null : call.seenOutput,
});
const calls = fc.array(fc.oneof({ weight: 3, arbitrary: reported }, silent).map(asTruth), { maxLength: 30 });

const facts: CallFacts = {
  ...{ requestId: "r", kind: "completions", route: "/", model: "m", provider: "p", providerModel: "pm" },
  ...{ keyId: "k", endUser: null, serviceTier: "default", stream: true, policyVersion: 1, region: "global" },
  ...{ queuedMs: 0, reservedPromptTokens: BOUND.prompt, reservedOutputTokens: BOUND.output, prices: PRICES },
};
const booksOf = (truths: readonly Truth[]) => {
  let booked = { requests: 0, tokens: 0, costMicrodollars: 0 };
  let estimates: Estimates = NO_ESTIMATES;
  let carried = NO_REMAINDER;
  for (const { prompt, output, seenOutput } of truths) {
    const estimated = seenOutput !== null;
    const { event, remainder } = recordsOf(
      facts,
      {
        outcome: estimated ? "cancelled" : "completed",
        promptTokens: estimated ? Math.ceil(prompt / 4) : prompt,
        completionTokens: seenOutput ?? output,
        ...{ cachedTokens: 0, estimated, adapterDigest: null, promptVersion: null, firstTokenMs: null, totalMs: null },
      },
      0,
      carried,
    );
    carried = remainder;
    const tokens = event.promptTokens + event.completionTokens;
    const costMicrodollars = event.costMicrodollars ?? 0;
    booked = {
      requests: booked.requests + 1,
      tokens: booked.tokens + tokens,
      costMicrodollars: booked.costMicrodollars + costMicrodollars,
    };
    if (!estimated) continue;
    const { tokens: unseenTokens, costMicrodollars: unseenCostMicrodollars } = event.unseen ?? {
      tokens: 0,
      costMicrodollars: 0,
    };
    const one = { requests: 1, tokens, costMicrodollars, unseenTokens, unseenCostMicrodollars, overrunTokens: 0 };
    estimates = addEstimates(estimates, one);
  }
  return { booked, estimates };
};
const meterOf = (truths: readonly Truth[]) => {
  const reached = truths.filter((call) => call.reached);
  const sum = (of: (call: Truth) => number) => reached.reduce((total, call) => total + of(call), 0);
  const [prompt, output] = [sum((call) => call.prompt), sum((call) => call.output)];
  const costMicrodollars = Math.round((prompt * COST.input + output * COST.output) / 1e6);
  return { requests: reached.length, tokens: prompt + output, costMicrodollars };
};
const compared = (booked: readonly Truth[], metered: readonly Truth[]) => {
  const books = booksOf(booked);
  return compareWithMeter(books.booked, books.estimates, meterOf(metered));
};
/** A call whose provider said what it took, and enough of it to stand out of the rounding. */
const FAULTY: Truth = { prompt: 150, output: 90, seenOutput: null, reached: true };
const certain = fc.array(reported.map(asTruth), { maxLength: 30 });

describe("books and meter", () => {
  it("balance when nothing is wrong, whatever was cancelled, failed or never counted by its provider", () => {
    fc.assert(
      fc.property(calls, (truths) => {
        const { requests, tokens, costMicrodollars } = compared(truths, truths);
        expect([requests.unexplained, tokens.unexplained, costMicrodollars.unexplained]).toEqual([0, 0, 0]);
      }),
    );
  });

  it("show a lost event as unexplained: the provider counted what nobody booked", () => {
    fc.assert(
      fc.property(certain, (truths) => {
        const { requests, tokens } = compared(truths, [...truths, FAULTY]);
        expect(requests.unexplained).toBe(-1);
        expect(tokens.unexplained).toBe(-(FAULTY.prompt + FAULTY.output));
      }),
    );
  });

  it("show a doubled event as unexplained: somebody was billed for what nobody made", () => {
    fc.assert(
      fc.property(certain, (truths) => {
        const { requests, tokens } = compared([...truths, FAULTY, FAULTY], [...truths, FAULTY]);
        expect(requests.unexplained).toBe(1);
        expect(tokens.unexplained).toBe(FAULTY.prompt + FAULTY.output);
      }),
    );
  });

  it("show a mispriced event in the money alone", () => {
    fc.assert(
      fc.property(certain, fc.integer({ min: 40, max: 10_000 }), (truths, wrong) => {
        const books = booksOf(truths);
        const mispriced = { ...books.booked, costMicrodollars: books.booked.costMicrodollars + wrong };
        const { requests, tokens, costMicrodollars } = compareWithMeter(mispriced, books.estimates, meterOf(truths));
        expect([requests.unexplained, tokens.unexplained]).toEqual([0, 0]);
        expect(costMicrodollars.unexplained).toBeGreaterThan(0);
      }),
    );
  });
});
