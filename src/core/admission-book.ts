import { type Bucket, MinuteWindow } from "./minute-window";
import type { ServiceTier } from "./records";
import { WaitingLine } from "./waiting-line";

export interface RateRule {
  /** Names the window; unique within a tenant. */
  readonly key: string;
  readonly name: "requests_per_minute" | "tokens_per_minute" | "end_user_requests_per_minute";
  readonly unit: "requests" | "tokens";
  readonly limit: number;
}

/** @typeParam F facts of the call; opaque here, kept in its hold */
export interface AdmissionRequest<F> {
  readonly facts: F;
  readonly requestId: string;
  readonly class: ServiceTier;
  /** All of them must have room. */
  readonly rates: readonly RateRule[];
  /** Upper bound of the prompt. */
  readonly promptTokens: number;
  /** Cap per choice. */
  readonly outputTokens: number;
  readonly choices: number;
  /** The caller named no cap, so it may be lowered to what the token limit still allows. */
  readonly outputLowerable: boolean;
  readonly inFlightLimit: number;
  readonly queueLength: number;
  readonly giveUpAtMs: number;
  readonly holdMs: number;
}

/** A running call's claim: a slot, and tokens counted at their worst case. */
export interface Hold<F> {
  readonly requestId: string;
  readonly facts: F;
  readonly enqueuedAtMs: number;
  readonly grantedAtMs: number;
  readonly expiresAtMs: number;
  /** Cap per choice as it was granted. */
  readonly outputTokens: number;
  readonly choices: number;
  readonly promptTokens: number;
  /** Where its tokens were counted. */
  readonly counted: readonly { readonly rule: string; readonly bucketMs: number }[];
}

export interface Refusal {
  readonly rule: RateRule["name"] | "in_flight" | "queue_timeout";
  readonly limit: number;
  readonly used: number;
  readonly requested: number;
  readonly retryAfterMs: number;
  /** Larger than the limit itself: waiting does not help. */
  readonly neverFits: boolean;
}

export type Admission<F> =
  | { readonly verdict: "granted"; readonly hold: Hold<F> }
  | { readonly verdict: "waiting"; readonly position: number }
  | { readonly verdict: "refused"; readonly refusal: Refusal };

export type LineVerdict<F> =
  | { readonly requestId: string; readonly hold: Hold<F> }
  | { readonly requestId: string; readonly refusal: Refusal };

/** A cap is never lowered below this: a shorter answer helps nobody. */
export const MIN_OUTPUT_TOKENS = 16;
/** What a call is expected to take while nothing is known. */
const FIRST_GUESS_MS = 2_000;
/** Weight of the newest duration in the moving average. */
const AVERAGE_WEIGHT = 0.1;

interface Waiting<F> {
  readonly id: string;
  readonly class: ServiceTier;
  readonly enqueuedAtMs: number;
  readonly giveUpAtMs: number;
  readonly request: AdmissionRequest<F>;
  /** Lowered already, so that its claim is what its grant will count. */
  readonly outputTokens: number;
}

/**
 * The admission state of one tenant: windows, holds, the waiting line. A deterministic state machine without I/O;
 * limits come with each request, so changing one keeps the usage so far.
 *
 * Rates refuse at once; only the in-flight limit makes a request wait. One that waits claims its rates meanwhile and
 * counts them when it is granted.
 */
export class AdmissionBook<F> {
  readonly #windows = new Map<string, MinuteWindow>();
  readonly #claims = new Map<string, number>(); // rule → what waiting requests will count
  readonly #holds = new Map<string, Hold<F>>(); // in order of grant
  readonly #line = new WaitingLine<Waiting<F>>();
  readonly #dirtyHolds = new Set<string>();
  #averageMs = FIRST_GUESS_MS;

  /** From what {@link takeDirty} persisted. Those who waited are gone: so are their callers. */
  static restore<F>(stored: {
    readonly holds: readonly Hold<F>[];
    readonly buckets: readonly (Bucket & { readonly rule: string })[];
  }): AdmissionBook<F> {
    const book = new AdmissionBook<F>();
    const byRule = Map.groupBy(stored.buckets, (bucket) => bucket.rule);
    for (const [rule, buckets] of byRule) book.#windows.set(rule, MinuteWindow.restore(buckets));
    for (const hold of [...stored.holds].sort((a, b) => a.grantedAtMs - b.grantedAtMs))
      book.#holds.set(hold.requestId, hold);
    return book;
  }

  hold(requestId: string): Hold<F> | undefined {
    return this.#holds.get(requestId);
  }

  get inFlight(): number {
    return this.#holds.size;
  }

  get waiting(): number {
    return this.#line.size;
  }

