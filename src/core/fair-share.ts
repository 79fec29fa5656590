import { Deadlines } from "./deadlines";

/**
 * Fair sharing of a scarce model by weighted virtual token counters (Sheng et al., "Fairness in Serving Large
 * Language Models", OSDI 2024), tenant first, then key inside the tenant, so that splitting into many keys gains
 * nothing. Work-conserving: no slot is free while somebody waits. Deterministic and without I/O; the clock is an
 * argument.
 *
 * What is promised, as in the paper's theorem 4.4: with S slots, calls that cost at most C, and weights of at least
 * w, the counters of two who wait are never further apart than U = S × C / w; so in any interval in which both
 * always have something waiting their weighted service differs by at most 2 U.
 *
 * One thing differs from the paper: who was away comes back with up to `burst` of the service that it left to the
 * others, where the paper gives nothing. People ask in bursts, and one who asks for little would else wait behind a
 * flood with every call of a burst but the first. It is what the kernel's fair schedulers do for sleepers, and adds
 * `burst` to U. None is gained by coming and going: a counter only rises while others wait.
 *
 * Waits are bounded, however many newcomers there are. Newcomers start behind each other: the first one a burst below
 * the level of those who were there, each further one {@link NEWCOMER_STEP} of a burst above the one before it, and
 * none above those who wait. So once a call heads its key's queue, it is passed by at most
 * N = ⌈(burst + U) / step⌉ + 1 newcomers, where a step is burst / 32, at least 1 weighted token; and each of them, like
 * each of the K that were waiting or remembered when it came, has at most burst + U + C / w weighted tokens before it.
 * In grants: with calls of at least c weighted tokens, at most N for newcomers of one call each, and
 * K × (⌈(burst + U) / c⌉ + 1) for the others. The same holds for the keys of one tenant, in grants of that tenant.
 */
export interface FairRequest {
  readonly id: string;
  readonly tenant: string;
  readonly key: string;
  /** Of the tenant's plan, > 0: twice the weight, twice the service. */
  readonly weight: number;
  readonly inputTokens: number;
  /** That it would like to run at once, 1 or more; without it, one. */
  readonly sequences?: number;
  readonly giveUpAtMs: number;
}

/** A call that runs, the slots that it has, and what it has been charged with so far. */
export interface FairSlot {
  readonly id: string;
  readonly tenant: string;
  readonly key: string;
  readonly weight: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** That it may run at once, each in a slot; earlier versions, which knew one a call, stored none. */
  readonly sequences?: number;
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
  /** Sequences that may run at once, of all calls together. */
  readonly slots: number;
  /** Of one call, where that is less: its sequences all run at one endpoint. */
  readonly widest?: number;
  /** Requests that may wait; more are refused. */
  readonly queueLength: number;
  /** A slot's time without a sign of life. */
  readonly slotMs: number;
  /** Service that one who was away may catch up on, in weighted tokens; 0 or more. */
  readonly burst: number;
}

/** `ended`: the request was released or cancelled before; its question came late. */
export type RefusedFor = "queue_full" | "queue_timeout" | "ended";
export type FairVerdict =
  | { readonly verdict: "granted"; readonly slot: FairSlot }
  | { readonly verdict: "waiting"; readonly position: number }
  | { readonly verdict: "refused"; readonly reason: RefusedFor; readonly retryAfterMs: number };

/** An output token costs twice an input token, as in the paper. */
const INPUT_COST = 1;
const OUTPUT_COST = 2;
/**
 * About ten short questions and answers of a tenant of weight 4: what one who asks now and then sends at once. A
 * flood stands still for no longer than that takes.
 */
export const BURST = 2_048;
/** Part of a burst: 32 newcomers at once go before those who were there, further ones line up beside these. */
const NEWCOMER_STEP = 1 / 32;
/**
 * Idle tenants, and idle keys of a tenant, that are remembered for service above the level of those who wait. One that
 * is forgotten gains no more than it would by coming for the first time.
 */
const MOST_IDLE = 1_000;
/** Ids that are remembered after their end, so that a question which comes late takes no slot. */
const MOST_ENDED = 10_000;
/** A call that came to nothing had its slot all the same; were it free, a tenant could hold a slot with such for ever. */
const LEAST_COST = 1;
/** What a call is expected to take while nothing is known. */
const FIRST_GUESS_MS = 2_000;
const AVERAGE_WEIGHT = 0.1;
/** The wait estimate is rough, and who waits takes nothing from others: hopeless is so many times one's patience. */
const HOPELESS = 2;

