import { Deadlines } from "./deadlines";
import type { ServiceTier } from "./records";

export interface Waiter {
  readonly id: string;
  readonly class: ServiceTier;
  /** The end user whose request it is; null: those of a key itself take no turns. */
  readonly party?: string | null;
  readonly enqueuedAtMs: number;
  readonly giveUpAtMs: number;
}

/** Waiting this long is worth one class. */
export const AGE_MS = 5_000;
/**
 * Of several that one end user has waiting in a class, each further one stands as if it had come so much later: end
 * users take turns, however many requests one of them sends at once.
 */
export const ROUND_MS = 1_000;
const RANK: Readonly<Record<ServiceTier, number>> = { priority: 0, default: 1, flex: 2 };

interface Place<T> {
  readonly key: number;
  /** Between equal keys: first come, first served. */
  readonly arrival: number;
  waiter: T;
}

/**
 * A tenant's waiting line: classes with ageing, end users in turns. A waiter's place is its arrival plus
 * {@link AGE_MS} for each class below the first and {@link ROUND_MS} for each of its end user's that waits already,
 * so nobody starves, and the order of two waiters never changes. The caller bounds its length.
 *
 * Sorted rather than a heap: how many would go before a newcomer is a binary search then, and a line is short enough
 * that an insertion is one small copy.
 */
export class WaitingLine<T extends Waiter> {
  readonly #line: Place<T>[] = [];
  readonly #places = new Map<string, Place<T>>();
  readonly #giveUps = new Deadlines();
  /** How many of each end user wait in each class. */
  readonly #rounds = new Map<string, number>();
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
    const place = { key: this.#keyOf(waiter, waiter.enqueuedAtMs), arrival: this.#arrivals++, waiter };
    this.#count(waiter, 1);
    this.#line.splice(this.#indexOf(place.key, place.arrival), 0, place);
    this.#places.set(waiter.id, place);
    this.#giveUps.set(waiter.id, waiter.giveUpAtMs);
  }

  /** How many would go before one like this that came now. */
  ahead(like: Pick<Waiter, "class" | "party">, nowMs: number): number {
    return this.#indexOf(this.#keyOf(like, nowMs), this.#arrivals);
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
    this.#count(place.waiter, -1);
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
      const { id, class: tier, party, enqueuedAtMs, giveUpAtMs } = place.waiter;
      const unchanged = { id, class: tier, enqueuedAtMs, giveUpAtMs, ...(party === undefined ? {} : { party }) };
      place.waiter = { ...place.waiter, ...change(place.waiter), ...unchanged };
    }
  }

  #keyOf(waiter: Pick<Waiter, "class" | "party">, atMs: number): number {
    const round = waiter.party == null ? 0 : (this.#rounds.get(roundName(waiter)) ?? 0);
    return atMs + RANK[waiter.class] * AGE_MS + round * ROUND_MS;
  }

  #count(waiter: Waiter, by: 1 | -1): void {
    if (waiter.party == null) return;
    const name = roundName(waiter);
    const waiting = (this.#rounds.get(name) ?? 0) + by;
    if (waiting > 0) this.#rounds.set(name, waiting);
    else this.#rounds.delete(name);
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

const roundName = ({ class: tier, party }: Pick<Waiter, "class" | "party">) => `${tier} ${party}`;