  admit(request: AdmissionRequest<F>, nowMs: number): Admission<F> {
    const fit = this.#fit(request, nowMs);
    if ("refusal" in fit) return { verdict: "refused", refusal: fit.refusal };
    const { outputTokens } = fit;
    if (this.#holds.size < request.inFlightLimit && this.#line.size === 0) {
      return { verdict: "granted", hold: this.#grant(request, outputTokens, nowMs, nowMs) };
    }
    const position = this.#line.ahead(request.class, nowMs);
    const refusal = this.#hopeless(request, position, nowMs);
    if (refusal) return { verdict: "refused", refusal };
    const { requestId: id, giveUpAtMs } = request;
    this.#line.push({ id, class: request.class, enqueuedAtMs: nowMs, giveUpAtMs, request, outputTokens });
    this.#claim(request, outputTokens, 1);
    return { verdict: "waiting", position };
  }

  /** Ends a hold with what the call really took. A second end, or one after the expiry, is none. */
  settle(requestId: string, tokensUsed: number, nowMs: number): { settled: true; hold: Hold<F> } | { settled: false } {
    const hold = this.#end(requestId);
    if (!hold) return { settled: false };
    this.#averageMs += AVERAGE_WEIGHT * (Math.max(0, nowMs - hold.grantedAtMs) - this.#averageMs);
    this.#countTokens(hold, tokensUsed);
    return { settled: true, hold };
  }

  /** Ends the hold of a call that never ran: its tokens go back, as a request it stays counted. */
  release(requestId: string): boolean {
    const hold = this.#end(requestId);
    if (hold) this.#countTokens(hold, 0);
    return hold !== undefined;
  }

  /** A waiting request goes away. @returns false for one that does not wait */
  leave(requestId: string): boolean {
    const waiting = this.#line.remove(requestId);
    if (waiting) this.#claim(waiting.request, waiting.outputTokens, -1);
    return waiting !== undefined;
  }

  /** Ends what is overdue: holds stay counted at their worst case, waiting requests are refused. */
  expire(nowMs: number): { unreconciled: Hold<F>[]; gaveUp: { requestId: string; refusal: Refusal }[] } {
    const unreconciled = [...this.#holds.values()].filter((hold) => hold.expiresAtMs <= nowMs);
    for (const hold of unreconciled) this.#end(hold.requestId);
    const gaveUp = this.#line.expire(nowMs).map((waiting) => {
      this.#claim(waiting.request, waiting.outputTokens, -1);
      return { requestId: waiting.id, refusal: this.#slotRefusal("queue_timeout", waiting.request, this.#averageMs) };
    });
    return { unreconciled, gaveUp };
  }

  /** Grants or refuses those at the head of the line, as far as there are slots. */
  grantWaiting(nowMs: number): LineVerdict<F>[] {
    const verdicts: LineVerdict<F>[] = [];
    for (let next = this.#line.first(); next; next = this.#line.first()) {
      if (this.#holds.size >= next.request.inFlightLimit) break;
      const { id: requestId, request, outputTokens, enqueuedAtMs } = next;
      this.leave(requestId);
      // Checked again: a limit may have been lowered while it waited.
      const fit = this.#fit({ ...request, outputTokens }, nowMs);
      if ("refusal" in fit) verdicts.push({ requestId, refusal: fit.refusal });
      else verdicts.push({ requestId, hold: this.#grant(request, fit.outputTokens, enqueuedAtMs, nowMs) });
    }
    return verdicts;
  }

  /** Those who wait get the limits of now. */
  relimit(change: (request: AdmissionRequest<F>) => AdmissionRequest<F>): void {
    for (const waiting of this.#line.waiters()) {
      this.leave(waiting.id);
      const request = change(waiting.request);
      this.#line.push({ ...waiting, request });
      this.#claim(request, waiting.outputTokens, 1);
    }
  }

  nextHoldExpiryMs(): number | undefined {
    if (this.#holds.size === 0) return undefined;
    let leastMs = Number.POSITIVE_INFINITY;
    for (const hold of this.#holds.values()) leastMs = Math.min(leastMs, hold.expiresAtMs);
    return leastMs;
  }

  nextGiveUpMs(): number | undefined {
    return this.#line.nextGiveUpMs();
  }

  rates(rules: readonly RateRule[], nowMs: number) {
    return rules.map(({ key, name, unit, limit }) => {
      const used = this.#used(key, nowMs);
      const resetMs = this.#windows.get(key)?.resetMs(nowMs) ?? 0;
      return { name, unit, limit, used, remaining: Math.max(0, limit - used), resetMs };
    });
  }

  /** What must be written so that {@link restore} finds it; also drops windows that ran empty. */
  takeDirty() {
    const holds = { upsert: [] as Hold<F>[], remove: [] as string[] };
    for (const requestId of this.#dirtyHolds) {
      const hold = this.#holds.get(requestId);
      if (hold) holds.upsert.push(hold);
      else holds.remove.push(requestId);
    }
    this.#dirtyHolds.clear();
    const buckets = { upsert: [] as (Bucket & { rule: string })[], remove: [] as { rule: string; bucketMs: number }[] };
    for (const [rule, window] of this.#windows) {
      const dirty = window.takeDirty();
      buckets.upsert.push(...dirty.upsert.map((bucket) => ({ rule, ...bucket })));
      buckets.remove.push(...dirty.remove.map((bucketMs) => ({ rule, bucketMs })));
      if (window.isEmpty) this.#windows.delete(rule);
    }
    return { holds, buckets };
  }

  #used(rule: string, nowMs: number): number {
    return (this.#windows.get(rule)?.total(nowMs) ?? 0) + (this.#claims.get(rule) ?? 0);
  }

  /** Whether every rate has room; where the cap may be lowered, the cap that has. */
  #fit(request: AdmissionRequest<F>, nowMs: number): { outputTokens: number } | { refusal: Refusal } {
    let { outputTokens } = request;
    for (const rule of request.rates) {
      const used = this.#used(rule.key, nowMs);
      const room = rule.limit - used;
      if (rule.unit === "tokens" && request.outputLowerable) {
        const affordable = Math.floor((room - request.promptTokens) / request.choices);
        outputTokens = Math.min(outputTokens, Math.max(affordable, MIN_OUTPUT_TOKENS));
      }
      const cost = costOf(rule, request, outputTokens);
      if (cost > room) return { refusal: this.#rateRefusal(rule, used, cost, nowMs) };
    }
    return { outputTokens };
  }

  #rateRefusal(rule: RateRule, used: number, cost: number, nowMs: number): Refusal {
    const { name, key, limit } = rule;
    const neverFits = cost > limit;
    const window = this.#windows.get(key);
    const claimed = this.#claims.get(key) ?? 0;
    // What waiting requests claim leaves the window a minute after their grant at the latest.
    const fits = !neverFits && window && cost + claimed <= limit;
    const retryAfterMs = neverFits ? 0 : fits ? window.retryAfterMs(cost + claimed, limit, nowMs) : 60_250;
    return { rule: name, limit, used, requested: cost, retryAfterMs, neverFits };
  }

  /** A line that is full, or so long that this caller's patience would end before its turn. */
  #hopeless(request: AdmissionRequest<F>, position: number, nowMs: number): Refusal | undefined {
    const waitMs = ((position + 1) * this.#averageMs) / Math.max(1, request.inFlightLimit);
    if (request.inFlightLimit === 0) return { ...this.#slotRefusal("in_flight", request, 0), neverFits: true };
    if (this.#line.size >= request.queueLength) return this.#slotRefusal("in_flight", request, waitMs);
    if (nowMs + waitMs > request.giveUpAtMs) return this.#slotRefusal("queue_timeout", request, waitMs);
    return undefined;
  }

  #slotRefusal(rule: "in_flight" | "queue_timeout", request: AdmissionRequest<F>, waitMs: number): Refusal {
    const used = this.#holds.size + this.#line.size;
    const limit = request.inFlightLimit;
    return { rule, limit, used, requested: 1, retryAfterMs: Math.max(1, Math.ceil(waitMs)), neverFits: false };
  }

  #grant(request: AdmissionRequest<F>, outputTokens: number, enqueuedAtMs: number, nowMs: number): Hold<F> {
    const { requestId, facts, promptTokens, choices } = request;
    const counted: { rule: string; bucketMs: number }[] = [];
    for (const rule of request.rates) {
      const window = this.#windows.get(rule.key) ?? new MinuteWindow();
      this.#windows.set(rule.key, window);
      const bucketMs = window.add(costOf(rule, request, outputTokens), nowMs);
      if (rule.unit === "tokens") counted.push({ rule: rule.key, bucketMs });
    }
    const times = { enqueuedAtMs, grantedAtMs: nowMs, expiresAtMs: nowMs + request.holdMs };
    const hold: Hold<F> = { requestId, facts, ...times, outputTokens, choices, promptTokens, counted };
    this.#holds.set(requestId, hold);
    this.#dirtyHolds.add(requestId);
    return hold;
  }

  #end(requestId: string): Hold<F> | undefined {
    const hold = this.#holds.get(requestId);
    if (!hold) return undefined;
    this.#holds.delete(requestId);
    this.#dirtyHolds.add(requestId);
    return hold;
  }

  /** In the same bucket, and never above the worst case: what came on top of it is the platform's loss. */
  #countTokens(hold: Hold<F>, tokensUsed: number): void {
    const reserved = hold.promptTokens + hold.outputTokens * hold.choices;
    const delta = Math.min(0, tokensUsed - reserved);
    for (const { rule, bucketMs } of hold.counted) this.#windows.get(rule)?.correct(bucketMs, delta);
  }

  #claim(request: AdmissionRequest<F>, outputTokens: number, sign: 1 | -1): void {
    for (const rule of request.rates) {
      const claimed = (this.#claims.get(rule.key) ?? 0) + sign * costOf(rule, request, outputTokens);
      if (claimed === 0) this.#claims.delete(rule.key);
      else this.#claims.set(rule.key, claimed);
    }
  }
}

function costOf<F>(rule: RateRule, request: AdmissionRequest<F>, outputTokens: number): number {
  return rule.unit === "requests" ? 1 : request.promptTokens + outputTokens * request.choices;
}
