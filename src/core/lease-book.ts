import { DRAW_MS, type DrawCost } from "./gate-leases";

/** A lease as its isolate holds it. @typeParam X what the grant said besides; opaque here */
export interface HeldLease<X> extends DrawCost {
  readonly id: string;
  readonly draws: number;
  readonly extra: X;
}

interface Open<X> {
  readonly name: string;
  readonly lease: HeldLease<X>;
  readonly untilMs: number;
  left: { draws: number; tokens: number; microdollars: number };
  /** Calls that drew on it and that the gate has not confirmed as settled. */
  readonly running: Map<string, DrawCost>;
  isClosed: boolean;
}

/** What is known of a name's traffic: how much to ask for next time. */
interface Habit {
  readonly askedAtMs: number;
  readonly wanted: number;
}

/** Names that are remembered; the one that was asked for longest ago is forgotten first. */
const MAX_NAMES = 10_000;

/**
 * What one isolate may admit by itself: leases that its tenants' gates gave it, each for calls of one name (tenant,
 * key, model, tier). Synchronous, so no two calls ever draw the same; a lease is data, never a promise. Pure: the
 * isolate's clock is an argument.
 */
export class LeaseBook<X> {
  readonly #current = new Map<string, Open<X>>(); // by name
  readonly #open = new Map<string, Open<X>>(); // by lease id, until returned and settled
  readonly #habits = new Map<string, Habit>();

  /** @param maxDraws of one lease; 0 asks for none */
  constructor(readonly maxDraws: number) {}

  /**
   * Draws for a call, if there is a lease with room that may still be drawn on.
   * @param costOf the call's worst case under the lease's terms; undefined where they do not fit the call
   */
  draw(
    name: string,
    requestId: string,
    costOf: (extra: X, left: DrawCost) => DrawCost | undefined,
    nowMs: number,
  ): { readonly leaseId: string; readonly cost: DrawCost; readonly extra: X } | undefined {
    const open = this.#current.get(name);
    if (!open || open.isClosed || nowMs >= open.untilMs || open.left.draws < 1) return undefined;
    const cost = costOf(open.lease.extra, open.left);
    if (!cost || cost.tokens > open.left.tokens || cost.microdollars > open.left.microdollars) return undefined;
    open.left.draws--;
    open.left.tokens -= cost.tokens;
    open.left.microdollars -= cost.microdollars;
    open.running.set(requestId, cost);
    return { leaseId: open.lease.id, cost, extra: open.lease.extra };
  }

  /**
   * How many draws to ask for beside the call itself: none for a caller that comes now and then, twice as many as
   * last time for one whose lease was used up.
   */
  wanted(name: string, nowMs: number): number {
    if (this.maxDraws < 1) return 0;
    const known = this.#habits.get(name);
    const isBusy = known !== undefined && nowMs - known.askedAtMs < DRAW_MS;
    const wanted = isBusy ? Math.min(this.maxDraws, Math.max(1, known.wanted * 2)) : 0;
    this.#habits.delete(name);
    this.#habits.set(name, { askedAtMs: nowMs, wanted });
    const [oldest] = this.#habits.keys();
    if (this.#habits.size > MAX_NAMES && oldest !== undefined) this.#habits.delete(oldest);
    return wanted;
  }

  /**
   * Keeps a lease that was asked for at `askedAtMs`.
   * @returns how long it may be drawn on from now; then {@link close} it
   */
  put(name: string, lease: HeldLease<X>, askedAtMs: number, nowMs: number): number {
    const { draws, tokens, microdollars } = lease;
    const left = { draws, tokens, microdollars };
    const open = { name, lease, untilMs: askedAtMs + DRAW_MS, left, running: new Map(), isClosed: false };
    this.#open.set(lease.id, open);
    this.#current.set(name, open);
    return Math.max(0, open.untilMs - nowMs);
  }

  /** The gate has confirmed that a call is settled. */
  settled(leaseId: string, requestId: string): void {
    const open = this.#open.get(leaseId);
    open?.running.delete(requestId);
    if (open?.isClosed && open.running.size === 0) this.#open.delete(leaseId);
  }

  /** A call never reached its model. @returns whether its draw went back here; else the gate must be told */
  release(leaseId: string, requestId: string): boolean {
    const open = this.#open.get(leaseId);
    const cost = open?.running.get(requestId);
    if (!open || !cost || open.isClosed) return false;
    open.running.delete(requestId);
    open.left.draws++;
    open.left.tokens += cost.tokens;
    open.left.microdollars += cost.microdollars;
    return true;
  }

  /** Nobody draws on it any more. @returns the calls that are under way, for the gate to keep their worst cases */
  close(leaseId: string): { readonly requestId: string; readonly cost: DrawCost }[] {
    const open = this.#open.get(leaseId);
    if (!open) return [];
    open.isClosed = true;
    if (this.#current.get(open.name) === open) this.#current.delete(open.name);
    const habit = this.#habits.get(open.name);
    // Half of it unused: ask for half next time.
    if (habit && open.left.draws * 2 >= open.lease.draws) {
      this.#habits.set(open.name, { ...habit, wanted: Math.floor(habit.wanted / 4) });
    }
    if (open.running.size === 0) this.#open.delete(leaseId);
    return [...open.running].map(([requestId, cost]) => ({ requestId, cost }));
  }
}
