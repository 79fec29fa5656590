import { Deadlines } from "./deadlines";
import { type Counted, type Draw, type RateWindows, worstCaseMicrodollars } from "./rate-windows";

/**
 * How long an isolate may draw on a lease, by its own clock from when it sent the call: whatever is revoked or
 * lowered meanwhile is in force everywhere a second later.
 */
export const DRAW_MS = 800;

/**
 * The return of a lease may take so much longer: a busy isolate on the other side of the world needs its time. Then it
 * is gone, or as good as.
 */
export const LATE_MS = 1_600;

/** What one call takes of a lease at worst. */
export interface DrawCost {
  readonly tokens: number;
  /** 0 while nothing is priced. */
  readonly microdollars: number;
}

/** A prepaid slice that an isolate draws on without asking: counted before it leaves the gate. */
export interface Lease<F> {
  readonly id: string;
  /** What its calls have in common. */
  readonly facts: F;
  readonly grantedAtMs: number;
  /** What is neither settled nor returned by then is booked at its worst case: silence means spent. */
  readonly expiresAtMs: number;
  /** Where it was counted; requests too, for those that are returned unused. */
  readonly counted: Counted;
  readonly requestsCounted: readonly { readonly rule: string; readonly bucketMs: number }[];
  /** Calls, tokens and micro-dollars that are neither settled nor returned. */
  readonly draws: number;
  readonly tokens: number;
  readonly microdollars: number;
  /** Draws that ended without a record while the lease was out. Missing where there are none. */
  readonly released?: readonly string[];
  /** Draws that were under way when it was returned and have not ended; missing while it is out. */
  readonly running?: readonly string[];
}

/** A call that draws on a lease, and its worst case. */
export interface RunningDraw extends DrawCost {
  readonly requestId: string;
}

/**
 * The leases of one tenant that are out. Deterministic and without I/O; it counts in the windows of the admission
 * book it belongs to.
 */
export class GateLeases<F> {
  readonly #leases = new Map<string, Lease<F>>();
  readonly #expiries = new Deadlines();
  readonly #dirty = new Set<string>();

  /** Puts back what {@link takeDirty} persisted. */
  restore(leases: readonly Lease<F>[]): void {
    for (const lease of leases) this.#keep(lease);
    this.#dirty.clear();
  }

  get(id: string): Lease<F> | undefined {
    return this.#leases.get(id);
  }