interface Waiting extends FairRequest {
  readonly enqueuedAtMs: number;
  readonly position: number;
}

interface Running {
  readonly slot: FairSlot;
  readonly tenant: Tenant;
  readonly key: Key;
}

class Sharer {
  /** Weighted tokens. */
  served = 0;
  /** Of them the prompts of calls that run: how long they really were, the end of the call says. */
  held = 0;
  running = 0;
  /** It was served, now or before a restart; else nothing is stored of it. */
  isKnown = false;

  get certain(): number {
    return this.served - this.held;
  }
}

class Key extends Sharer {
  readonly line: Waiting[] = [];
}

class Tenant extends Sharer {
  readonly keys: Sharers<Key>;
  waiting = 0;
  weight = 1;

  constructor(burst: number) {
    super();
    this.keys = new Sharers(() => new Key(), burst);
  }
}

/** Those who share: tenants among each other, or keys inside a tenant. */
class Sharers<S extends Sharer> {
  readonly members = new Map<string, S>();
  /** Those with something waiting, in the order in which they came. */
  readonly line = new Map<string, S>();
  readonly #make: () => S;
  readonly #burst: number;
  #level = 0;
  /** Of the next newcomer. */
  #nextStart = Number.NEGATIVE_INFINITY;

  constructor(make: () => S, burst: number) {
    this.#make = make;
    this.#burst = burst;
  }

  of(name: string): S {
    const known = this.line.get(name) ?? this.members.get(name);
    if (known) return known;
    const made = this.#make();
    this.members.set(name, made);
    return made;
  }

  /**
   * One that had nothing waiting comes or returns: from its absence it keeps no more than the burst.
   * @returns whether that raised a counter that is stored
   */
  catchUp(name: string): boolean {
    if (this.line.has(name)) return false;
    const sharer = this.of(name);
    this.#observe();
    const lowest = this.#level - this.#burst;
    if (sharer.isKnown && sharer.certain >= lowest) return false;
    const start = Math.min(this.#highest(), Math.max(lowest, this.#nextStart));
    this.#nextStart = start + Math.max(LEAST_COST, NEWCOMER_STEP * this.#burst);
    sharer.served = start + sharer.held;
    return sharer.isKnown;
  }

  least(): S | undefined {
    let found: S | undefined;
    for (const sharer of this.line.values()) if (!found || sharer.served < found.served) found = sharer;
    return found;
  }

  /**
   * Forgets those whose counters say nothing any more: they were never served, would come back no lower, or nobody
   * waits, and all begin anew. Of the others the {@link MOST_IDLE} with the highest counters stay.
   * @returns their names
   */
  forgetIdle(): string[] {
    this.#observe();
    const level = this.#level - (this.line.size === 0 ? 0 : this.#burst);
    const idle = [...this.members].filter(([name, { running }]) => running === 0 && !this.line.has(name));
    const saysNothing = ({ isKnown, served }: S) => !isKnown || served < level;
    const forgotten = idle.filter(([, sharer]) => saysNothing(sharer)).map(([name]) => name);
    if (idle.length - forgotten.length > MOST_IDLE) {
      const rest = idle.filter(([, sharer]) => !saysNothing(sharer)).sort(([, a], [, b]) => a.served - b.served);
      forgotten.push(...rest.slice(0, rest.length - MOST_IDLE).map(([name]) => name));
    }
    for (const name of forgotten) this.members.delete(name);
    return forgotten;
  }

  /**
   * The level of those who are there: the least of those who wait. It never falls while anybody waits, so newcomers,
   * who start below it, do not lower it for each other. While nobody waits nothing is shared, and all begin anew
   * beside the one that had most. Prompts of calls that run do not count: one announced too large, or a call broken
   * off, would push a newcomer back for what nobody had.
   */
  #observe(): void {
    if (this.line.size === 0) {
      this.#level = 0;
      this.#nextStart = Number.NEGATIVE_INFINITY;
      for (const { certain } of this.members.values()) this.#level = Math.max(this.#level, certain);
      return;
    }
    let least = Number.POSITIVE_INFINITY;
    for (const { certain } of this.line.values()) least = Math.min(least, certain);
    this.#level = Math.max(this.#level, least);
  }

  /** Above it no newcomer starts: beside those who wait it is served in the order in which they came. */
  #highest(): number {
    if (this.line.size === 0) return this.#level;
    let highest = Number.NEGATIVE_INFINITY;
    for (const { served } of this.line.values()) highest = Math.max(highest, served);
    return highest;
  }
}

