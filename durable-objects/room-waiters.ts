interface Waiter {
  readonly rule: string;
  wake: ((isGone: boolean) => void) | undefined;
}

/**
 * Callers that wait for room under a limit, in the order in which they came to it. Whoever frees something wakes the
 * first of each limit; one that got what it wanted wakes the next, so that a wake costs no more than it gives.
 */
export class RoomWaiters {
  readonly #waiters = new Map<string, Waiter>();
  readonly #byRule = new Map<string, Set<string>>();

  get size(): number {
    return this.#waiters.size;
  }

  /** @returns once there may be room: whether its caller has gone meanwhile */
  wait(requestId: string, rule: string): Promise<boolean> {
    if (this.#waiters.get(requestId)?.rule !== rule) this.remove(requestId);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const ids = this.#byRule.get(rule) ?? new Set();
    this.#byRule.set(rule, ids.add(requestId)); // one that was woken in vain keeps its place
    this.#waiters.set(requestId, { rule, wake: resolve });
    return promise;
  }

  /** It waits no more, whatever came of it. */
  remove(requestId: string): void {
    const waiter = this.#waiters.get(requestId);
    if (!waiter) return;
    this.#waiters.delete(requestId);
    const ids = this.#byRule.get(waiter.rule);
    ids?.delete(requestId);
    if (ids?.size === 0) this.#byRule.delete(waiter.rule);
  }

  /** Its caller has gone. */
  leave(requestId: string): void {
    this.#wake(requestId, true);
  }

  wakeFirst(rule: string): void {
    const [first] = this.#byRule.get(rule) ?? [];
    if (first !== undefined) this.#wake(first, false);
  }

  wakeFirstOfEach(): void {
    for (const rule of [...this.#byRule.keys()]) this.wakeFirst(rule);
  }

  wakeAll(): void {
    for (const requestId of [...this.#waiters.keys()]) this.#wake(requestId, false);
  }

  #wake(requestId: string, isGone: boolean): void {
    const waiter = this.#waiters.get(requestId);
    waiter?.wake?.(isGone);
    if (waiter) waiter.wake = undefined;
  }
}
