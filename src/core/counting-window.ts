import { MINUTE, type Period } from "./periods";

/** How much was counted in the bucket that starts then. */
export interface Bucket {
  readonly bucketMs: number;
  readonly count: number;
}

/**
 * What was counted over a period. Exact: in a sliding one, what was counted in a bucket counts until a full window
 * after the bucket's end, so no interval of that length ever holds more than was allowed. Deterministic: the clock is
 * an argument, and one that goes back counts as standing still.
 */
export class CountingWindow {
  readonly #buckets = new Map<number, number>(); // bucket start → count, oldest first
  readonly #dirty = new Set<number>();
  #total = 0;
  #newestMs = 0;
  #latestMs = 0; // start of the latest bucket, which may lie ahead

  constructor(readonly period: Period = MINUTE) {}

  /**
   * @param buckets as {@link buckets} gave them, in any order
   * @param aheadMs how far ahead of the clock the newest may have been counted
   */
  static restore(buckets: readonly Bucket[], period?: Period, aheadMs = 0): CountingWindow {
    const window = new CountingWindow(period);
    for (const { bucketMs, count } of [...buckets].sort((a, b) => a.bucketMs - b.bucketMs)) {
      window.#buckets.set(bucketMs, count);
      window.#total += count;
      window.#latestMs = bucketMs;
      window.#newestMs = bucketMs - aheadMs;
    }
    return window;
  }

  /** What counts now. */
  total(nowMs: number): number {
    this.#expire(nowMs);
    return this.#total;
  }

  /**
   * Counts a cost; whether it fits is the caller's to ask.
   * @param cost whole, ≥ 0
   * @param aheadMs counts it so much later than now: it counts from now on, and leaves as if it came then
   * @returns the start of the bucket it counts in
   * @throws RangeError for another cost: one NaN would open the window forever
   */
  add(cost: number, nowMs: number, aheadMs = 0): number {
    if (!Number.isSafeInteger(cost) || cost < 0) throw new RangeError(`a cost of ${cost} cannot be counted`);
    this.#expire(nowMs);
    const bucketMs = this.period.bucketOf(this.#newestMs + aheadMs);
    const isInOrder = bucketMs >= this.#latestMs || this.#buckets.has(bucketMs);
    this.#buckets.set(bucketMs, (this.#buckets.get(bucketMs) ?? 0) + cost);
    if (!isInOrder) this.#sort();
    this.#latestMs = Math.max(this.#latestMs, bucketMs);
    this.#dirty.add(bucketMs);
    this.#total += cost;
    return bucketMs;
  }

  /**
   * Corrects what was counted in a bucket; without effect once that bucket has left, and never below zero.
   * @param delta whole
   * @throws RangeError for another
   */
  correct(bucketMs: number, delta: number): void {
    if (!Number.isSafeInteger(delta)) throw new RangeError(`a correction by ${delta} cannot be counted`);
    const count = this.#buckets.get(bucketMs);
    if (count === undefined) return;
    const corrected = Math.max(0, count + delta);
    this.#buckets.set(bucketMs, corrected);
    this.#dirty.add(bucketMs);
    this.#total += corrected - count;
  }

  /**
   * The smallest wait after which `cost` more fits under `limit`, when nothing else happens.
   * @throws RangeError when it never fits
   */
  retryAfterMs(cost: number, limit: number, nowMs: number): number {
    if (cost > limit) throw new RangeError(`a cost of ${cost} never fits a limit of ${limit}`);
    let excess = this.total(nowMs) + cost - limit;
    let waitMs = 0;
    for (const [bucketMs, count] of this.#buckets) {
      if (excess <= 0) break;
      excess -= count;
      waitMs = this.period.leavesAtMs(bucketMs) - nowMs;
    }
    return waitMs;
  }

  /** How long until nothing that counts now counts any more, in milliseconds. */
  resetMs(nowMs: number): number {
    let rest = this.total(nowMs);
    let waitMs = 0;
    for (const [bucketMs, count] of this.#buckets) {
      if (rest <= 0) break; // what follows was corrected to nothing
      rest -= count;
      waitMs = this.period.leavesAtMs(bucketMs) - nowMs;
    }
    return waitMs;
  }

  /** Without a bucket, be it one of zero. */
  get isEmpty(): boolean {
    return this.#buckets.size === 0;
  }

  /** Whether {@link takeDirty} has something to tell. */
  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Oldest first. */
  buckets(): Bucket[] {
    return [...this.#buckets].map(([bucketMs, count]) => ({ bucketMs, count }));
  }

  /** Buckets that changed or left since the last call. */
  takeDirty(): { readonly upsert: Bucket[]; readonly remove: number[] } {
    const upsert: Bucket[] = [];
    const remove: number[] = [];
    for (const bucketMs of this.#dirty) {
      const count = this.#buckets.get(bucketMs);
      if (count === undefined) remove.push(bucketMs);
      else upsert.push({ bucketMs, count });
    }
    this.#dirty.clear();
    return { upsert, remove };
  }

  /** Oldest first again, after something was counted before what was counted ahead. */
  #sort(): void {
    const inOrder = [...this.#buckets].sort(([a], [b]) => a - b);
    this.#buckets.clear();
    for (const [bucketMs, count] of inOrder) this.#buckets.set(bucketMs, count);
  }

  #expire(nowMs: number): void {
    this.#newestMs = Math.max(this.#newestMs, nowMs);
    for (const [bucketMs, count] of this.#buckets) {
      if (this.period.leavesAtMs(bucketMs) > this.#newestMs) return;
      this.#buckets.delete(bucketMs);
      this.#dirty.add(bucketMs);
      this.#total -= count;
    }
  }
}
