/** A window's buckets: how much was counted in each 250 ms. */
export interface Bucket {
  readonly bucketMs: number;
  readonly count: number;
}

export const BUCKET_MS = 250;
export const WINDOW_MS = 60_000;

/**
 * An exact sliding window: what was counted in a bucket `[b, b + 250)` counts until `b + 250 + 60,000`, so no interval
 * of 60 s ever holds more than was allowed. Deterministic: the clock is an argument, and one that goes back counts as
 * standing still.
 */
export class MinuteWindow {
  readonly #buckets = new Map<number, number>(); // bucket start → count, oldest first
  readonly #dirty = new Set<number>();
  #total = 0;
  #newestMs = 0;

  /** @param buckets as {@link buckets} gave them */
  static restore(buckets: readonly Bucket[]): MinuteWindow {
    const window = new MinuteWindow();
    for (const { bucketMs, count } of [...buckets].sort((a, b) => a.bucketMs - b.bucketMs)) {
      window.#buckets.set(bucketMs, count);
      window.#total += count;
      window.#newestMs = bucketMs;
    }
    return window;
  }

  /** What counts now. */
  total(nowMs: number): number {
    this.#expire(nowMs);
    return this.#total;
  }

  /** Counts `cost` ≥ 0. @returns the start of the bucket it counts in */
  add(cost: number, nowMs: number): number {
    this.#expire(nowMs);
    const bucketMs = this.#newestMs - (this.#newestMs % BUCKET_MS);
    this.#buckets.set(bucketMs, (this.#buckets.get(bucketMs) ?? 0) + cost);
    this.#dirty.add(bucketMs);
    this.#total += cost;
    return bucketMs;
  }

  /** Corrects what was counted in a bucket; without effect once that bucket has left, and never below zero. */
  correct(bucketMs: number, delta: number): void {
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
    if (excess <= 0) return 0;
    for (const [bucketMs, count] of this.#buckets) {
      excess -= count;
      if (excess <= 0) return leavesAtMs(bucketMs) - nowMs;
    }
    throw new RangeError("a window that holds more than its buckets");
  }

  /** Until everything that counts now has left. */
  resetMs(nowMs: number): number {
    this.#expire(nowMs);
    const newest = [...this.#buckets.keys()].at(-1);
    return newest === undefined ? 0 : Math.max(0, leavesAtMs(newest) - nowMs);
  }

  get isEmpty(): boolean {
    return this.#buckets.size === 0;
  }

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

  #expire(nowMs: number): void {
    this.#newestMs = Math.max(this.#newestMs, nowMs);
    for (const [bucketMs, count] of this.#buckets) {
      if (leavesAtMs(bucketMs) > this.#newestMs) return;
      this.#buckets.delete(bucketMs);
      this.#dirty.add(bucketMs);
      this.#total -= count;
    }
  }
}

/** What was counted at the bucket's very end must have left a full window behind it. */
const leavesAtMs = (bucketMs: number) => bucketMs + BUCKET_MS + WINDOW_MS;
