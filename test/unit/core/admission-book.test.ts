import { describe, expect, it } from "vitest";
import { AdmissionBook, type AdmissionRequest, MIN_OUTPUT_TOKENS } from "../../../src/core/admission-book";
import { type Facts, perMinute, request, START_MS, tokensPerMinute, used } from "./requests";

const verdictsOf = (book: AdmissionBook<Facts>, count: number, changed: Partial<AdmissionRequest<Facts>>) =>
  Array.from({ length: count }, (_, index) => book.admit(request(`r${index}`, changed), START_MS));

describe("admission: rates", () => {
  it("admits or lets wait exactly as many as the rate allows, and refuses the others at once", () => {
    const book = new AdmissionBook<Facts>();
    const verdicts = verdictsOf(book, 200, { rates: [perMinute(50)], inFlightLimit: 10 });
    const count = (verdict: string) => verdicts.filter((each) => each.verdict === verdict).length;
    expect([count("granted"), count("waiting"), count("refused")]).toEqual([10, 40, 150]);
  });

  it("names the rule, its state and a wait that is true", () => {
    const book = new AdmissionBook<Facts>();
    book.admit(request("a", { rates: [perMinute(1)] }), START_MS);
    const refused = book.admit(request("b", { rates: [perMinute(1)] }), START_MS + 1_000);
    expect(refused).toEqual({
      verdict: "refused",
      refusal: {
        ...{ rule: "requests_per_minute", key: "rpm", unit: "requests", limit: 1, used: 1, requested: 1 },
        ...{ retryAfterMs: 59_250, neverFits: false },
      },
    });
    expect(book.admit(request("b", { rates: [perMinute(1)] }), START_MS + 60_249).verdict).toBe("refused");
    expect(book.admit(request("b", { rates: [perMinute(1)] }), START_MS + 60_250).verdict).toBe("granted");
  });

  it("names, of several rules without room, the one that keeps away longest", () => {
    const book = new AdmissionBook<Facts>();
    book.admit(request("a", { rates: [perMinute(1)] }), START_MS);
    book.admit(request("b", { rates: [tokensPerMinute(110)] }), START_MS + 30_000);
    const both = { rates: [perMinute(1), tokensPerMinute(110)] };
    expect(book.admit(request("c", both), START_MS + 30_000)).toMatchObject({
      refusal: { rule: "tokens_per_minute", retryAfterMs: 60_250 },
    });
  });

  it("says of what is larger than the limit itself that waiting does not help", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [perMinute(5), tokensPerMinute(109)];
    expect(book.admit(request("a", { rates }), START_MS)).toMatchObject({
      refusal: { rule: "tokens_per_minute", requested: 110, retryAfterMs: 0, neverFits: true },
    });
    expect(book.admit(request("a", { rates: [perMinute(0)] }), START_MS)).toMatchObject({
      refusal: { rule: "requests_per_minute", neverFits: true },
    });
  });

  it("counts prompt and every choice's cap, and gives back at settling what was not used", () => {
    const book = new AdmissionBook<Facts>();
    const rules = [tokensPerMinute(1_000)];
    book.admit(request("a", { rates: rules, choices: 3 }), START_MS);
    expect(book.rates(rules, START_MS)[0]).toMatchObject({ used: 310, remaining: 690, resetMs: 60_250 });
    book.settle("a", used(42), START_MS + 5_000);
    expect(book.rates(rules, START_MS + 5_000)[0]).toMatchObject({ used: 42, remaining: 958, resetMs: 55_250 });
    expect(book.rates(rules, START_MS + 60_250)[0]).toMatchObject({ used: 0, resetMs: 0 });
  });

  it("never counts more than the worst case that was admitted", () => {
    const book = new AdmissionBook<Facts>();
    const rules = [tokensPerMinute(1_000)];
    book.admit(request("a", { rates: rules }), START_MS);
    book.settle("a", used(5_000), START_MS);
    expect(book.rates(rules, START_MS)[0]?.used).toBe(110);
  });

  it("gives the tokens of a released call back and keeps it counted as a request", () => {
    const book = new AdmissionBook<Facts>();
    const rules = [perMinute(5), tokensPerMinute(1_000)];
    book.admit(request("a", { rates: rules }), START_MS);
    expect(book.release("a")).toBe(true);
    expect(book.rates(rules, START_MS).map(({ used }) => used)).toEqual([1, 0]);
    expect(book.release("a")).toBe(false);
    expect(book.inFlight).toBe(0);
  });

  it("keeps the usage so far when a limit changes", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 3, { rates: [perMinute(10)] });
    expect(book.rates([perMinute(2)], START_MS)[0]).toMatchObject({ limit: 2, used: 3, remaining: 0 });
    expect(book.admit(request("x", { rates: [perMinute(3)] }), START_MS).verdict).toBe("refused");
    expect(book.admit(request("x", { rates: [perMinute(4)] }), START_MS).verdict).toBe("granted");
  });

  it("refuses numbers that cannot be counted before it changes anything", () => {
    const book = new AdmissionBook<Facts>();
    const rates = [perMinute(5), tokensPerMinute(1_000)];
    for (const promptTokens of [Number.NaN, 0.5, -500]) {
      expect(() => book.admit(request("a", { rates, promptTokens }), START_MS)).toThrow(RangeError);
    }
    expect(() => book.admit(request("a", { rates }), Number.NaN)).toThrow(RangeError);
    book.admit(request("a", { rates }), START_MS);
    expect(() => book.settle("a", used(Number.NaN), START_MS)).toThrow(RangeError);
    expect(book.rates(rates, START_MS).map(({ used }) => used)).toEqual([1, 110]);
    expect(book.inFlight).toBe(1);
  });
});

