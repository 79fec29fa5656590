import { Deadlines } from "./deadlines";
import { DRAW_MS, GateLeases, type Lease, type RunningDraw } from "./gate-leases";
import {
  type Counted,
  type Draw,
  type RateRefusal,
  type RateRule,
  RateWindows,
  type RuleBucket,
  type StoredWindows,
} from "./rate-windows";
import type { ServiceTier } from "./records";
import { type Waiter, WaitingLine } from "./waiting-line";

export { MIN_OUTPUT_TOKENS, type RateRule } from "./rate-windows";

/** What a call really took. */
export interface Used {
  readonly tokens: number;
  /** 0 while nothing is priced. */
  readonly microdollars: number;
}

/** A rule and where it stands: `settled` is spent, `held` is what running and waiting calls may take at worst. */
export interface RuleState extends RateRule {
  readonly used: number;
  readonly settled: number;
  readonly held: number;
  readonly remaining: number;
  readonly resetMs: number;
  readonly wouldRefuse: number;
  readonly isAlerted: boolean;
}

/** @typeParam F facts of the call; opaque here, kept in its hold */
export interface AdmissionRequest<F> extends Draw {
  readonly facts: F;
  readonly requestId: string;
  readonly class: ServiceTier;
  /** The end user whose request it is: inside a class they take turns. */
  readonly party?: string | null;
  /** The tenant's: the one that came last holds for all who wait. */
  readonly inFlightLimit: number;
  readonly queueLength: number;
  /** The caller's deadline for waiting. */
  readonly giveUpAtMs: number;
  /** After which an unsettled hold is overdue. */
  readonly holdMs: number;
}

/** What {@link AdmissionBook.relimit} may change of one that waits. */
export type Limits = Pick<AdmissionRequest<unknown>, "rates" | "inFlightLimit">;

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
  readonly counted: Counted;
}

/** Of a rate, of the slots (`in_flight`: the line is full), or of a wait longer than the caller's patience. */
export type Refusal = RateRefusal;

export type Admission<F> =
  | { readonly verdict: "granted"; readonly outputTokens: number; readonly hold: Hold<F> }
  | { readonly verdict: "waiting"; readonly position: number }
  | { readonly verdict: "refused"; readonly refusal: Refusal };

export type LineVerdict<F> =
  | { readonly requestId: string; readonly hold: Hold<F> }
  | { readonly requestId: string; readonly refusal: Refusal };

/** One lease takes at most this part of what is left: near a limit leases shrink to nothing, and calls ask one by one. */
const LEASE_SHARE = 8;
/** And at most this part of the free slots: who finds none waits for them, where rates would refuse. */
const SLOT_SHARE = 4;
/** What a call is expected to take while nothing is known. */
const FIRST_GUESS_MS = 2_000;
/** Weight of the newest duration in the moving average. */
const AVERAGE_WEIGHT = 0.1;

/** Its cap is lowered already, so that its claim is what its grant will count. */
interface Waiting<F> extends Waiter {
  readonly request: AdmissionRequest<F>;
}

/**
 * The admission state of one tenant: rates, holds, the waiting line. A deterministic state machine without I/O;
 * limits come with each request, so changing one keeps the usage so far.
 *
 * Rates refuse at once; only the in-flight limit makes a request wait. One that waits claims its rates meanwhile and
 * counts them when it is granted. After whatever may have freed a slot (settle, release, expire, a changed limit) the
 * caller asks {@link grantWaiting}.
 *
 * Only the average duration is not persisted: it is a guess, and starts anew.
 */
export class AdmissionBook<F> {
  #rates = new RateWindows();
  readonly #holds = new Map<string, Hold<F>>();
  readonly #expiries = new Deadlines();
  readonly #line = new WaitingLine<Waiting<F>>();
  readonly #dirtyHolds = new Set<string>();
  readonly #leases = new GateLeases<F>();
  #inFlightLimit = 0;
  #averageMs = FIRST_GUESS_MS;

