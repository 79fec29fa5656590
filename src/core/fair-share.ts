import { Deadlines } from "./deadlines";

/**
 * Fair sharing of a scarce model by weighted virtual token counters (Sheng et al., "Fairness in Serving Large
 * Language Models", OSDI 2024), tenant first, then key inside the tenant, so that splitting into many keys gains
 * nothing. Work-conserving: no slot is free while somebody waits. Deterministic and without I/O; the clock is an
 * argument.
 */
export interface FairRequest {
  readonly id: string;
  readonly tenant: string;
  readonly key: string;
  /** Of the tenant's plan, > 0: twice the weight, twice the service. */
  readonly weight: number;
  readonly inputTokens: number;
  readonly giveUpAtMs: number;
}

/** A call that runs, and what it has been charged with so far. */
export interface FairSlot {
  readonly id: string;
  readonly tenant: string;
  readonly key: string;
  readonly weight: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly grantedAtMs: number;
  /** Renewed by tokens; a slot of which nothing is heard is freed then. */
  readonly deadlineMs: number;
}

/** Service that a tenant, or one of its keys (`key` not null), has had, in weighted tokens. */
export interface FairCounter {
  readonly tenant: string;
  readonly key: string | null;
  readonly served: number;
}

export interface FairOptions {
  readonly slots: number;
  /** Requests that may wait; more are refused. */
  readonly queueLength: number;
  /** A slot's time without a sign of life. */
  readonly slotMs: number;
}

export type FairVerdict =
  | { readonly verdict: "granted"; readonly slot: FairSlot }
  | { readonly verdict: "waiting"; readonly position: number }
  | { readonly verdict: "refused"; readonly reason: "queue_full" | "queue_timeout"; readonly retryAfterMs: number };

/** An output token costs twice an input token, as in the paper. */
const INPUT_COST = 1;
const OUTPUT_COST = 2;
/** What a call is expected to take while nothing is known. */
const FIRST_GUESS_MS = 2_000;
const AVERAGE_WEIGHT = 0.1;

/** Counters of tenants that are away may be kept before all of them are looked through. */
const SPARE_COUNTERS = 256;

interface Waiting extends FairRequest {
  readonly enqueuedAtMs: number;
}

/** Those who share: tenants among each other, or keys inside a tenant. */
class Sharers {
  readonly served = new Map<string, number>();
  /** What the one that was let in last had had by then: where somebody begins who finds nobody waiting. */
  floor = 0;

  letIn(name: string): void {
    this.floor = Math.max(this.floor, this.of(name));
  }

  /** An idle one returns: it gains no credit from its absence. */
  lift(name: string, active: Iterable<string>): void {
    let least = Number.POSITIVE_INFINITY;
    for (const other of active) if (other !== name) least = Math.min(least, this.of(other));
    const from = least === Number.POSITIVE_INFINITY ? this.floor : least;
    this.served.set(name, Math.max(this.served.get(name) ?? 0, from));
  }

  of(name: string): number {
    return this.served.get(name) ?? this.floor;
  }

  charge(name: string, amount: number): void {
    this.served.set(name, Math.max(0, this.of(name) + amount));
  }

  least(names: Iterable<string>): string | undefined {
    let found: string | undefined;
    for (const name of names) if (found === undefined || this.of(name) < this.of(found)) found = name;
    return found;
  }
}

export class FairShare {
  #options: FairOptions;
  readonly #tenants = new Sharers();
  readonly #keys = new Map<string, Sharers>();
  /** tenant → key → its requests in order. */
  readonly #line = new Map<string, Map<string, Waiting[]>>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #slots = new Map<string, FairSlot>();
  readonly #running = new Map<string, number>(); // slots by tenant
  readonly #slotDeadlines = new Deadlines();
  readonly #giveUps = new Deadlines();
  readonly #dirtyTenants = new Set<string>();
  readonly #dirtySlots = new Set<string>();
  #averageMs = FIRST_GUESS_MS;

  constructor(options: FairOptions) {
    this.#options = options;
  }