describe("admission: a cap that nobody named", () => {
  const lowerable = { rates: [tokensPerMinute(100)], outputLowerable: true, promptTokens: 10 };

  it("is lowered to what the token limit still allows, for all choices together", () => {
    const book = new AdmissionBook<Facts>();
    expect(book.admit(request("a", { ...lowerable, choices: 2 }), START_MS)).toMatchObject({ outputTokens: 45 });
    expect(book.rates(lowerable.rates, START_MS)[0]?.used).toBe(100);
  });

  it("is not lowered below the least useful answer: then the call is refused with the wait for that", () => {
    const book = new AdmissionBook<Facts>();
    book.admit(request("a", { ...lowerable, outputTokens: 65 }), START_MS);
    expect(book.admit(request("b", lowerable), START_MS + 1)).toMatchObject({
      refusal: { requested: 10 + MIN_OUTPUT_TOKENS, used: 75, retryAfterMs: 60_249 },
    });
    expect(book.admit(request("b", { ...lowerable, promptTokens: 9 }), START_MS + 1)).toMatchObject({
      outputTokens: MIN_OUTPUT_TOKENS,
    });
  });

  it("is never raised, and one that was named is never lowered", () => {
    const book = new AdmissionBook<Facts>();
    expect(book.admit(request("a", { ...lowerable, outputTokens: 8 }), START_MS)).toMatchObject({ outputTokens: 8 });
    expect(book.admit(request("b", { ...lowerable, outputLowerable: false }), START_MS).verdict).toBe("refused");
  });

  it("fits every token limit at once", () => {
    const book = new AdmissionBook<Facts>();
    const second = { ...tokensPerMinute(60), key: "tpm/second" };
    const fitted = book.admit(request("a", { ...lowerable, rates: [tokensPerMinute(100), second] }), START_MS);
    expect(fitted).toMatchObject({ outputTokens: 50 });
    expect(book.rates([tokensPerMinute(100), second], START_MS).map(({ used }) => used)).toEqual([60, 60]);
    const reversed = new AdmissionBook<Facts>();
    const other = { ...lowerable, rates: [second, tokensPerMinute(100)] };
    expect(reversed.admit(request("a", other), START_MS)).toMatchObject({ outputTokens: 50 });
  });
});

