import { Deadlines } from "./deadlines";
import type { ServiceTier } from "./records";

export interface Waiter {
  readonly id: string;
  readonly class: ServiceTier;
  readonly enqueuedAtMs: number;
  readonly giveUpAtMs: number;
}

/** Waiting this long is worth one class. */
export const AGE_MS = 5_000;
const RANK: Readonly<Record<ServiceTier, number>> = { priority: 0, default: 1, flex: 2 };

interface Place<T> {
  readonly key: number;
  /** Between equal keys: first come, first served. */
  readonly arrival: number;
  waiter: T;
}

/**
 * A tenant's waiting line: classes with ageing. A waiter's place is its arrival plus {@link AGE_MS} for each class
 * below the first, so nobody starves, and the order of two waiters never changes. The caller bounds its length.
 *
 * Sorted rather than a heap: how many would go before a newcomer is a binary search then, and a line is short enough
 * that an insertion is one small copy.
 */
export class WaitingLine<T extends Waiter> {
  readonly #line: Place<T>[] = [];
  readonly #places = new Map<string, Place<T>>();
  readonly #giveUps = new Deadlines();
  #arrivals = 0;

  get size(): number {
    return this.#line.length;
  }

  get(id: string): T | undefined {
    return this.#places.get(id)?.waiter;
  }

  /** @throws RangeError for an id that waits already */
  push(waiter: T): void {
    if (this.#places.has(waiter.id)) throw new RangeError(`${waiter.id} waits already`);
    const place = { key: keyOf(waiter.class, waiter.enqueuedAtMs), arrival: this.#arrivals++, waiter };
    this.#line.splice(this.#indexOf(place.key, place.arrival), 0, place);
    this.#places.set(waiter.id, place);
    this.#giveUps.set(waiter.id, waiter.giveUpAtMs);
  }

  /** How many would go before one of this class that came now. */
  ahead(tier: ServiceTier, nowMs: number): number {
    return this.#indexOf(keyOf(tier, nowMs), this.#arrivals);
  }

  /** How many go before this one; undefined for one that does not wait. */
  position(id: string): number | undefined {
    const place = this.#places.get(id);
    return place && this.#indexOf(place.key, place.arrival);
  }

  /** Takes out the first whose patience lasts; the others stay until {@link expire} names them. */
  pop(nowMs: number): T | undefined {
    const next = this.#line.find(({ waiter }) => waiter.giveUpAtMs > nowMs);
    return next && this.remove(next.waiter.id);
  }

  remove(id: string): T | undefined {
    const place = this.#places.get(id);
    if (!place) return undefined;
    this.#line.splice(this.#indexOf(place.key, place.arrival), 1);
    this.#places.delete(id);
    this.#giveUps.delete(id);
    return place.waiter;
  }

  /** Takes out those whose patience has ended. */
  expire(nowMs: number): T[] {
    const gone: T[] = [];
    for (const id of this.#giveUps.takeDue(nowMs)) {
      const waiter = this.remove(id);
      if (waiter) gone.push(waiter);
    }
    return gone;
  }

  nextGiveUpMs(): number | undefined {
    return this.#giveUps.nextMs();
  }

  /** First to last. */
  waiters(): T[] {
    return this.#line.map(({ waiter }) => waiter);
  }

  /** What is remembered of each waiter changes, its place and its patience do not. */
  update(change: (waiter: T) => Omit<T, keyof Waiter>): void {
    for (const place of this.#line) {
      const { id, class: tier, enqueuedAtMs, giveUpAtMs } = place.waiter;
      place.waiter = { ...place.waiter, ...change(place.waiter), id, class: tier, enqueuedAtMs, giveUpAtMs };
    }
  }

  /** How many stand before (key, arrival). */
  #indexOf(key: number, arrival: number): number {
    let low = 0;
    let high = this.#line.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const place = this.#line[middle];
      if (place && (place.key < key || (place.key === key && place.arrival < arrival))) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const keyOf = (tier: ServiceTier, atMs: number) => atMs + RANK[tier] * AGE_MS;
