/**
 * The endpoints of one model: which of them a call goes to, with health, a circuit breaker, and joining and leaving
 * without a restart. Deterministic and without I/O; the clock is an argument.
 */
export interface Endpoint {
  readonly id: string;
  readonly url: string;
  /** Sequences that may run there at once: a call runs as many as it has slots. */
  readonly maxInFlight: number;
  readonly addedAtMs: number;
  /** Leaving: no new call goes there, those that run end. */
  readonly isLeaving: boolean;
}

/** What is remembered of an endpoint's failures. One that never failed has nothing to remember, and is not written. */
export interface Breaker {
  readonly endpointId: string;
  /** In a row. */
  readonly failures: number;
  /** Until then nothing is sent there; afterwards one call tries it. */
  readonly openUntilMs: number;
  /** How long it was opened last; 0: it is closed. */
  readonly openedForMs: number;
  /** The one call that tries an endpoint whose time is over, while it runs. */
  readonly trialCallId: string | null;
  /** Until then it has no room, by its own word; nothing is wrong with it. */
  readonly restUntilMs: number;
  /** While it is closed: calls that ended since a failure not long ago, that one included. */
  readonly recent: { readonly sinceMs: number; readonly calls: number; readonly failed: number } | null;
}
/** As it was stored, maybe by an earlier version, which knew less. */
export type StoredBreaker = Pick<Breaker, "endpointId" | "failures" | "openUntilMs" | "openedForMs"> & Partial<Breaker>;

export type EndpointState = "closed" | "open" | "half_open" | "leaving";
/** `failed`: no connection, a timeout, a 5xx, a stream that broke. `busy`: a 429. `ended`: all else, whatever came of it. */
export type CallOutcome = "ended" | "failed" | "busy";

/** A single lost connection is no outage, five in a row are. */
const FAILURES_TO_OPEN = 5;
/** An endpoint that fails every other call never fails five in a row; yet half of its callers wait for nothing. */
const FAILED_SHARE_TO_OPEN = 0.5;
/** Fewer calls than this say nothing about a share. */
const CALLS_TO_JUDGE = 20;
/** An outage of half a minute ago says nothing about now. */
const RECENT_MS = 30_000;
/** Long enough for a restart, short enough to be missed by nobody. */
const FIRST_OPEN_MS = 5_000;
/** One that is down for hours costs one call a minute, and is found within a minute once it is back. */
const LONGEST_OPEN_MS = 60_000;
/** Of a busy endpoint that does not say for how long. */
const BUSY_REST_MS = 1_000;

interface Member {
  endpoint: Endpoint;
  breaker: Breaker;
  /** Calls that run there, each with its sequences. */
  readonly calls: Map<string, number>;
}

export class EndpointPool {
  readonly #members = new Map<string, Member>();
  readonly #dirty = new Set<string>();

  /** From what {@link takeDirty} handed out. @param running calls that were under way, by endpoint */
  static restore(
    endpoints: readonly { readonly endpoint: Endpoint; readonly breaker: StoredBreaker }[],
    running: readonly { readonly callId: string; readonly endpointId: string; readonly sequences?: number }[],
  ): EndpointPool {
    const pool = new EndpointPool();
    for (const { endpoint, breaker } of endpoints) {
      const member = { endpoint, breaker: { ...healthy(endpoint.id), ...breaker }, calls: new Map<string, number>() };
      pool.#members.set(endpoint.id, member);
    }
    for (const { callId, endpointId, sequences = 1 } of running)
      pool.#members.get(endpointId)?.calls.set(callId, sequences);
    for (const [id, member] of pool.#members) {
      const { breaker, calls } = member;
      // A trial that nobody knows of any more will never end: the next call is the trial.
      if (breaker.trialCallId !== null && !calls.has(breaker.trialCallId))
        pool.#set(member, { ...breaker, trialCallId: null });
      pool.#dropIfGone(id, member);
    }
    return pool;
  }

  get size(): number {
    return this.#members.size;
  }