  /** From what {@link takeDirty} persisted. Those who waited are gone: so are their callers. */
  static restore<F>(stored: {
    readonly holds: readonly Hold<F>[];
    /** Missing where none are given out: then nothing was counted ahead of the clock. */
    readonly leases?: readonly Lease<F>[] | undefined;
    /** All that was counted, or where to find it when it is asked for. */
    readonly buckets?: readonly RuleBucket[];
    readonly windows?: StoredWindows;
    /** Windows that stay in memory although nobody asks for them. */
    readonly maxWindows?: number;
    /** When the clock was last known to be, at least. */
    readonly atMs?: number;
  }): AdmissionBook<F> {
    const book = new AdmissionBook<F>();
    const leases = stored.leases ?? [];
    let atMs = leases.reduce((latest, { grantedAtMs }) => Math.max(latest, grantedAtMs), stored.atMs ?? 0);
    book.#leases.restore(leases);
    for (const hold of stored.holds) {
      book.#holds.set(hold.requestId, hold);
      book.#expiries.set(hold.requestId, hold.expiresAtMs);
      atMs = Math.max(atMs, hold.grantedAtMs);
    }
    const aheadMs = stored.leases ? DRAW_MS : 0;
    const { buckets = [], windows, maxWindows } = stored;
    book.#rates = RateWindows.restore({
      ...{ buckets, stored: windows, atMs, aheadMs },
      ...(maxWindows === undefined ? {} : { maxWindows }),
    });
    return book;
  }

  hold(requestId: string): Hold<F> | undefined {
    return this.#holds.get(requestId);
  }

  /** All that run, in the order of their grants. */
  holds(): Hold<F>[] {
    return [...this.#holds.values()];
  }

  /** All that are out, or returned with calls under way. */
  leases(): Lease<F>[] {
    return [...this.#leases.all()];
  }

  /** Calls that run, and draws that may. */
  get inFlight(): number {
    return this.#holds.size + this.#leases.slots;
  }

  get waiting(): number {
    return this.#line.size;
  }

  /**
   * Decides at once: a hold, a place in the line, or a refusal. An id that holds or waits already gets the same
   * answer again and nothing is counted twice.
   * @throws RangeError for numbers that cannot be counted
   */
  admit(request: AdmissionRequest<F>, nowMs: number): Admission<F> {
    const atMs = this.#rates.tick(nowMs);
    const known = this.#known(request.requestId);
    if (known) return known;
    this.#inFlightLimit = request.inFlightLimit;
    const fit = this.#rates.fit(request, nowMs);
    if ("rule" in fit) return { verdict: "refused", refusal: fit };
    const fitted = { ...request, outputTokens: fit.outputTokens };
    if (this.inFlight < request.inFlightLimit && this.#line.size === 0) {
      return grantedOf(this.#grant(fitted, atMs, atMs));
    }
    const { class: tier, party = null } = request;
    const position = this.#line.ahead({ class: tier, party }, atMs);
    const refusal = this.#hopeless(request, position, nowMs);
    if (refusal) return { verdict: "refused", refusal };
    const { requestId: id, giveUpAtMs } = request;
    this.#line.push({ id, class: tier, party, enqueuedAtMs: atMs, giveUpAtMs, request: fitted });
    this.#rates.claim(fitted);
    return { verdict: "waiting", position };
  }

  /**
   * Ends a hold with what the call really took, which is counted in the bucket of its grant: never more than its
   * worst case, for what came on top is the platform's loss. A second end, or one after the expiry, is none.
   * @throws RangeError for what cannot be counted
   */
  settle(requestId: string, used: Used, nowMs: number): { settled: true; hold: Hold<F> } | { settled: false } {
    const atMs = this.#rates.tick(nowMs);
    const hold = this.#holds.get(requestId);
    if (!hold) return { settled: false };
    this.#rates.giveBack(hold.counted, worstCaseOf(hold), used);
    this.#end(hold);
    this.#averageMs += AVERAGE_WEIGHT * (atMs - hold.grantedAtMs - this.#averageMs);
    return { settled: true, hold };
  }

  /**
   * Ends the hold of a call that never ran: its tokens go back, as a request it stays counted.
   * @returns false where there is no such hold
   */
  release(requestId: string): boolean {
    const hold = this.#holds.get(requestId);
    if (!hold) return false;
    this.#rates.giveBack(hold.counted, worstCaseOf(hold), NOTHING_USED);
    this.#end(hold);
    return true;
  }

  /**
   * A prepaid slice of draws like this request, to a caller that was just granted one: as many as it asks for, fewer
   * the nearer a limit is, none while anybody waits.
   */
  lease(id: string, request: AdmissionRequest<F>, wanted: number, nowMs: number): Lease<F> | undefined {
    const atMs = this.#rates.tick(nowMs);
    const given = this.#leases.get(id);
    if (given) return given;
    // Rules that only watch must see each call.
    if (this.#line.size > 0 || request.rates.some(({ mode = "hard" }) => mode !== "hard")) return undefined;
    const slots = request.inFlightLimit - this.inFlight;
    const fits = this.#rates.timesItFits(request, wanted * LEASE_SHARE);
    const draws = Math.min(wanted, Math.floor(slots / SLOT_SHARE), Math.floor(fits / LEASE_SHARE));
    if (draws < 1) return undefined;
    return this.#leases.grant(id, request.facts, request, draws, this.#rates, atMs, request.holdMs);
  }

  /**
   * Whether what stands in a rule's way may be given back at any moment: a lease counts there whose isolate is still
   * drawing on it, or about to return it. Refusing before that could refuse what has room.
   */
  mayBeReturned(rule: string, nowMs: number): boolean {
    return this.#leases.isOut(rule, nowMs);
  }

  leaseOf(id: string): Lease<F> | undefined {
    return this.#leases.get(id);
  }

  /**
   * As {@link settle}, for a call that drew on a lease.
   * @param used null for a call that never ran
   * @returns undefined where the call ended before, or the lease is over
   */
  settleDraw(leaseId: string, draw: RunningDraw, used: Used | null, nowMs: number): Lease<F> | undefined {
    this.#rates.tick(nowMs);
    return this.#leases.settle(leaseId, draw, used, this.#rates);
  }

  /** An isolate draws no more on a lease; `running` are those of its calls that nobody has settled yet. */
  returnLease(id: string, running: readonly RunningDraw[], nowMs: number): void {
    this.#rates.tick(nowMs);
    this.#leases.giveBack(id, running, this.#rates);
  }

  /** Leases that nobody settled or returned in time; they stay counted at their worst case. */
  expireLeases(nowMs: number): Lease<F>[] {
    return this.#leases.expire(this.#rates.tick(nowMs));
  }

  /** A waiting request goes away. @returns false for one that does not wait */
  leave(requestId: string): boolean {
    const waiting = this.#line.remove(requestId);
    if (waiting) this.#rates.unclaim(waiting.request);
    return waiting !== undefined;
  }

  /** Ends what is overdue: holds stay counted at their worst case, waiting requests are refused. */
  expire(nowMs: number): { unreconciled: Hold<F>[]; gaveUp: { requestId: string; refusal: Refusal }[] } {
    const atMs = this.#rates.tick(nowMs);
    const unreconciled: Hold<F>[] = [];
    for (const requestId of this.#expiries.takeDue(atMs)) {
      const hold = this.#holds.get(requestId);
      if (!hold) continue;
      this.#end(hold);
      unreconciled.push(hold);
    }
    return { unreconciled, gaveUp: this.#giveUp(nowMs) };
  }

  /**
   * Grants those at the head of the line, as far as there are slots. Refused are those whose patience has ended, and
   * those whose rates no longer have room because a limit was lowered meanwhile.
   */
  grantWaiting(nowMs: number): LineVerdict<F>[] {
    const atMs = this.#rates.tick(nowMs);
    const verdicts: LineVerdict<F>[] = this.#giveUp(nowMs);
    while (this.inFlight < this.#inFlightLimit) {
      const next = this.#line.pop(nowMs);
      if (!next) break;
      const { id: requestId, request, enqueuedAtMs } = next;
      this.#rates.unclaim(request);
      const fit = this.#rates.fitFirst(request, nowMs);
      if ("rule" in fit) verdicts.push({ requestId, refusal: fit });
      else {
        const hold = this.#grant({ ...request, outputTokens: fit.outputTokens }, enqueuedAtMs, atMs);
        verdicts.push({ requestId, hold });
      }
    }
    return verdicts;
  }

  /** Those who wait get the limits of now; {@link grantWaiting} then decides by them. */
  relimit(change: (request: AdmissionRequest<F>) => Limits): void {
    this.#line.update(({ request }) => {
      const { rates, inFlightLimit } = change(request);
      this.#rates.unclaim(request);
      const relimited = { ...request, rates, inFlightLimit };
      this.#rates.claim(relimited);
      this.#inFlightLimit = inFlightLimit;
      return { request: relimited };
    });
  }

  /** When {@link expire} has something to do; undefined while it has not. */
  nextDueMs(): number | undefined {
    const dueMs = Math.min(this.nextHoldExpiryMs() ?? Infinity, this.nextGiveUpMs() ?? Infinity);
    return dueMs === Infinity ? undefined : dueMs;
  }

  nextHoldExpiryMs(): number | undefined {
    const nextMs = Math.min(this.#expiries.nextMs() ?? Infinity, this.#leases.nextDueMs() ?? Infinity);
    return nextMs === Infinity ? undefined : nextMs;
  }

  nextGiveUpMs(): number | undefined {
    return this.#line.nextGiveUpMs();
  }

  /** Each rule's state; `resetMs` is the wait until nothing counts any more. */
  rates(rules: readonly RateRule[], nowMs: number): RuleState[] {
    this.#rates.tick(nowMs);
    const held = this.#heldByRule();
    return rules.map((rule) => {
      const { used, ...window } = this.#rates.state(rule.key, nowMs);
      const settled = this.#rates.settledOf(rule.key) - (held.get(rule.key) ?? 0);
      const remaining = Math.max(0, rule.limit - used);
      return { ...rule, used, settled, held: used - settled, remaining, ...window };
    });
  }

  /** Windows in memory. */
  get windows(): number {
    return this.#rates.size;
  }

  /** Windows whose keys begin so: rules that count for each key or end user by itself have one for each. */
  windowKeys(prefix: string, limit: number): string[] {
    return this.#rates.keys(prefix, limit);
  }

  /** Alert rules that were passed for the first time in their period since the last call. */
  takeAlerts(): RateRule[] {
    return this.#rates.takeAlerts();
  }

  /** What must be written so that {@link restore} finds it. */
  takeDirty() {
    const holds = { upsert: [] as Hold<F>[], remove: [] as string[] };
    for (const requestId of this.#dirtyHolds) {
      const hold = this.#holds.get(requestId);
      if (hold) holds.upsert.push(hold);
      else holds.remove.push(requestId);
    }
    this.#dirtyHolds.clear();
    return { holds, leases: this.#leases.takeDirty(), buckets: this.#rates.takeDirty() };
  }

  /** What running calls may take at worst; requests are never given back, so they are settled at once. */
  #heldByRule(): Map<string, number> {
    const held = new Map<string, number>();
    for (const hold of this.#holds.values()) {
      for (const { rule, amount = worstCaseOf(hold) } of hold.counted) held.set(rule, (held.get(rule) ?? 0) + amount);
    }
    for (const lease of this.#leases.all()) {
      for (const { rule, unit = "tokens" } of lease.counted) held.set(rule, (held.get(rule) ?? 0) + lease[unit]);
      for (const { rule } of lease.requestsCounted) held.set(rule, (held.get(rule) ?? 0) + lease.draws);
    }
    return held;
  }

  #known(requestId: string): Admission<F> | undefined {
    const hold = this.#holds.get(requestId);
    if (hold) return grantedOf(hold);
    const position = this.#line.position(requestId);
    return position === undefined ? undefined : { verdict: "waiting", position };
  }

  /** A line that is full, or so long that this caller's patience would end before its turn. */
  #hopeless(request: AdmissionRequest<F>, position: number, nowMs: number): Refusal | undefined {
    const waitMs = this.#waitMs(position);
    if (request.inFlightLimit === 0) return { ...this.#slotRefusal("in_flight", 0), neverFits: true };
    if (this.#line.size >= request.queueLength) return this.#slotRefusal("in_flight", waitMs);
    if (nowMs + waitMs >= request.giveUpAtMs) return this.#slotRefusal("queue_timeout", waitMs);
    return undefined;
  }

  /** Until a slot comes to one with that many ahead, if calls take as long as they did. */
  #waitMs(position: number): number {
    return Math.max(1, Math.ceil(((position + 1) * this.#averageMs) / Math.max(1, this.#inFlightLimit)));
  }

  #slotRefusal(rule: "in_flight" | "queue_timeout", retryAfterMs: number): Refusal {
    const [limit, used] = [this.#inFlightLimit, this.inFlight];
    return { rule, key: "in_flight", unit: "slots", limit, used, requested: 1, retryAfterMs, neverFits: false };
  }

  #giveUp(nowMs: number): { requestId: string; refusal: Refusal }[] {
    return this.#line.expire(nowMs).map(({ id: requestId, request }) => {
      this.#rates.unclaim(request);
      return { requestId, refusal: this.#slotRefusal("queue_timeout", this.#waitMs(this.#line.size)) };
    });
  }

  #grant(request: AdmissionRequest<F>, enqueuedAtMs: number, atMs: number): Hold<F> {
    const { requestId, facts, promptTokens, outputTokens, choices } = request;
    const counted = this.#rates.count(request);
    const times = { enqueuedAtMs, grantedAtMs: atMs, expiresAtMs: atMs + request.holdMs };
    const hold: Hold<F> = { requestId, facts, ...times, outputTokens, choices, promptTokens, counted };
    this.#holds.set(requestId, hold);
    this.#expiries.set(requestId, hold.expiresAtMs);
    this.#dirtyHolds.add(requestId);
    return hold;
  }

  #end({ requestId }: Hold<F>): void {
    this.#holds.delete(requestId);
    this.#expiries.delete(requestId);
    this.#dirtyHolds.add(requestId);
  }
}

const grantedOf = <F>(hold: Hold<F>): Admission<F> => ({
  verdict: "granted",
  outputTokens: hold.outputTokens,
  hold,
});

const NOTHING_USED: Used = { tokens: 0, microdollars: 0 };

const worstCaseOf = (hold: Hold<unknown>) => hold.promptTokens + hold.outputTokens * hold.choices;
