/**
 * How long an ended request must be remembered: longer than any caller waits, so that a message that was delayed on
 * its way finds its request over.
 */
export const REMEMBER_ENDED_MS = 15 * 60_000;
/** About 150 bytes each. */
const MAX_REMEMBERED_IDS = 20_000;

/**
 * Requests that ended without a record: released, refused, or gone before they were admitted. Those that are recorded
 * stand in the journal. Pure: the clock is an argument.
 */
export class EndedRequests {
  readonly #endedAtMs = new Map<string, number>(); // in the order in which they ended
  readonly #unsaved = new Set<string>();

  constructor(readonly maxIds = MAX_REMEMBERED_IDS) {}

  /** @param isDurable it once held something, so that a restart must not forget it */
  add(requestId: string, nowMs: number, isDurable: boolean): void {
    if (isDurable) this.#unsaved.add(requestId);
    if (this.#endedAtMs.has(requestId)) return;
    this.#endedAtMs.set(requestId, nowMs);
    for (const [oldest, endedAtMs] of this.#endedAtMs) {
      const isOld = endedAtMs <= nowMs - REMEMBER_ENDED_MS;
      if ((!isOld && this.#endedAtMs.size <= this.maxIds) || this.#unsaved.has(oldest)) break;
      this.#endedAtMs.delete(oldest);
    }
  }

  has(requestId: string): boolean {
    return this.#endedAtMs.has(requestId);
  }

  get size(): number {
    return this.#endedAtMs.size;
  }

  /** Those that must be written, with the time of their end. */
  takeDirty(): { readonly requestId: string; readonly endedAtMs: number }[] {
    const unsaved = [...this.#unsaved].map((requestId) => ({
      requestId,
      endedAtMs: this.#endedAtMs.get(requestId) ?? 0,
    }));
    this.#unsaved.clear();
    return unsaved;
  }
}