  /** In the order in which they joined. */
  list(
    nowMs: number,
  ): (Endpoint & { readonly state: EndpointState; readonly inFlight: number; readonly failures: number })[] {
    return [...this.#members.values()].sort(byJoining).map((member) => ({
      ...member.endpoint,
      state: stateOf(member, nowMs),
      inFlight: inFlightOf(member),
      failures: member.breaker.failures,
    }));
  }

  /** Replaces the one of the same id, whose calls and failures stay. */
  add(endpoint: Endpoint): void {
    const known = this.#members.get(endpoint.id);
    if (known) known.endpoint = endpoint;
    else this.#members.set(endpoint.id, { endpoint, breaker: healthy(endpoint.id), calls: new Map() });
    this.#dirty.add(endpoint.id);
  }

  /** Lets one leave. @returns false where there is none */
  remove(id: string): boolean {
    const member = this.#members.get(id);
    if (!member) return false;
    member.endpoint = { ...member.endpoint, isLeaving: true };
    this.#dirty.add(id);
    this.#dropIfGone(id, member);
    return true;
  }

  /**
   * The one with most room in proportion among those that may be called; of several, the one that joined first. The
   * call holds its place there until {@link done}.
   * @param except endpoints that this call has tried already
   * @param sequences that the call would like to run; where no endpoint has room for all, the one with most room takes
   * as many as it can, see {@link sequencesOf}
   * @returns undefined where none has room
   */
  choose(callId: string, except: readonly string[], nowMs: number, sequences = 1): Endpoint | undefined {
    let best: { readonly member: Member; readonly fits: number } | undefined;
    for (const member of this.#members.values()) {
      const fits = Math.min(sequences, roomOf(member, nowMs));
      if (except.includes(member.endpoint.id) || member.calls.has(callId) || fits < 1) continue;
      const order =
        best && (best.fits - fits || loadOf(member) - loadOf(best.member) || byJoining(member, best.member));
      if (order === undefined || order < 0) best = { member, fits };
    }
    if (!best) return undefined;
    const { member, fits } = best;
    if (stateOf(member, nowMs) === "half_open") this.#set(member, { ...member.breaker, trialCallId: callId });
    member.calls.set(callId, fits);
    return member.endpoint;
  }

  /** That a call may run at an endpoint; 0 where it does not run. */
  sequencesOf(callId: string, endpointId: string): number {
    return this.#members.get(endpointId)?.calls.get(callId) ?? 0;
  }

  /**
   * How a call ended there. `failed` counts towards the breaker, `busy` lets the endpoint rest without a blame,
   * anything else shows that it is well. A second end is none.
   * @param restMs how long a busy one asked to be left alone
   */
  done(callId: string, endpointId: string, outcome: CallOutcome, nowMs: number, restMs = BUSY_REST_MS): void {
    const member = this.#members.get(endpointId);
    if (!member?.calls.delete(callId)) return;
    const { breaker } = member;
    const judged =
      outcome === "busy" ? rested(breaker, callId, nowMs + restMs) : judge(breaker, callId, outcome, nowMs);
    if (judged !== breaker) this.#set(member, judged);
    this.#dropIfGone(endpointId, member);
  }

  /** Sequences that may run now, those that do included, wherever they run: what a dispatcher shares. */
  capacity(nowMs: number): number {
    let capacity = 0;
    for (const member of this.#members.values()) capacity += inFlightOf(member) + Math.max(0, roomOf(member, nowMs));
    return capacity;
  }

  /** The most sequences that one more call may run now: all of them at one endpoint. */
  widest(nowMs: number): number {
    let widest = 0;
    for (const member of this.#members.values()) widest = Math.max(widest, roomOf(member, nowMs));
    return widest;
  }

  /** When the next one that is open or rests may be called; undefined while there is none. */
  nextDueMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const { breaker, endpoint } of this.#members.values()) {
      const dueMs = shutUntilMs(breaker);
      if (endpoint.isLeaving || dueMs <= nowMs) continue;
      next = Math.min(next ?? dueMs, dueMs);
    }
    return next;
  }

  /** What changed since it was last asked for, to be stored. */
  takeDirty(): {
    readonly upsert: { readonly endpoint: Endpoint; readonly breaker: Breaker }[];
    readonly remove: string[];
  } {
    const upsert: { endpoint: Endpoint; breaker: Breaker }[] = [];
    const remove: string[] = [];
    for (const id of this.#dirty) {
      const member = this.#members.get(id);
      if (member) upsert.push({ endpoint: member.endpoint, breaker: member.breaker });
      else remove.push(id);
    }
    this.#dirty.clear();
    return { upsert, remove };
  }

  #set(member: Member, breaker: Breaker): void {
    member.breaker = breaker;
    this.#dirty.add(breaker.endpointId);
  }

  #dropIfGone(id: string, { endpoint, calls }: Member): void {
    if (!endpoint.isLeaving || calls.size > 0) return;
    this.#members.delete(id);
    this.#dirty.add(id);
  }
}