export class FairShare {
  #options: FairOptions;
  readonly #tenants: Sharers<Tenant>;
  readonly #waiting = new Map<string, Waiting>();
  readonly #running = new Map<string, Running>();
  /** Slots that are taken: sequences of the calls that run. */
  #inFlight = 0;
  readonly #ended = new Set<string>();
  readonly #slotDeadlines = new Deadlines();
  readonly #giveUps = new Deadlines();
  readonly #dirtyTenants = new Set<string>();
  readonly #dirtySlots = new Set<string>();
  /** Of a call, from its grant to its end; unknown until one has ended. */
  #averageMs: number | undefined;

  constructor(options: FairOptions) {
    this.#options = options;
    this.#tenants = new Sharers(() => new Tenant(options.burst), options.burst);
  }

  /** From what {@link takeDirty} persisted. Those who waited are gone: so are their callers. */
  static restore(
    stored: { readonly counters: readonly FairCounter[]; readonly slots: readonly FairSlot[] },
    options: FairOptions,
  ): FairShare {
    const share = new FairShare(options);
    for (const { tenant, key, served } of stored.counters) {
      const known = share.#tenants.of(tenant);
      const sharer = key === null ? known : known.keys.of(key);
      sharer.served = served;
      sharer.isKnown = true;
    }
    for (const slot of stored.slots) share.#enter(slot);
    share.#dirtySlots.clear();
    return share;
  }

