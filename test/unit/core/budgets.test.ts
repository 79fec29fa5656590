import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AdmissionBook, type RateRule } from "../../../src/core/admission-book";
import { type ModelPrice, microdollarsOf } from "../../../src/core/prices";
import { type Facts, request, START_MS, used } from "./requests";

const HOUR_MS = 3_600_000;
const budget = (limit: number, more: Partial<RateRule> = {}): RateRule => ({
  ...{ key: "spend/month@UTC/project/", name: "monthly_spend", unit: "microdollars", limit },
  ...more,
});
/** Micro-dollars per million tokens: a token costs 2 in and 5 out. */
const PRICE = { input: 2_000_000, output: 5_000_000 };
const priced = { price: PRICE, promptTokens: 10, outputTokens: 20 }; // 120 at worst

describe("a budget", () => {
  it("reserves the worst case, and gives back what was not spent", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [budget(300)];
    expect(book.admit(request("a", { ...priced, rates }), START_MS).verdict).toBe("granted");
    expect(book.rates(rates, START_MS)[0]).toMatchObject({ used: 120, held: 120, settled: 0, remaining: 180 });
    book.settle("a", used(20, 45), START_MS);
    expect(book.rates(rates, START_MS)[0]).toMatchObject({ used: 45, held: 0, settled: 45, remaining: 255 });
  });

  it("refuses at once what it has no room for, and says until when", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [budget(130)];
    book.admit(request("a", { ...priced, rates }), START_MS);
    const refused = book.admit(request("b", { ...priced, rates }), START_MS);
    const nextMonth = Date.UTC(new Date(START_MS).getUTCFullYear(), new Date(START_MS).getUTCMonth() + 1, 1);
    expect(refused).toMatchObject({
      verdict: "refused",
      refusal: {
        rule: "monthly_spend",
        unit: "microdollars",
        used: 120,
        requested: 120,
        retryAfterMs: nextMonth - START_MS,
      },
    });
    expect(book.admit(request("b", { ...priced, rates }), nextMonth).verdict).toBe("granted");
  });

  it("lowers an output cap that nobody named to what it still has room for, and to no less than sixteen", () => {
    const book = new AdmissionBook<Facts>();
    const lowerable = { ...priced, outputTokens: 1_000, outputLowerable: true };
    expect(book.admit(request("a", { ...lowerable, rates: [budget(220)] }), START_MS)).toMatchObject({
      outputTokens: 40,
    });
    expect(book.admit(request("b", { ...lowerable, rates: [budget(220 + 99)] }), START_MS)).toMatchObject({
      verdict: "refused",
    });
    expect(book.admit(request("c", { ...lowerable, rates: [budget(220 + 100)] }), START_MS)).toMatchObject({
      outputTokens: 16,
    });
  });

  it("goes by the calendar of its time zone, through changes of the clocks too", () => {
    const key = "spend/day@Europe.Berlin/project/";
    const rates = [budget(120, { key })];
    // The clocks go forward in this night: the day has 23 hours.
    const midnight = Date.UTC(2026, 2, 28, 23);
    const book = new AdmissionBook<Facts>();
    expect(book.admit(request("a", { ...priced, rates }), midnight).verdict).toBe("granted");
    book.settle("a", used(30, 120), midnight);
    expect(book.admit(request("b", { ...priced, rates }), midnight + 23 * HOUR_MS - 1).verdict).toBe("refused");
    expect(book.admit(request("c", { ...priced, rates }), midnight + 23 * HOUR_MS).verdict).toBe("granted");
  });

  it("that only alerts refuses nothing, and says once a period that it was passed", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [budget(100, { mode: "alert" })];
    for (const id of ["a", "b", "c"])
      expect(book.admit(request(id, { ...priced, rates }), START_MS).verdict).toBe("granted");
    expect(book.takeAlerts()).toMatchObject([{ name: "monthly_spend" }]);
    expect(book.takeAlerts()).toEqual([]);
    expect(book.rates(rates, START_MS)[0]).toMatchObject({ isAlerted: true, used: 360 });
    const { upsert } = book.takeDirty().buckets;
    const restored = AdmissionBook.restore<Facts>({ holds: [], buckets: upsert });
    restored.admit(request("d", { ...priced, rates }), START_MS + 1);
    expect(restored.takeAlerts()).toEqual([]);
  });

  it("in the shadow of a hard one counts what it would refuse, and each call once", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [budget(1_000), budget(200, { mode: "shadow" })];
    for (const id of ["a", "b", "c"])
      expect(book.admit(request(id, { ...priced, rates }), START_MS).verdict).toBe("granted");
    expect(book.rates(rates, START_MS)).toMatchObject([
      { used: 360, limit: 1_000 },
      { used: 360, limit: 200, wouldRefuse: 2 },
    ]);
  });

  it("is kept in force by a number: changing it keeps what was spent", () => {
    const book = new AdmissionBook<Facts>();
    book.admit(request("a", { ...priced, rates: [budget(200)] }), START_MS);
    expect(book.admit(request("b", { ...priced, rates: [budget(239)] }), START_MS).verdict).toBe("refused");
    expect(book.admit(request("b", { ...priced, rates: [budget(240)] }), START_MS).verdict).toBe("granted");
  });

  it("is never overspent and never refuses falsely, through settlements, releases, expiries, restarts and new months", () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          do: fc.constant("admit" as const),
          prompt: fc.nat(50),
          output: fc.nat(50),
          choices: fc.integer({ min: 1, max: 3 }),
        }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          do: fc.constant("settle" as const),
          which: fc.nat(9),
          share: fc.double({ min: 0, max: 1.5, noNaN: true }),
        }),
      },
      fc.record({ do: fc.constant("release" as const), which: fc.nat(9) }),
      fc.record({
        do: fc.constant("wait" as const),
        ms: fc.constantFrom(1, 1_000, HOUR_MS, 24 * HOUR_MS, 20 * 24 * HOUR_MS),
      }),
      fc.record({ do: fc.constant("restart" as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.integer({ min: 0, max: 2_000 }), (steps, limit) => {
        const stored = {
          holds: new Map<string, never>(),
          buckets: new Map<string, { rule: string; bucketMs: number; count: number }>(),
        };
        let book = new AdmissionBook<Facts>();
        let [nowMs, made] = [START_MS, 0];
        const month = () => new Date(nowMs).toISOString().slice(0, 7);
        const running = new Map<string, { worst: number; month: string }>();
        const spent = new Map<string, number>();
        const save = () => {
          const { holds, buckets } = book.takeDirty();
          for (const hold of holds.upsert) stored.holds.set(hold.requestId, hold as never);
          for (const id of holds.remove) stored.holds.delete(id);
          for (const bucket of buckets.upsert) stored.buckets.set(`${bucket.rule} ${bucket.bucketMs}`, bucket);
          for (const { rule, bucketMs } of buckets.remove) stored.buckets.delete(`${rule} ${bucketMs}`);
        };
        const committed = () =>
          (spent.get(month()) ?? 0) +
          [...running.values()].filter((call) => call.month === month()).reduce((sum, { worst }) => sum + worst, 0);
        const book_ = (call: { worst: number; month: string }, amount: number) =>
          spent.set(call.month, (spent.get(call.month) ?? 0) + Math.min(amount, call.worst));
        for (const each of steps) {
          if (each.do === "wait") nowMs += each.ms;
          for (const hold of book.expire(nowMs).unreconciled) {
            const call = running.get(hold.requestId);
            if (call) book_(call, call.worst); // silence means spent
            running.delete(hold.requestId);
          }
          const [id, call] = [...running].at("which" in each ? each.which % Math.max(1, running.size) : 0) ?? [];
          if (each.do === "admit") {
            const worst = each.prompt * 2 + each.output * each.choices * 5;
            const asked = {
              rates: [budget(limit)],
              price: PRICE,
              promptTokens: each.prompt,
              outputTokens: each.output,
              choices: each.choices,
              holdMs: HOUR_MS,
              inFlightLimit: 1_000,
            };
            const verdict = book.admit(request(`r${made++}`, asked), nowMs).verdict;
            expect(verdict).toBe(committed() + worst <= limit ? "granted" : "refused");
            if (verdict === "granted") running.set(`r${made - 1}`, { worst, month: month() });
          } else if (each.do === "settle" && id && call) {
            const amount = Math.floor(call.worst * each.share);
            book.settle(id, used(0, amount), nowMs);
            book_(call, amount);
            running.delete(id);
          } else if (each.do === "release" && id && call) {
            book.release(id);
            running.delete(id);
          } else if (each.do === "restart") {
            save();
            book = AdmissionBook.restore<Facts>({
              holds: [...stored.holds.values()],
              buckets: [...stored.buckets.values()],
            });
          }
          save();
          const [state] = book.rates([budget(limit)], nowMs);
          expect(state?.used).toBe(committed());
          expect(committed()).toBeLessThanOrEqual(limit);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("a price", () => {
  const price = fc.record({ input: fc.nat(1e9), cachedInput: fc.nat(1e9), output: fc.nat(1e9) });
  it("settles at no more than what was reserved for it, whatever of the prompt was cached", () => {
    fc.assert(
      fc.property(
        price,
        fc.nat(1e6),
        fc.nat(2e6),
        fc.nat(1e6),
        (each: ModelPrice, promptTokens, cachedTokens, completionTokens) => {
          const book = new AdmissionBook<Facts>();
          const asked = {
            price: each,
            promptTokens,
            outputTokens: completionTokens,
            rates: [budget(Number.MAX_SAFE_INTEGER)],
          };
          book.admit(request("a", asked), START_MS);
          const worst = book.rates(asked.rates, START_MS)[0]?.held ?? 0;
          const amount = microdollarsOf(each, { promptTokens, cachedTokens, completionTokens });
          expect(amount).toBeLessThanOrEqual(worst);
          expect(amount).toBeGreaterThanOrEqual(0);
        },
      ),
    );
  });
});