const healthy = (endpointId: string): Breaker => ({
  ...{ endpointId, failures: 0, openUntilMs: 0, openedForMs: 0 },
  ...{ trialCallId: null, restUntilMs: 0, recent: null },
});

/** What is known of an endpoint after one of its calls. */
function judge(breaker: Breaker, callId: string, outcome: "ended" | "failed", nowMs: number): Breaker {
  if (breaker.trialCallId === callId) {
    return outcome === "failed"
      ? opened(breaker, nowMs)
      : { ...healthy(breaker.endpointId), restUntilMs: breaker.restUntilMs };
  }
  // Whoever began before it opened says nothing new, neither good nor bad: only a trial does.
  if (breaker.openedForMs > 0) return breaker;
  const recent = breaker.recent && nowMs - breaker.recent.sinceMs < RECENT_MS ? breaker.recent : null;
  if (outcome === "ended") {
    if (breaker.failures === 0 && !breaker.recent) return breaker;
    return { ...breaker, failures: 0, recent: recent && { ...recent, calls: recent.calls + 1 } };
  }
  const [calls, failed] = [(recent?.calls ?? 0) + 1, (recent?.failed ?? 0) + 1];
  const isBadShare = calls >= CALLS_TO_JUDGE && failed / calls >= FAILED_SHARE_TO_OPEN;
  if (isBadShare || breaker.failures + 1 >= FAILURES_TO_OPEN) return opened(breaker, nowMs);
  return { ...breaker, failures: breaker.failures + 1, recent: { sinceMs: recent?.sinceMs ?? nowMs, calls, failed } };
}

/** It failed once too often: left alone, and for twice as long when that was its trial. */
function opened(breaker: Breaker, nowMs: number): Breaker {
  const openedForMs = Math.min(LONGEST_OPEN_MS, breaker.openedForMs * 2 || FIRST_OPEN_MS);
  const openUntilMs = nowMs + openedForMs;
  return { ...breaker, failures: breaker.failures + 1, openedForMs, openUntilMs, trialCallId: null };
}

/** It has no room. A trial that was told so has found out nothing: after the rest another call tries. */
function rested(breaker: Breaker, callId: string, untilMs: number): Breaker {
  const trialCallId = breaker.trialCallId === callId ? null : breaker.trialCallId;
  return { ...breaker, trialCallId, restUntilMs: Math.max(breaker.restUntilMs, untilMs) };
}

const shutUntilMs = ({ openUntilMs, restUntilMs }: Breaker) => Math.max(openUntilMs, restUntilMs);

function stateOf({ endpoint, breaker }: Member, nowMs: number): EndpointState {
  if (endpoint.isLeaving) return "leaving";
  if (shutUntilMs(breaker) > nowMs) return "open";
  return breaker.openedForMs > 0 ? "half_open" : "closed";
}

/** Sequences that may be sent there now: to a half-open one a single trial, beside what still runs from before. */
function roomOf(member: Member, nowMs: number): number {
  const room = member.endpoint.maxInFlight - inFlightOf(member);
  switch (stateOf(member, nowMs)) {
    case "closed":
      return room;
    case "half_open":
      return member.breaker.trialCallId === null ? Math.min(1, room) : 0;
    case "open":
    case "leaving":
      return 0;
  }
}

function inFlightOf({ calls }: Member): number {
  let inFlight = 0;
  for (const sequences of calls.values()) inFlight += sequences;
  return inFlight;
}

const loadOf = (member: Member) => inFlightOf(member) / member.endpoint.maxInFlight;

/** The same before and after a restart, whatever order they were read in. */
const byJoining = ({ endpoint: a }: Member, { endpoint: b }: Member) =>
  a.addedAtMs - b.addedAtMs || (a.id < b.id ? -1 : Number(a.id > b.id));