  /**
   * A slot at once, a place in the line (how many are expected to go before), or a refusal with an estimate of the
   * wait: the line is full, or patience would end long before the turn comes. The same id again gets the same answer.
   * Who asks for several sequences gets as many of the slots that are free, at least one: it waits for no second one,
   * so no slot is free meanwhile, and nobody holds some while it waits for others.
   * @throws RangeError for a weight that is no number above 0
   */
  ask(request: FairRequest, nowMs: number): FairVerdict {
    const { id, tenant, weight } = request;
    const running = this.#running.get(id);
    if (running) return { verdict: "granted", slot: running.slot };
    const waiting = this.#waiting.get(id);
    if (waiting) return { verdict: "waiting", position: waiting.position };
    if (this.#ended.has(id)) return { verdict: "refused", reason: "ended", retryAfterMs: 0 };
    if (!(weight > 0 && weight < Number.POSITIVE_INFINITY))
      throw new RangeError(`nobody can have a weight of ${weight}`);
    if (this.#inFlight < this.#options.slots && this.#waiting.size === 0) {
      this.#catchUp(request);
      return { verdict: "granted", slot: this.#grant(request, nowMs) };
    }
    const position = this.#ahead(request);
    const retryAfterMs = this.#waitMs(position);
    // Each may have as many waiting as there are places left, so a flood never takes the last place from the others
    // (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998).
    const free = this.#options.queueLength - this.#waiting.size;
    const own = this.#tenants.line.get(tenant)?.waiting ?? 0;
    if (own >= free) return { verdict: "refused", reason: "queue_full", retryAfterMs };
    const hopelessMs = this.#averageMs === undefined ? 0 : retryAfterMs / HOPELESS;
    if (nowMs + hopelessMs >= request.giveUpAtMs) return { verdict: "refused", reason: "queue_timeout", retryAfterMs };
    this.#push({ ...request, enqueuedAtMs: nowMs, position });
    return { verdict: "waiting", position };
  }

  /** So many output tokens have come so far: they are charged, and the slot lives on. */
  progress(id: string, outputTokens: number, nowMs: number): boolean {
    const running = this.#running.get(id);
    if (!running) return false;
    const { slot } = running;
    const more = Math.max(0, outputTokens - slot.outputTokens);
    this.#charge(running, OUTPUT_COST * more);
    const deadlineMs = nowMs + this.#options.slotMs;
    this.#keep({ ...running, slot: { ...slot, outputTokens: slot.outputTokens + more, deadlineMs } });
    return true;
  }

  /** Its sequences run elsewhere now, where there is room for fewer: slots that it does not need are free. */
  narrow(id: string, sequences: number): void {
    const running = this.#running.get(id);
    if (!running || sequences >= sequencesOf(running.slot)) return;
    this.#inFlight -= sequencesOf(running.slot) - sequences;
    this.#keep({ ...running, slot: { ...running.slot, sequences } });
  }

  /** The slot of a call that runs. */
  slotOf(id: string): FairSlot | undefined {
    return this.#running.get(id)?.slot;
  }

  /**
   * Frees the slot; the charge becomes what was really taken. A second end is none; one of a call that never had a
   * slot keeps it from taking one later.
   */
  finish(id: string, used: { readonly inputTokens: number; readonly outputTokens: number }, nowMs: number): boolean {
    const running = this.#running.get(id);
    if (!running) {
      this.leave(id);
      return false;
    }
    const cost = Math.max(LEAST_COST, costOf(used));
    this.#charge(running, cost - costOf(running.slot));
    this.#free(running);
    const tookMs = nowMs - running.slot.grantedAtMs;
    const beforeMs = this.#averageMs ?? tookMs;
    this.#averageMs = beforeMs + AVERAGE_WEIGHT * (tookMs - beforeMs);
    return true;
  }

  /** A request goes away that waits, or whose question is still on its way. @returns false for one that does not wait */
  leave(id: string): boolean {
    const waiting = this.#waiting.get(id);
    if (!this.#running.has(id)) this.#end(id);
    if (!waiting) return false;
    this.#take(waiting);
    this.#forgetIdle(waiting.tenant);
    return true;
  }

  /** Frees slots of which nothing was heard, and names those whose patience has ended. */
  expire(nowMs: number): { readonly freed: FairSlot[]; readonly gaveUp: string[] } {
    const freed: FairSlot[] = [];
    for (const id of this.#slotDeadlines.takeDue(nowMs)) {
      const running = this.#running.get(id);
      if (!running) continue;
      this.#free(running);
      freed.push(running.slot);
    }
    const gaveUp = this.#giveUps.takeDue(nowMs);
    for (const id of gaveUp) this.leave(id);
    return { freed, gaveUp };
  }

  /** As far as there are slots: the tenant served least, of it the key served least, of it the first that came. */
  grantWaiting(nowMs: number): FairSlot[] {
    const granted: FairSlot[] = [];
    for (let slot = this.grantNext(nowMs); slot; slot = this.grantNext(nowMs)) granted.push(slot);
    return granted;
  }

  /** The next one of {@link grantWaiting}, for who has to look for room for each. */
  grantNext(nowMs: number): FairSlot | undefined {
    if (this.#inFlight >= this.#options.slots) return undefined;
    const next = this.#tenants.least()?.keys.least()?.line[0];
    if (!next) return undefined;
    const slot = this.#grant(next, nowMs);
    this.#take(next);
    return slot;
  }

  /** Endpoints joined or left. Calls that run go on; new ones come when there is room again. */
  resize(slots: number, widest = slots): void {
    this.#options = { ...this.#options, slots, widest };
  }

  nextDueMs(): number | undefined {
    const next = Math.min(this.#slotDeadlines.nextMs() ?? Infinity, this.#giveUps.nextMs() ?? Infinity);
    return next === Infinity ? undefined : next;
  }

  /** What an autoscaler follows. */
  metrics(nowMs: number): { readonly queueDepth: number; readonly oldestWaitMs: number; readonly inFlight: number } {
    let oldest = nowMs;
    for (const { enqueuedAtMs } of this.#waiting.values()) oldest = Math.min(oldest, enqueuedAtMs);
    return { queueDepth: this.#waiting.size, oldestWaitMs: nowMs - oldest, inFlight: this.#inFlight };
  }

  /** Weighted service of a tenant so far, as far as it is remembered. */
  servedOf(tenant: string): number {
    return this.#tenants.members.get(tenant)?.served ?? 0;
  }

  /** Forgets a tenant: its counters, not its calls. For the end of a tenant alone. */
  forget(tenant: string): void {
    this.#tenants.members.delete(tenant);
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
      const running = this.#running.get(id);
      if (running) slots.upsert.push(running.slot);
      else slots.remove.push(id);
    }
    this.#dirtyTenants.clear();
    this.#dirtySlots.clear();
    return { tenants, slots };
  }

  #countersOf(tenant: string): FairCounter[] {
    const known = this.#tenants.members.get(tenant);
    if (!known?.isKnown) return [];
    const served = [...known.keys.members].filter(([, { isKnown }]) => isKnown);
    const keys = served.map(([key, { served }]) => ({ tenant, key, served }));
    return [{ tenant, key: null, served: known.served }, ...keys];
  }

  #catchUp({ tenant, key }: FairRequest): void {
    const { keys } = this.#tenants.of(tenant);
    const isRaised = [this.#tenants.catchUp(tenant), keys.catchUp(key)].includes(true);
    if (isRaised) this.#dirtyTenants.add(tenant);
  }

  #push(waiting: Waiting): void {
    this.#catchUp(waiting);
    const tenant = this.#tenants.of(waiting.tenant);
    const key = tenant.keys.of(waiting.key);
    this.#tenants.line.set(waiting.tenant, tenant);
    tenant.keys.line.set(waiting.key, key);
    tenant.waiting++;
    tenant.weight = waiting.weight;
    key.line.push(waiting);
    this.#waiting.set(waiting.id, waiting);
    this.#giveUps.set(waiting.id, waiting.giveUpAtMs);
  }

  #take(waiting: Waiting): void {
    this.#waiting.delete(waiting.id);
    this.#giveUps.delete(waiting.id);
    const tenant = this.#tenants.line.get(waiting.tenant);
    const key = tenant?.keys.line.get(waiting.key);
    if (!tenant || !key) return;
    key.line.splice(key.line.indexOf(waiting), 1);
    if (key.line.length === 0) tenant.keys.line.delete(waiting.key);
    if (--tenant.waiting === 0) this.#tenants.line.delete(waiting.tenant);
  }

  #grant({ id, tenant, key, weight, inputTokens, sequences = 1 }: FairRequest, nowMs: number): FairSlot {
    const { slots, widest = slots, slotMs } = this.#options;
    const room = Math.max(1, Math.min(sequences, widest, slots - this.#inFlight));
    const times = { grantedAtMs: nowMs, deadlineMs: nowMs + slotMs };
    const slot: FairSlot = { id, tenant, key, weight, inputTokens, outputTokens: 0, sequences: room, ...times };
    this.#charge(this.#enter(slot), costOf(slot));
    return slot;
  }

  #enter(slot: FairSlot): Running {
    const tenant = this.#tenants.of(slot.tenant);
    const running = { slot, tenant, key: tenant.keys.of(slot.key) };
    this.#inFlight += sequencesOf(slot);
    for (const sharer of [running.tenant, running.key]) {
      sharer.running++;
      sharer.held += (INPUT_COST * slot.inputTokens) / slot.weight;
    }
    this.#keep(running);
    return running;
  }

  #charge({ slot, tenant, key }: Running, cost: number): void {
    for (const sharer of [tenant, key]) {
      sharer.served += cost / slot.weight;
      sharer.isKnown = true;
    }
    this.#dirtyTenants.add(slot.tenant);
  }

  #keep(running: Running): void {
    const { id, deadlineMs } = running.slot;
    this.#running.set(id, running);
    this.#slotDeadlines.set(id, deadlineMs);
    this.#dirtySlots.add(id);
  }

  #end(id: string): void {
    const [oldest] = this.#ended;
    if (this.#ended.size >= MOST_ENDED && oldest !== undefined) this.#ended.delete(oldest);
    this.#ended.add(id);
  }

  #free({ slot, tenant, key }: Running): void {
    this.#running.delete(slot.id);
    this.#inFlight -= sequencesOf(slot);
    this.#end(slot.id);
    this.#slotDeadlines.delete(slot.id);
    this.#dirtySlots.add(slot.id);
    for (const sharer of [tenant, key]) {
      sharer.running--;
      sharer.held -= (INPUT_COST * slot.inputTokens) / slot.weight;
    }
    this.#forgetIdle(slot.tenant);
  }

  #forgetIdle(tenant: string): void {
    const keys = this.#tenants.members.get(tenant)?.keys.forgetIdle() ?? [];
    if (keys.length > 0) this.#dirtyTenants.add(tenant);
    for (const forgotten of this.#tenants.forgetIdle()) this.#dirtyTenants.add(forgotten);
  }

  /** How many would go before one more call of this tenant, were all calls alike. */
  #ahead({ tenant, weight }: FairRequest): number {
    const own = this.#tenants.line.get(tenant)?.waiting ?? 0;
    let ahead = own;
    for (const [name, other] of this.#tenants.line) {
      if (name !== tenant) ahead += Math.min(other.waiting, Math.ceil(((own + 1) * other.weight) / weight));
    }
    return ahead;
  }

  #waitMs(ahead: number): number {
    const callMs = this.#averageMs ?? FIRST_GUESS_MS;
    return Math.max(1, Math.ceil(((ahead + 1) * callMs) / Math.max(1, this.#options.slots)));
  }
}

const sequencesOf = ({ sequences = 1 }: FairSlot) => sequences;

const costOf = (tokens: { readonly inputTokens: number; readonly outputTokens: number }) =>
  INPUT_COST * tokens.inputTokens + OUTPUT_COST * tokens.outputTokens;