  /** Slots that are taken by draws nobody has settled or returned. */
  get slots(): number {
    let slots = 0;
    for (const { draws } of this.#leases.values()) slots += draws;
    return slots;
  }

  /** Whether a lease that counts in this rule is due back only later than now. */
  isOut(rule: string, nowMs: number): boolean {
    for (const { grantedAtMs, counted, requestsCounted } of this.#leases.values()) {
      if (nowMs >= grantedAtMs + DRAW_MS + LATE_MS) continue;
      if (requestsCounted.some((at) => at.rule === rule) || counted.some((at) => at.rule === rule)) return true;
    }
    return false;
  }

  all(): IterableIterator<Lease<F>> {
    return this.#leases.values();
  }

  /** Counts so many draws like this one where their draw time ends, and gives them out. */
  grant(id: string, facts: F, draw: Draw, draws: number, rates: RateWindows, nowMs: number, holdMs: number): Lease<F> {
    const { counted, requestsCounted } = rates.countLease(draw, draws, nowMs + DRAW_MS);
    const { tokens, microdollars } = costOfDraw(draw);
    const lease: Lease<F> = {
      ...{ id, facts, counted, requestsCounted, draws },
      ...{ tokens: tokens * draws, microdollars: microdollars * draws },
      ...{ grantedAtMs: nowMs, expiresAtMs: nowMs + holdMs },
    };
    this.#keep(lease);
    return lease;
  }

  /**
   * One of its calls has ended. What it did not use of its worst case is given back where the lease was counted.
   * @param used null for a call that never ran: nobody records it, so the lease remembers that it ended
   * @returns undefined where that call ended before, or the lease is over: it is booked already
   */
  settle(id: string, draw: RunningDraw, used: DrawCost | null, rates: RateWindows): Lease<F> | undefined {
    const lease = this.#leases.get(id);
    if (!lease || lease.draws < 1 || !isOpen(lease, draw.requestId)) return undefined;
    if (draw.tokens > lease.tokens || draw.microdollars > lease.microdollars) return undefined;
    // With its last draw, what none of them needed goes back too.
    const rest = lease.draws === 1 ? lease : draw;
    const unused = {
      tokens: rest.tokens - Math.min(draw.tokens, Math.max(0, used?.tokens ?? 0)),
      microdollars: rest.microdollars - Math.min(draw.microdollars, Math.max(0, used?.microdollars ?? 0)),
    };
    rates.giveBackUnused(lease.counted, unused);
    this.#shrink(ended(lease, draw.requestId, used === null), 1, draw);
    return lease;
  }

  /**
   * The isolate draws no more: what is not under way there goes back, as requests too. Said twice, it is said once.
   * @param running calls that are under way and will be settled
   */
  giveBack(id: string, running: readonly RunningDraw[], rates: RateWindows): void {
    const lease = this.#leases.get(id);
    if (!lease || lease.running) return;
    const open = running.filter(({ requestId }) => isOpen(lease, requestId));
    const kept = open.reduce(
      (sum, cost) => ({ tokens: sum.tokens + cost.tokens, microdollars: sum.microdollars + cost.microdollars }),
      { tokens: 0, microdollars: 0 },
    );
    const unused = {
      draws: Math.max(0, lease.draws - open.length),
      tokens: Math.max(0, lease.tokens - kept.tokens),
      microdollars: Math.max(0, lease.microdollars - kept.microdollars),
    };
    rates.giveBackUnused(lease.counted, unused);
    rates.giveBackRequests(lease.requestsCounted, unused.draws);
    const { released: _, ...rest } = lease;
    this.#shrink({ ...rest, running: open.map(({ requestId }) => requestId) }, unused.draws, unused);
  }

  /** Leases of which nobody has spoken in time. They stay counted at their worst case. */
  expire(nowMs: number): Lease<F>[] {
    const overdue: Lease<F>[] = [];
    for (const id of this.#expiries.takeDue(nowMs)) {
      const lease = this.#leases.get(id);
      if (!lease) continue;
      overdue.push(lease);
      this.#forget(id);
    }
    return overdue;
  }

  nextDueMs(): number | undefined {
    return this.#expiries.nextMs();
  }

  takeDirty(): { readonly upsert: Lease<F>[]; readonly remove: string[] } {
    const upsert: Lease<F>[] = [];
    const remove: string[] = [];
    for (const id of this.#dirty) {
      const lease = this.#leases.get(id);
      if (lease) upsert.push(lease);
      else remove.push(id);
    }
    this.#dirty.clear();
    return { upsert, remove };
  }

  #shrink(lease: Lease<F>, draws: number, { tokens, microdollars }: DrawCost): void {
    const left = { tokens: lease.tokens - tokens, microdollars: lease.microdollars - microdollars };
    if (lease.draws > draws) this.#keep({ ...lease, ...left, draws: lease.draws - draws });
    else this.#forget(lease.id);
  }

  #keep(lease: Lease<F>): void {
    this.#leases.set(lease.id, lease);
    this.#expiries.set(lease.id, lease.expiresAtMs);
    this.#dirty.add(lease.id);
  }

  #forget(id: string): void {
    this.#leases.delete(id);
    this.#expiries.delete(id);
    this.#dirty.add(id);
  }
}

/** Whether a call may still end on this lease: once, and after its return only as one that was named then. */
const isOpen = ({ released, running }: Lease<unknown>, requestId: string) =>
  running ? running.includes(requestId) : !released?.includes(requestId);

/** The lease after one of its calls has ended; those that are recorded need not be remembered here. */
function ended<F>(lease: Lease<F>, requestId: string, isReleased: boolean): Lease<F> {
  if (lease.running) return { ...lease, running: lease.running.filter((id) => id !== requestId) };
  return isReleased ? { ...lease, released: [...(lease.released ?? []), requestId] } : lease;
}

/** The worst case of one call. */
export function costOfDraw({
  promptTokens,
  outputTokens,
  choices,
  price,
}: Omit<Draw, "rates" | "outputLowerable">): DrawCost {
  const output = outputTokens * choices;
  return {
    tokens: promptTokens + output,
    microdollars: price ? worstCaseMicrodollars(price, promptTokens, output) : 0,
  };
}