describe("admission: slots and the line", () => {
  it("grants slots as they come free, by class, and counts in the bucket of the grant", () => {
    const book = new AdmissionBook<Facts>();
    const one = { inFlightLimit: 1, rates: [perMinute(10)] };
    book.admit(request("running", one), START_MS);
    expect(book.admit(request("flex", { ...one, class: "flex" }), START_MS)).toMatchObject({ position: 0 });
    expect(book.admit(request("first", { ...one, class: "priority" }), START_MS)).toMatchObject({ position: 0 });
    expect(book.admit(request("second", one), START_MS)).toMatchObject({ position: 1 });
    expect(book.grantWaiting(START_MS)).toEqual([]);
    book.settle("running", used(0), START_MS + 2_000);
    const [grant, ...others] = book.grantWaiting(START_MS + 2_000);
    expect(others).toEqual([]);
    expect(grant).toMatchObject({
      requestId: "first",
      hold: { enqueuedAtMs: START_MS, grantedAtMs: START_MS + 2_000, facts: { note: "first" } },
    });
    expect(book.rates(one.rates, START_MS + 60_250)[0]).toMatchObject({ used: 3, resetMs: 2_000 });
  });

  it("lets nobody who comes later take a slot while someone waits", () => {
    const book = new AdmissionBook<Facts>();
    book.admit(request("running", { inFlightLimit: 1 }), START_MS);
    book.admit(request("waits", { inFlightLimit: 1 }), START_MS);
    book.release("running");
    expect(book.admit(request("late", { inFlightLimit: 1 }), START_MS)).toEqual({ verdict: "waiting", position: 1 });
  });

  it("refuses when the line is full, with an estimate", () => {
    const book = new AdmissionBook<Facts>();
    const narrow = { inFlightLimit: 1, queueLength: 1 };
    verdictsOf(book, 2, narrow);
    expect(book.admit(request("x", narrow), START_MS)).toMatchObject({
      refusal: { rule: "in_flight", key: "in_flight", limit: 1, used: 1, retryAfterMs: 4_000, neverFits: false },
    });
  });

  it("refuses a wait longer than the caller's patience, with the estimate that moves with what calls took", () => {
    const book = new AdmissionBook<Facts>();
    const narrow = { inFlightLimit: 2 };
    verdictsOf(book, 2, narrow);
    expect(book.admit(request("x", { ...narrow, giveUpAtMs: START_MS + 1_000 }), START_MS)).toMatchObject({
      refusal: { rule: "queue_timeout", retryAfterMs: 1_000 },
    });
    book.settle("r0", used(0), START_MS + 12_000); // 2 s becomes 3 s
    book.admit(request("r3", narrow), START_MS + 12_000);
    expect(book.admit(request("x", { ...narrow, giveUpAtMs: START_MS + 13_500 }), START_MS + 12_000)).toMatchObject({
      refusal: { rule: "queue_timeout", retryAfterMs: 1_500 },
    });
    expect(book.admit(request("x", { ...narrow, giveUpAtMs: START_MS + 13_501 }), START_MS + 12_000).verdict).toBe(
      "waiting",
    );
  });

  it("refuses at once where no slot will ever be", () => {
    const book = new AdmissionBook<Facts>();
    expect(book.admit(request("x", { inFlightLimit: 0 }), START_MS)).toMatchObject({
      refusal: { rule: "in_flight", neverFits: true },
    });
  });

  it("frees the claims of one who leaves at once", () => {
    const book = new AdmissionBook<Facts>();
    const one = { inFlightLimit: 1, rates: [perMinute(2), tokensPerMinute(220)] };
    verdictsOf(book, 2, one);
    expect(book.admit(request("x", one), START_MS).verdict).toBe("refused");
    expect(book.leave("r1")).toBe(true);
    expect(book.leave("r1")).toBe(false);
    expect(book.rates(one.rates, START_MS).map(({ used }) => used)).toEqual([1, 110]);
    expect(book.admit(request("x", one), START_MS).verdict).toBe("waiting");
  });

  it("refuses those whose patience ended, and never grants them a slot", () => {
    const book = new AdmissionBook<Facts>();
    const one = { inFlightLimit: 1, rates: [perMinute(3)] };
    book.admit(request("running", one), START_MS);
    book.admit(request("brief", { ...one, giveUpAtMs: START_MS + 3_000 }), START_MS);
    book.admit(request("patient", { ...one, class: "flex" }), START_MS);
    expect(book.nextGiveUpMs()).toBe(START_MS + 3_000);
    expect(book.nextDueMs()).toBe(START_MS + 3_000);
    expect(book.expire(START_MS + 2_999).gaveUp).toEqual([]);
    book.release("running");
    expect(book.grantWaiting(START_MS + 3_000)).toMatchObject([
      { requestId: "brief", refusal: { rule: "queue_timeout", limit: 1, used: 0 } },
      { requestId: "patient", hold: { requestId: "patient" } },
    ]);
    expect(book.rates(one.rates, START_MS + 3_000)[0]?.used).toBe(2);
  });

  it("checks rates again at the grant: a limit lowered meanwhile refuses those who came last", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 5, { inFlightLimit: 1, rates: [perMinute(5)] });
    book.relimit(() => ({ inFlightLimit: 5, rates: [perMinute(3)] }));
    const verdicts = book.grantWaiting(START_MS);
    expect(verdicts.map((each) => ("hold" in each ? "granted" : each.refusal.rule))).toEqual([
      ...["granted", "granted", "requests_per_minute", "requests_per_minute"],
    ]);
    expect(verdicts.at(-1)).toMatchObject({ requestId: "r4", refusal: { limit: 3, used: 3, retryAfterMs: 60_250 } });
    expect([book.inFlight, book.waiting]).toEqual([3, 0]);
  });

  it("lowers, at the grant, a cap that nobody named to what a lowered limit still allows", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 2, { inFlightLimit: 1, rates: [tokensPerMinute(220)], outputLowerable: true });
    book.relimit(() => ({ inFlightLimit: 2, rates: [tokensPerMinute(160)] }));
    expect(book.grantWaiting(START_MS)).toMatchObject([{ requestId: "r1", hold: { outputTokens: 40 } }]);
    expect(book.rates([tokensPerMinute(160)], START_MS)[0]).toMatchObject({ used: 160, remaining: 0 });
  });

  it("goes by the in-flight limit that came last, for those who wait too", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 6, { inFlightLimit: 3 });
    book.admit(request("x", { inFlightLimit: 2 }), START_MS);
    book.release("r0");
    expect(book.grantWaiting(START_MS)).toEqual([]);
    book.release("r1");
    expect(book.grantWaiting(START_MS)).toHaveLength(1);
    book.relimit((each) => ({ ...each, inFlightLimit: 4 }));
    expect(book.grantWaiting(START_MS)).toHaveLength(2);
  });

  it("answers an id that holds or waits already as before, and counts nothing twice", () => {
    const book = new AdmissionBook<Facts>();
    const one = { inFlightLimit: 1, rates: [perMinute(2)] };
    const [held, waiting] = verdictsOf(book, 2, one);
    expect(book.admit(request("r0", one), START_MS + 1)).toEqual(held);
    expect(book.admit(request("r1", one), START_MS + 1)).toEqual(waiting);
    expect(book.rates(one.rates, START_MS)[0]?.used).toBe(2);
    expect([book.inFlight, book.waiting]).toEqual([1, 1]);
  });
});

