import fc from "fast-check";
import { expect } from "vitest";
import {
  AdmissionBook,
  type AdmissionRequest,
  type Hold,
  type RateRule,
  type Refusal,
} from "../../../src/core/admission-book";
import type { ServiceTier } from "../../../src/core/records";
import { type Facts, perMinute, START_MS, tokensPerMinute } from "./requests";

/**
 * A tenant's day in small: random callers, clocks, restarts and changes of limits against one book, and a record of
 * what the book answered, kept by other means (lists and sums). The checks stand in `check…`; each looks at answers
 * only, never into the book.
 */
const gapMs = fc.oneof(
  fc.constantFrom(0, 0, 0, 1, 249, 250, 4_999, 5_000, 59_999, 60_000, 60_249, 60_250),
  fc.nat({ max: 3_000 }),
  fc.nat({ max: 40_000 }),
);
const call = fc.record({
  tier: fc.constantFrom<ServiceTier>("priority", "default", "flex"),
  promptTokens: fc.nat({ max: 40 }),
  outputTokens: fc.nat({ max: 60 }),
  choices: fc.integer({ min: 1, max: 3 }),
  outputLowerable: fc.boolean(),
  endUser: fc.constantFrom(null, ["ada"], ["bob"]),
  patienceMs: fc.constantFrom(0, 3_000, 20_000, 500_000),
  holdMs: fc.constantFrom(500, 30_000, 600_000),
});
const which = fc.nat({ max: 11 });
const of = <K extends string, T extends Record<string, fc.Arbitrary<unknown>>>(kind: K, fields: T) =>
  fc.record({ do: fc.constant(kind), ...fields }) as unknown as fc.Arbitrary<
    { readonly do: K } & { readonly [F in keyof T]: T[F] extends fc.Arbitrary<infer V> ? V : never }
  >;
const step = fc.oneof(
  { weight: 10, arbitrary: of("call", { gapMs, call }) },
  { weight: 3, arbitrary: of("again", { which }) },
  { weight: 5, arbitrary: of("settle", { gapMs, which, tokens: fc.nat({ max: 250 }) }) },
  { weight: 2, arbitrary: of("release", { which }) },
  { weight: 1, arbitrary: of("leave", { which }) },
  { weight: 3, arbitrary: of("expire", { gapMs }) },
  { weight: 1, arbitrary: of("clock", { byMs: fc.integer({ min: -70_000, max: 70_000 }) }) },
  { weight: 2, arbitrary: of("restart", {}) },
  {
    weight: 1,
    arbitrary: of("limits", {
      inFlight: fc.integer({ min: 1, max: 5 }),
      requests: fc.integer({ min: 1, max: 8 }),
      tokens: fc.integer({ min: 50, max: 500 }),
    }),
  },
);
export const steps = fc.array(step, { maxLength: 80 });
export type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Limits {
  readonly inFlight: number;
  readonly requests: number;
  readonly tokens: number;
}
interface Grant {
  readonly id: string;
  readonly realMs: number;
  readonly gateMs: number;
  /** Rule → what counts of it; tokens shrink at the end. */
  readonly counts: Map<string, number>;
  readonly hold: Hold<Facts>;
  /** Its bucket left before a restart that set the book's time back. */
  left: boolean;
}
interface Waiting {
  readonly id: string;
  readonly place: number;
  readonly giveUpAtMs: number;
  request: AdmissionRequest<Facts>;
}

export class World {
  book = new AdmissionBook<Facts>();
  limits: Limits = { inFlight: 2, requests: 5, tokens: 300 };
  /** Passes as steps say; the clock follows, but may be set back, or, where the world allows it, anywhere. */
  realMs = START_MS;
  clockMs = START_MS;
  gateMs = 0;
  readonly grants: Grant[] = [];
  readonly held = new Map<string, Grant>();
  readonly ended = new Set<string>();
  waiting: Waiting[] = [];
  #calls = 0;
  readonly #storedHolds = new Map<string, Hold<Facts>>();
  readonly #storedBuckets = new Map<string, { rule: string; bucketMs: number; count: number }>();

