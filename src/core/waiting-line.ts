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

/**
 * A tenant's waiting line: classes with ageing. A waiter's place is its arrival plus {@link AGE_MS} for each class
 * below the first, so nobody starves, and the order of two waiters never changes.
 */
export class WaitingLine<T extends Waiter> {
  /** Sorted by place; a line is short (its length is bounded), so an insertion is a short copy. */
  #line: { readonly place: number; readonly waiter: T }[] = [];

  get size(): number {
    return this.#line.length;
  }

  push(waiter: T): void {
    this.#line.splice(this.#indexFor(waiter.class, waiter.enqueuedAtMs), 0, { place: placeOf(waiter), waiter });
  }

  /** How many would go before one that came now. */
  ahead(tier: ServiceTier, nowMs: number): number {
    return this.#indexFor(tier, nowMs);
  }

  first(): T | undefined {
    return this.#line[0]?.waiter;
  }

  waiters(): T[] {
    return this.#line.map(({ waiter }) => waiter);
  }

  remove(id: string): T | undefined {
    const index = this.#line.findIndex(({ waiter }) => waiter.id === id);
    return index === -1 ? undefined : this.#line.splice(index, 1)[0]?.waiter;
  }

  /** Takes out those whose patience has ended. */
  expire(nowMs: number): T[] {
    const gone = this.#line.filter(({ waiter }) => waiter.giveUpAtMs <= nowMs).map(({ waiter }) => waiter);
    if (gone.length > 0) this.#line = this.#line.filter(({ waiter }) => waiter.giveUpAtMs > nowMs);
    return gone;
  }

  nextGiveUpMs(): number | undefined {
    if (this.#line.length === 0) return undefined;
    return this.#line.reduce((least, { waiter }) => Math.min(least, waiter.giveUpAtMs), Number.POSITIVE_INFINITY);
  }

  /** Behind everyone of the same place: first come, first served. */
  #indexFor(tier: ServiceTier, atMs: number): number {
    const place = atMs + RANK[tier] * AGE_MS;
    let low = 0;
    let high = this.#line.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#line[middle]?.place ?? 0) <= place) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const placeOf = (waiter: Waiter) => waiter.enqueuedAtMs + RANK[waiter.class] * AGE_MS;