describe("admission: holds", () => {
  it("end once: a second settle, a settle after the release or the expiry is none", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 3, { holdMs: 1_000, rates: [tokensPerMinute(1_000)] });
    expect(book.settle("r0", used(0), START_MS)).toMatchObject({ settled: true, hold: { requestId: "r0" } });
    expect(book.settle("r0", used(0), START_MS)).toEqual({ settled: false });
    book.release("r1");
    expect(book.settle("r1", used(0), START_MS)).toEqual({ settled: false });
    expect(book.nextHoldExpiryMs()).toBe(START_MS + 1_000);
    expect(book.nextDueMs()).toBe(START_MS + 1_000);
    expect(book.expire(START_MS + 999).unreconciled).toEqual([]);
    expect(book.expire(START_MS + 1_000).unreconciled.map((hold) => hold.requestId)).toEqual(["r2"]);
    expect(book.settle("r2", used(0), START_MS + 1_000)).toEqual({ settled: false });
    expect(book.rates([tokensPerMinute(1_000)], START_MS)[0]?.used).toBe(110); // the overdue one: silence means spent
    expect(book.nextDueMs()).toBeUndefined();
  });

  it("survive a restart with what they counted; those who waited do not", () => {
    const book = new AdmissionBook<Facts>();
    const one = { inFlightLimit: 1, rates: [perMinute(5), tokensPerMinute(1_000)] };
    verdictsOf(book, 2, one);
    const { holds, buckets } = book.takeDirty();
    const nothing = { upsert: [], remove: [] };
    expect(book.takeDirty()).toEqual({ holds: nothing, leases: nothing, buckets: nothing });
    const restored = AdmissionBook.restore({ holds: holds.upsert, buckets: buckets.upsert });
    expect(restored.hold("r0")).toEqual(book.hold("r0"));
    expect([restored.inFlight, restored.waiting]).toEqual([1, 0]);
    expect(restored.settle("r0", used(7), START_MS)).toMatchObject({ settled: true });
    expect(restored.rates(one.rates, START_MS).map(({ used }) => used)).toEqual([1, 7]);
  });

  it("keep the time over a restart: a clock set back meanwhile stands still", () => {
    const book = new AdmissionBook<Facts>();
    verdictsOf(book, 2, { rates: [perMinute(9)] });
    const heldOnly = AdmissionBook.restore<Facts>({ holds: book.takeDirty().holds.upsert, buckets: [] });
    expect(heldOnly.admit(request("x"), START_MS - 9_000)).toMatchObject({ hold: { grantedAtMs: START_MS } });
    const buckets = [{ rule: "rpm", bucketMs: START_MS, count: 2 }];
    const countedOnly = AdmissionBook.restore<Facts>({ holds: [], buckets });
    expect(countedOnly.admit(request("x"), START_MS - 9_000)).toMatchObject({ hold: { grantedAtMs: START_MS } });
  });

  it("leave nothing behind: what a caller counted is removed from storage once its minute is over", () => {
    let book = new AdmissionBook<Facts>();
    const stored = new Map<string, { rule: string; bucketMs: number; count: number }>();
    for (let n = 0; n < 300; n++) {
      // The tenant's own window, first of all, never runs empty.
      const rates = [perMinute(1_000), { ...perMinute(5), key: `end_user/${n}` }];
      book.admit(request(`r${n}`, { rates }), START_MS + n * 1_000);
      book.release(`r${n}`);
      const { buckets } = book.takeDirty();
      for (const bucket of buckets.upsert) stored.set(`${bucket.rule} ${bucket.bucketMs}`, bucket);
      for (const { rule, bucketMs } of buckets.remove) stored.delete(`${rule} ${bucketMs}`);
      if (n % 150 === 100) book = AdmissionBook.restore({ holds: [], buckets: [...stored.values()].reverse() });
      const rules = new Set([...stored.values()].map(({ rule }) => rule));
      expect(rules.size, "those of 61 s, and the tenant's own").toBe(Math.min(n + 1, 61) + 1);
    }
  });
});
