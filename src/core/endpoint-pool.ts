/**
 * The endpoints of one model: which of them a call goes to, with health, a circuit breaker, and joining and leaving
 * without a restart. Deterministic and without I/O; the clock is an argument.
 */
export interface Endpoint {
  readonly id: string;
  readonly url: string;
  /** Calls that may run there at once. */
  readonly maxInFlight: number;
  readonly addedAtMs: number;
  /** Leaving: no new call goes there, those that run end. */
  readonly isLeaving: boolean;
}

/** What is remembered of an endpoint's failures. */
export interface Breaker {
  readonly endpointId: string;
  /** In a row. */
  readonly failures: number;
  /** Until then nothing is sent there; afterwards one call tries it. */
  readonly openUntilMs: number;
  /** How long it was opened last. */
  readonly openedForMs: number;
}

export type EndpointState = "closed" | "open" | "half_open" | "leaving";
export type CallOutcome = "ended" | "failed" | "busy";

/** A single lost connection is no outage, five in a row are. */
const FAILURES_TO_OPEN = 5;
/** Long enough for a restart, short enough to be missed by nobody. */
const FIRST_OPEN_MS = 5_000;
const LONGEST_OPEN_MS = 60_000;

interface Member {
  endpoint: Endpoint;
  breaker: Breaker;
  readonly calls: Set<string>;
}

export class EndpointPool {
  readonly #members = new Map<string, Member>();
  readonly #dirty = new Set<string>();

  /** @param running calls that were under way, by endpoint */
  static restore(
    endpoints: readonly { readonly endpoint: Endpoint; readonly breaker: Breaker }[],
    running: readonly { readonly callId: string; readonly endpointId: string }[],
  ): EndpointPool {
    const pool = new EndpointPool();
    for (const { endpoint, breaker } of endpoints) {
      pool.#members.set(endpoint.id, { endpoint, breaker, calls: new Set() });
    }
    for (const { callId, endpointId } of running) pool.#members.get(endpointId)?.calls.add(callId);
    return pool;
  }

  get size(): number {
    return this.#members.size;
  }

  list(
    nowMs: number,
  ): (Endpoint & { readonly state: EndpointState; readonly inFlight: number; readonly failures: number })[] {
    return [...this.#members.values()].map((member) => ({
      ...member.endpoint,
      state: stateOf(member, nowMs),
      inFlight: member.calls.size,
      failures: member.breaker.failures,
    }));
  }

  /** Replaces the one of the same id, whose calls and failures stay. */
  add(endpoint: Endpoint): void {
    const known = this.#members.get(endpoint.id);
    if (known) known.endpoint = endpoint;
    else this.#members.set(endpoint.id, { endpoint, breaker: healthy(endpoint.id), calls: new Set() });
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
   * The one with most room in proportion among those that may be called.
   * @param except endpoints that this call has tried already
   */
  choose(callId: string, except: readonly string[], nowMs: number): Endpoint | undefined {
    let best: Member | undefined;
    for (const member of this.#members.values()) {
      if (except.includes(member.endpoint.id) || roomOf(member, nowMs) < 1) continue;
      if (!best || loadOf(member) < loadOf(best)) best = member;
    }
    best?.calls.add(callId);
    return best?.endpoint;
  }

  /**
   * How a call ended there. `failed` counts towards the breaker, `busy` lets the endpoint rest without a blame,
   * anything else shows that it is well. A second end is none.
   */
  done(callId: string, endpointId: string, outcome: CallOutcome, nowMs: number, restMs = 1_000): void {
    const member = this.#members.get(endpointId);
    if (!member?.calls.delete(callId)) return;
    const { breaker } = member;
    if (outcome === "ended") {
      if (breaker.failures > 0 || breaker.openUntilMs > 0) this.#set(member, healthy(endpointId));
    } else if (outcome === "busy") {
      this.#set(member, { ...breaker, openUntilMs: Math.max(breaker.openUntilMs, nowMs + restMs) });
    } else this.#fail(member, nowMs);
    this.#dropIfGone(endpointId, member);
  }

  /** Calls that may run now, those that do included: what a dispatcher shares. */
  capacity(nowMs: number): number {
    let capacity = 0;
    for (const member of this.#members.values()) capacity += member.calls.size + Math.max(0, roomOf(member, nowMs));
    return capacity;
  }

  /** When the next breaker may be tried; undefined while none is open. */
  nextDueMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const { breaker, endpoint } of this.#members.values()) {
      if (endpoint.isLeaving || breaker.openUntilMs <= nowMs) continue;
      next = Math.min(next ?? breaker.openUntilMs, breaker.openUntilMs);
    }
    return next;
  }

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

  #fail(member: Member, nowMs: number): void {
    const { breaker } = member;
    const failures = breaker.failures + 1;
    const wasTrial = breaker.openedForMs > 0;
    // A failure of a call that began before it was opened says nothing new.
    const opens = (wasTrial || failures >= FAILURES_TO_OPEN) && breaker.openUntilMs <= nowMs;
    const openedForMs = wasTrial ? Math.min(LONGEST_OPEN_MS, breaker.openedForMs * 2) : FIRST_OPEN_MS;
    this.#set(member, { ...breaker, failures, ...(opens ? { openedForMs, openUntilMs: nowMs + openedForMs } : {}) });
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

const healthy = (endpointId: string): Breaker => ({ endpointId, failures: 0, openUntilMs: 0, openedForMs: 0 });

function stateOf({ endpoint, breaker }: Member, nowMs: number): EndpointState {
  if (endpoint.isLeaving) return "leaving";
  if (breaker.openUntilMs > nowMs) return "open";
  return breaker.openedForMs > 0 ? "half_open" : "closed";
}

/** Calls that may be sent there now: to a half-open one a single trial. */
function roomOf(member: Member, nowMs: number): number {
  switch (stateOf(member, nowMs)) {
    case "closed":
      return member.endpoint.maxInFlight - member.calls.size;
    case "half_open":
      return 1 - member.calls.size;
    default:
      return 0;
  }
}

const loadOf = ({ calls, endpoint }: Member) => calls.size / endpoint.maxInFlight;