  /** From what {@link takeDirty} persisted. Those who waited are gone: so are their callers. */
  static restore(
    stored: { readonly counters: readonly FairCounter[]; readonly slots: readonly FairSlot[] },
    options: FairOptions,
  ): FairShare {
    const share = new FairShare(options);
    for (const { tenant, key, served } of stored.counters) {
      if (key === null) share.#tenants.served.set(tenant, served);
      else share.#keysOf(tenant).served.set(key, served);
    }
    for (const slot of stored.slots) share.#keepSlot(slot);
    for (const slot of stored.slots) share.#running.set(slot.tenant, (share.#running.get(slot.tenant) ?? 0) + 1);
    // Nobody begins behind those who were served least.
    share.#tenants.floor = least(share.#tenants.served.values());
    for (const keys of share.#keys.values()) keys.floor = least(keys.served.values());
    share.#dirtySlots.clear();
    return share;
  }

  /** A slot at once, a place in the line, or a refusal; the same id again gets the same answer. */
  ask(request: FairRequest, nowMs: number): FairVerdict {
    const slot = this.#slots.get(request.id);
    if (slot) return { verdict: "granted", slot };
    const position = this.#waiting.size;
    if (this.#waiting.has(request.id)) return { verdict: "waiting", position: position - 1 };
    if (!(request.weight > 0)) throw new RangeError(`a weight of ${request.weight} cannot be shared by`);
    if (this.#slots.size < this.#options.slots && position === 0) {
      this.#enter(request);
      return { verdict: "granted", slot: this.#grant({ ...request, enqueuedAtMs: nowMs }, nowMs) };
    }
    const retryAfterMs = this.#waitMs(position);
    if (position >= this.#options.queueLength) return { verdict: "refused", reason: "queue_full", retryAfterMs };
    if (nowMs >= request.giveUpAtMs) return { verdict: "refused", reason: "queue_timeout", retryAfterMs };
    this.#enter(request);
    this.#push({ ...request, enqueuedAtMs: nowMs });
    return { verdict: "waiting", position };
  }

  /** So many output tokens have come so far: they are charged, and the slot lives on. */
  progress(id: string, outputTokens: number, nowMs: number): boolean {
    const slot = this.#slots.get(id);
    if (!slot) return false;
    const more = Math.max(0, outputTokens - slot.outputTokens);
    this.#charge(slot, OUTPUT_COST * more);
    const deadlineMs = nowMs + this.#options.slotMs;
    this.#keepSlot({ ...slot, outputTokens: slot.outputTokens + more, deadlineMs });
    return true;
  }

  /** Frees the slot; the charge becomes what was really taken. A second end is none. */
  finish(id: string, used: { readonly inputTokens: number; readonly outputTokens: number }, nowMs: number): boolean {
    const slot = this.#slots.get(id);
    if (!slot) return false;
    const input = INPUT_COST * (used.inputTokens - slot.inputTokens);
    this.#charge(slot, input + OUTPUT_COST * (used.outputTokens - slot.outputTokens));
    this.#free(slot);
    this.#averageMs += AVERAGE_WEIGHT * (nowMs - slot.grantedAtMs - this.#averageMs);
    return true;
  }

  /** A waiting request goes away. @returns false for one that does not wait */
  leave(id: string): boolean {
    const waiting = this.#waiting.get(id);
    if (!waiting) return false;
    const keys = this.#line.get(waiting.tenant);
    const line = keys?.get(waiting.key);
    line?.splice(line.indexOf(waiting), 1);
    if (line?.length === 0) keys?.delete(waiting.key);
    if (keys?.size === 0) this.#line.delete(waiting.tenant);
    this.#waiting.delete(id);
    this.#giveUps.delete(id);
    this.#forgetIdle(waiting.tenant);
    return true;
  }

  /** Frees slots of which nothing was heard, and names those whose patience has ended. */
  expire(nowMs: number): { readonly freed: FairSlot[]; readonly gaveUp: string[] } {
    const freed: FairSlot[] = [];
    for (const id of this.#slotDeadlines.takeDue(nowMs)) {
      const slot = this.#slots.get(id);
      if (!slot) continue;
      this.#free(slot);
      freed.push(slot);
    }
    const gaveUp = this.#giveUps.takeDue(nowMs);
    for (const id of gaveUp) this.leave(id);
    return { freed, gaveUp };
  }

  /** As far as there are slots: the tenant served least, of it the key served least, of it the first that came. */
  grantWaiting(nowMs: number): FairSlot[] {
    const granted: FairSlot[] = [];
    while (this.#slots.size < this.#options.slots) {
      const tenant = this.#tenants.least(this.#line.keys());
      const keys = tenant === undefined ? undefined : this.#line.get(tenant);
      if (tenant === undefined || !keys) break;
      const key = this.#keysOf(tenant).least(keys.keys());
      const next = key === undefined ? undefined : keys.get(key)?.[0];
      if (!next) break;
      this.leave(next.id);
      granted.push(this.#grant(next, nowMs));
    }
    return granted;
  }

  /** Endpoints joined or left. Calls that run go on; new ones come when there is room again. */
  resize(slots: number): void {
    this.#options = { ...this.#options, slots };
  }

  nextDueMs(): number | undefined {
    const next = Math.min(this.#slotDeadlines.nextMs() ?? Infinity, this.#giveUps.nextMs() ?? Infinity);
    return next === Infinity ? undefined : next;
  }

  /** What an autoscaler follows. */
  metrics(nowMs: number): { readonly queueDepth: number; readonly oldestWaitMs: number; readonly inFlight: number } {
    let oldest = nowMs;
    for (const { enqueuedAtMs } of this.#waiting.values()) oldest = Math.min(oldest, enqueuedAtMs);
    return { queueDepth: this.#waiting.size, oldestWaitMs: nowMs - oldest, inFlight: this.#slots.size };
  }

  /** Weighted service of a tenant so far, as far as it is remembered. */
  servedOf(tenant: string): number {
    return this.#tenants.of(tenant);
  }

  /** Forgets a tenant: its counters, not its calls. For the end of a tenant alone. */
  forget(tenant: string): void {
    this.#tenants.served.delete(tenant);
    this.#keys.delete(tenant);
    this.#dirtyTenants.add(tenant);
  }

  /** Tenants whose counters changed, with all of them, and slots that came, changed or went. */
  takeDirty(): {
    readonly tenants: { readonly tenant: string; readonly counters: FairCounter[] }[];
    readonly slots: { readonly upsert: FairSlot[]; readonly remove: string[] };
  } {
    const tenants = [...this.#dirtyTenants].map((tenant) => ({ tenant, counters: this.#countersOf(tenant) }));
    const slots = { upsert: [] as FairSlot[], remove: [] as string[] };
    for (const id of this.#dirtySlots) {
      const slot = this.#slots.get(id);
      if (slot) slots.upsert.push(slot);
      else slots.remove.push(id);
    }
    this.#dirtyTenants.clear();
    this.#dirtySlots.clear();
    return { tenants, slots };
  }

  #countersOf(tenant: string): FairCounter[] {
    const served = this.#tenants.served.get(tenant);
    if (served === undefined) return [];
    const keys = [...(this.#keys.get(tenant)?.served ?? [])];
    return [{ tenant, key: null, served }, ...keys.map(([key, of]) => ({ tenant, key, served: of }))];
  }

  #keysOf(tenant: string): Sharers {
    const known = this.#keys.get(tenant);
    if (known) return known;
    const keys = new Sharers();
    this.#keys.set(tenant, keys);
    return keys;
  }

  /** Whoever had nothing waiting begins where those who wait are. */
  #enter({ tenant, key }: FairRequest): void {
    if (!this.#line.has(tenant)) this.#tenants.lift(tenant, this.#line.keys());
    if (!this.#line.get(tenant)?.has(key)) this.#keysOf(tenant).lift(key, this.#line.get(tenant)?.keys() ?? []);
  }

  #push(waiting: Waiting): void {
    const keys = this.#line.get(waiting.tenant) ?? new Map<string, Waiting[]>();
    this.#line.set(waiting.tenant, keys);
    const line = keys.get(waiting.key) ?? [];
    keys.set(waiting.key, line);
    line.push(waiting);
    this.#waiting.set(waiting.id, waiting);
    this.#giveUps.set(waiting.id, waiting.giveUpAtMs);
  }

  #grant({ id, tenant, key, weight, inputTokens }: Waiting, nowMs: number): FairSlot {
    const keys = this.#keysOf(tenant);
    this.#tenants.letIn(tenant);
    keys.letIn(key);
    const times = { grantedAtMs: nowMs, deadlineMs: nowMs + this.#options.slotMs };
    const slot: FairSlot = { id, tenant, key, weight, inputTokens, outputTokens: 0, ...times };
    this.#charge(slot, INPUT_COST * inputTokens);
    this.#keepSlot(slot);
    this.#running.set(tenant, (this.#running.get(tenant) ?? 0) + 1);
    return slot;
  }

  #charge({ tenant, key, weight }: FairSlot, cost: number): void {
    this.#tenants.charge(tenant, cost / weight);
    this.#keysOf(tenant).charge(key, cost / weight);
    this.#dirtyTenants.add(tenant);
  }

  #keepSlot(slot: FairSlot): void {
    this.#slots.set(slot.id, slot);
    this.#slotDeadlines.set(slot.id, slot.deadlineMs);
    this.#dirtySlots.add(slot.id);
  }

  #free({ id, tenant }: FairSlot): void {
    this.#slots.delete(id);
    this.#slotDeadlines.delete(id);
    this.#dirtySlots.add(id);
    const left = (this.#running.get(tenant) ?? 1) - 1;
    if (left > 0) this.#running.set(tenant, left);
    else this.#running.delete(tenant);
    this.#forgetIdle(tenant);
  }

  /** A counter that says nothing any more: whoever comes anew begins no lower. */
  #forgetIdle(tenant: string): void {
    if (this.#isIdle(tenant) && this.#tenants.of(tenant) <= this.#tenants.floor) this.forget(tenant);
    if (this.#tenants.served.size <= 2 * (this.#running.size + this.#line.size) + SPARE_COUNTERS) return;
    // While nobody waits there is nothing to be shared, and who is away may begin anew with everybody else.
    const floor = this.#line.size === 0 ? Number.POSITIVE_INFINITY : this.#tenants.floor;
    for (const [other, served] of this.#tenants.served) {
      if (served <= floor && this.#isIdle(other)) this.forget(other);
    }
  }

  #isIdle(tenant: string): boolean {
    return !this.#running.has(tenant) && !this.#line.has(tenant);
  }

  #waitMs(position: number): number {
    return Math.max(1, Math.ceil(((position + 1) * this.#averageMs) / Math.max(1, this.#options.slots)));
  }
}

function least(values: Iterable<number>): number {
  let found = Number.POSITIVE_INFINITY;
  for (const value of values) found = Math.min(found, value);
  return found === Number.POSITIVE_INFINITY ? 0 : found;
}