  /** @param clock "slow": it may be set back but never runs ahead of real time; "wild": it goes anywhere */
  constructor(readonly clock: "slow" | "wild") {}

  play(each: Step): void {
    if ("gapMs" in each) this.pass(each.gapMs);
    if (each.do === "call") this.#call(each.call);
    else if (each.do === "again") this.#again(each.which);
    else if (each.do === "settle") this.#settle(each.which, each.tokens);
    else if (each.do === "release") this.#release(each.which);
    else if (each.do === "leave")
      this.#leave(this.waiting[each.which % Math.max(1, this.waiting.length)]?.id ?? "nobody");
    else if (each.do === "expire") this.#expire();
    else if (each.do === "clock") this.#setClock(each.byMs);
    else if (each.do === "restart") this.#restart();
    else this.#setLimits(each);
    this.#check();
  }

  pass(ms: number): void {
    this.realMs += ms;
    this.clockMs += ms;
  }

  /** The clock as the book is told it; what it makes of that is the latest it was ever told. */
  #tell(): number {
    this.gateMs = Math.max(this.gateMs, this.clockMs);
    return this.clockMs;
  }

  /** Passes everything: nobody may be left over, in the book or in storage. */
  finish(): void {
    this.pass(1_000_000_000);
    this.#expire();
    expect([this.held.size, this.waiting.length]).toEqual([0, 0]);
    this.#checkUsed();
    this.#save();
    expect([this.#storedHolds.size, this.#storedBuckets.size]).toEqual([0, 0]);
  }

  /** Of a call for nobody, for an end user, or for all of them. */
  #rules(...endUsers: readonly string[]): RateRule[] {
    const own = endUsers.map(
      (key) => ({ key, name: "end_user_requests_per_minute", unit: "requests", limit: 3 }) as const,
    );
    return [perMinute(this.limits.requests), tokensPerMinute(this.limits.tokens), ...own];
  }

  /** The same rates under the limits of now. */
  #relimited(rates: readonly RateRule[]): RateRule[] {
    const now = new Map(this.#rules().map((rule) => [rule.key, rule]));
    return rates.map((rule) => now.get(rule.key) ?? rule);
  }

  /** The book that a restart would find: a new one from storage alone. */
  restored(): AdmissionBook<Facts> {
    this.#save();
    const parsed = JSON.parse(JSON.stringify([...this.#storedHolds.values()])) as Hold<Facts>[];
    return AdmissionBook.restore<Facts>({ holds: parsed, buckets: [...this.#storedBuckets.values()] });
  }

  #save(): void {
    const { holds, buckets } = this.book.takeDirty();
    for (const hold of holds.upsert) this.#storedHolds.set(hold.requestId, hold);
    for (const id of holds.remove) this.#storedHolds.delete(id);
    for (const bucket of buckets.upsert) this.#storedBuckets.set(`${bucket.rule} ${bucket.bucketMs}`, bucket);
    for (const { rule, bucketMs } of buckets.remove) this.#storedBuckets.delete(`${rule} ${bucketMs}`);
  }

  requestOf(each: Extract<Step, { do: "call" }>["call"], id: string): AdmissionRequest<Facts> {
    const { tier, promptTokens, outputTokens, choices, outputLowerable, holdMs } = each;
    return {
      ...{
        facts: { note: id },
        requestId: id,
        class: tier,
        rates: this.#rules(...(each.endUser ?? [])),
        promptTokens,
        outputTokens,
      },
      ...{ choices, outputLowerable, inFlightLimit: this.limits.inFlight, queueLength: 6, holdMs },
      giveUpAtMs: this.clockMs + each.patienceMs,
    };
  }

  #call(each: Extract<Step, { do: "call" }>["call"]): void {
    const request = this.requestOf(each, `r${this.#calls++}`);
    const free = this.held.size < this.limits.inFlight;
    const queued = this.waiting.length;
    const answer = this.book.admit(request, this.#tell());
    if (answer.verdict === "granted") {
      expect(free && queued === 0, "a slot was free and nobody waited").toBe(true);
      expect(answer.outputTokens).toBe(answer.hold.outputTokens);
      this.#granted(answer.hold, request);
    } else if (answer.verdict === "waiting") {
      expect(free && queued === 0, "someone waits only for a slot").toBe(false);
      const place = this.gateMs + { priority: 0, default: 5_000, flex: 10_000 }[request.class];
      expect(answer.position).toBe(this.waiting.filter((other) => other.place <= place).length);
      this.waiting.push({ id: request.requestId, place, giveUpAtMs: request.giveUpAtMs, request });
      expect(this.waiting.length).toBeLessThanOrEqual(request.queueLength);
    } else this.#refused(answer.refusal, request);
  }

  /** A rate's wait is exact while nobody waits: asked of copies, so that nothing else happens. */
  #refused(refusal: Refusal, request: AdmissionRequest<Facts>): void {
    this.ended.add(request.requestId);
    const slots = refusal.rule === "in_flight" || refusal.rule === "queue_timeout";
    if (slots) {
      expect(this.held.size >= this.limits.inFlight || this.waiting.length > 0).toBe(true);
      return;
    }
    expect(refusal.used + refusal.requested).toBeGreaterThan(refusal.limit);
    expect(refusal.neverFits).toBe(refusal.requested > refusal.limit);
    if (this.waiting.length > 0 || refusal.neverFits) return;
    const passesAfter = (waitMs: number) => {
      const copy = this.restored().admit(request, this.clockMs + waitMs);
      return copy.verdict !== "refused" || copy.refusal.rule === "in_flight" || copy.refusal.rule === "queue_timeout";
    };
    expect(passesAfter(refusal.retryAfterMs), "the wait is long enough").toBe(true);
    expect(passesAfter(refusal.retryAfterMs - 1), "not a millisecond too long").toBe(false);
  }

  /** The same call again: it may be running, waiting or over. */
  #again(index: number): void {
    const hold = [...this.held.values()].at(index)?.hold;
    const waiting = this.waiting.at(index);
    this.#checkUsed();
    if (hold) {
      const { promptTokens, choices, requestId } = hold;
      const outputTokens = 1;
      const request = { ...this.requestOf({ ...ANY_CALL, promptTokens, choices, outputTokens }, requestId) };
      expect(this.book.admit(request, this.#tell())).toMatchObject({ verdict: "granted", hold });
    }
    if (waiting) expect(this.book.admit(waiting.request, this.#tell()).verdict).toBe("waiting");
    this.#checkUsed();
  }

  /** Usage is what the grants of the last minute count, bucket by bucket, and what those who wait claim. */
  #checkUsed(): void {
    for (const { key, limit, used, remaining } of this.book.rates(this.#rules("ada", "bob"), this.#tell())) {
      const counted = this.grants
        .filter((grant) => !grant.left && this.#counts(grant))
        .reduce((sum, grant) => sum + (grant.counts.get(key) ?? 0), 0);
      const waiting = this.waiting.filter(({ request }) => request.rates.some((rule) => rule.key === key)).length;
      if (key !== "tpm") expect(used, key).toBe(counted + waiting);
      else if (waiting === 0) expect(used, key).toBe(counted);
      expect(remaining).toBe(Math.max(0, limit - used));
    }
  }

  #counts(grant: Grant): boolean {
    return Math.floor(grant.gateMs / 250) * 250 + 60_250 > this.gateMs;
  }

  #anyId(index: number): string {
    const ids = [...this.held.keys(), ...this.waiting.map(({ id }) => id), ...[...this.ended].slice(-3)];
    return ids.at(index % Math.max(1, ids.length)) ?? "nobody";
  }

  #settle(index: number, tokens: number): void {
    const id = this.#anyId(index);
    const grant = this.held.get(id);
    const answer = this.book.settle(id, { tokens, microdollars: 0 }, this.#tell());
    expect(answer.settled).toBe(grant !== undefined);
    if (grant) {
      expect(answer).toEqual({ settled: true, hold: grant.hold });
      this.#end(grant, tokens);
    }
    this.#grantWaiting();
  }

  #release(index: number): void {
    const id = this.#anyId(index);
    const grant = this.held.get(id);
    expect(this.book.release(id)).toBe(grant !== undefined);
    if (grant) this.#end(grant, 0);
    this.#grantWaiting();
  }

  #leave(id: string): void {
    const waits = this.waiting.some((waiting) => waiting.id === id);
    expect(this.book.leave(id)).toBe(waits);
    this.#gone(id);
  }

  #expire(): void {
    const { unreconciled, gaveUp } = this.book.expire(this.#tell());
    const due = [...this.held.values()].filter(({ hold }) => hold.expiresAtMs <= this.gateMs);
    expect(new Set(unreconciled)).toEqual(new Set(due.map(({ hold }) => hold)));
    for (const grant of due) this.#end(grant, null);
    this.#gaveUp(gaveUp);
    expect(this.waiting.every((waiting) => waiting.giveUpAtMs > this.clockMs)).toBe(true);
    this.#grantWaiting();
  }

  #gaveUp(refused: readonly { readonly requestId: string; readonly refusal: Refusal }[]): void {
    for (const { requestId, refusal } of refused) {
      const waiting = this.waiting.find(({ id }) => id === requestId);
      expect(waiting, "only one that waits gives up").toBeDefined();
      expect(refusal.rule).toBe("queue_timeout");
      expect(waiting?.giveUpAtMs).toBeLessThanOrEqual(this.clockMs);
      this.#gone(requestId);
    }
  }

  #grantWaiting(): void {
    for (const verdict of this.book.grantWaiting(this.#tell())) {
      if ("refusal" in verdict && verdict.refusal.rule === "queue_timeout") {
        this.#gaveUp([{ requestId: verdict.requestId, refusal: verdict.refusal }]);
        continue;
      }
      const first = [...this.waiting].sort((a, b) => a.place - b.place)[0];
      expect(verdict.requestId, "the first in the line goes first").toBe(first?.id);
      if (!first) continue;
      this.#gone(first.id);
      expect(first.giveUpAtMs).toBeGreaterThan(this.clockMs);
      if ("hold" in verdict) this.#granted(verdict.hold, first.request);
      else {
        this.ended.add(first.id);
        expect(verdict.refusal.used + verdict.refusal.requested).toBeGreaterThan(verdict.refusal.limit);
      }
    }
    const idle = this.held.size < this.limits.inFlight && this.waiting.length > 0;
    expect(idle, "no slot is free while someone waits").toBe(false);
  }

  /** Everything that must hold at the moment of a grant. */
  #granted(hold: Hold<Facts>, request: AdmissionRequest<Facts>): void {
    const { requestId: id, promptTokens, choices } = request;
    expect(this.held.has(id) || this.ended.has(id), "nobody is granted twice").toBe(false);
    const lowered = hold.outputTokens < request.outputTokens;
    if (lowered) expect(request.outputLowerable && hold.outputTokens >= 16).toBe(true);
    else expect(hold.outputTokens).toBe(request.outputTokens);
    expect(hold).toMatchObject({ facts: request.facts, grantedAtMs: this.gateMs });
    const tokens = promptTokens + hold.outputTokens * choices;
    const counts = new Map(request.rates.map((rule) => [rule.key, rule.unit === "tokens" ? tokens : 1]));
    const grant: Grant = { id, realMs: this.realMs, gateMs: this.gateMs, counts, hold, left: false };
    this.grants.push(grant);
    this.held.set(id, grant);
    expect(this.held.size, "in flight").toBeLessThanOrEqual(this.limits.inFlight);
    for (const rule of request.rates) this.#checkInterval(rule);
  }

  /** Brute force: of all intervals of 60 s the fullest ends with a grant, this one. */
  #checkInterval({ key, limit }: RateRule): void {
    const timeOf = (grant: Grant) => (this.clock === "slow" ? grant.realMs : grant.gateMs);
    const fromMs = (this.clock === "slow" ? this.realMs : this.gateMs) - 60_000;
    const inside = this.grants.filter((grant) => timeOf(grant) >= fromMs);
    const sum = inside.reduce((total, grant) => total + (grant.counts.get(key) ?? 0), 0);
    expect(sum, `${key} within 60 s`).toBeLessThanOrEqual(limit);
  }

  #end(grant: Grant, tokens: number | null): void {
    this.held.delete(grant.id);
    this.ended.add(grant.id);
    const reserved = grant.counts.get("tpm");
    if (tokens !== null && reserved !== undefined) grant.counts.set("tpm", Math.min(reserved, tokens));
  }

  #gone(id: string): void {
    this.waiting = this.waiting.filter((waiting) => waiting.id !== id);
  }

  #setClock(byMs: number): void {
    if (this.clock === "slow") this.clockMs -= Math.abs(byMs);
    else this.clockMs += byMs;
  }

  #setLimits({ inFlight, requests, tokens }: Limits): void {
    this.limits = { inFlight, requests, tokens };
    this.book.relimit(({ rates }) => ({ inFlightLimit: inFlight, rates: this.#relimited(rates) }));
    for (const waiting of this.waiting) {
      const rates = this.#relimited(waiting.request.rates);
      waiting.request = { ...waiting.request, rates, inFlightLimit: inFlight };
    }
    this.#grantWaiting();
  }

  /** What storage gives back is the book without those who waited. */
  #restart(): void {
    for (const { id } of [...this.waiting]) this.#leave(id);
    const all = this.#rules("ada", "bob");
    expect(this.restored().rates(all, this.gateMs)).toEqual(this.book.rates(all, this.gateMs));
    const restored = this.restored();
    expect(restored.nextDueMs()).toBe(this.book.nextDueMs());
    for (const [id, { hold }] of this.held) expect(restored.hold(id)).toEqual(hold);
    // A clock that ran ahead of real time and was set back in the restart cannot be told from one that did not.
    if (this.clock === "wild" && this.clockMs < this.gateMs) return;
    this.book = restored;
    for (const grant of this.grants) grant.left ||= !this.#counts(grant);
    const storedMs = [...this.#storedBuckets.values()].map(({ bucketMs }) => bucketMs);
    const grantedMs = [...this.held.values()].map(({ gateMs }) => gateMs);
    this.gateMs = Math.max(0, ...storedMs, ...grantedMs);
  }

  #check(): void {
    if (this.#calls % 2 === 0) this.#save(); // some changes are stored one by one, others together
    expect([this.book.inFlight, this.book.waiting]).toEqual([this.held.size, this.waiting.length]);
    for (const [id, { hold }] of this.held) expect(this.book.hold(id)).toEqual(hold);
    const giveUps = this.waiting.map(({ giveUpAtMs }) => giveUpAtMs);
    const expiries = [...this.held.values()].map(({ hold }) => hold.expiresAtMs);
    const dueMs = Math.min(...giveUps, ...expiries);
    expect(this.book.nextDueMs()).toBe(Number.isFinite(dueMs) ? dueMs : undefined);
  }
}

const ANY_CALL = { tier: "flex", outputLowerable: true, endUser: null, patienceMs: 0, holdMs: 500 } as const;
