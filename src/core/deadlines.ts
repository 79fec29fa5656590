interface Deadline {
  readonly id: string;
  readonly dueAtMs: number;
  readonly order: number;
}

/**
 * Which ids fall due, and when; earliest first, then the one that was set first. A binary heap whose removed entries
 * stay until they surface or outnumber the live ones, so every call is O(log n) amortised and memory follows the
 * live ids.
 */
export class Deadlines {
  #heap: Deadline[] = [];
  readonly #live = new Map<string, Deadline>();
  #order = 0;

  get size(): number {
    return this.#live.size;
  }

  /** Replaces the deadline of the same id. */
  set(id: string, dueAtMs: number): void {
    const deadline = { id, dueAtMs, order: this.#order++ };
    this.#live.set(id, deadline);
    this.#rise(deadline, this.#heap.length);
    this.#compact();
  }

  delete(id: string): boolean {
    const deleted = this.#live.delete(id);
    if (deleted) this.#compact();
    return deleted;
  }

  /** The earliest deadline; undefined when there is none. */
  nextMs(): number | undefined {
    for (let top = this.#heap[0]; top; top = this.#heap[0]) {
      if (this.#live.get(top.id) === top) return top.dueAtMs;
      this.#dropTop();
    }
    return undefined;
  }

  /** Takes out at most `max` ids that are due at `nowMs`. */
  takeDue(nowMs: number, max = Number.POSITIVE_INFINITY): string[] {
    const due: string[] = [];
    while (due.length < max) {
      const nextMs = this.nextMs();
      const top = this.#heap[0];
      if (nextMs === undefined || nextMs > nowMs || !top) break;
      due.push(top.id);
      this.#live.delete(top.id);
      this.#dropTop();
    }
    return due;
  }

  #compact(): void {
    if (this.#heap.length <= 2 * this.#live.size + 16) return;
    this.#heap = [...this.#live.values()].sort(byDue); // a sorted array is a heap
  }

  #dropTop(): void {
    const last = this.#heap.pop();
    if (last && this.#heap.length > 0) this.#sink(last);
  }

  #rise(deadline: Deadline, from: number): void {
    let index = from;
    while (index > 0) {
      const parentIndex = (index - 1) >>> 1;
      const parent = this.#heap[parentIndex];
      if (!parent || byDue(parent, deadline) < 0) break;
      this.#heap[index] = parent;
      index = parentIndex;
    }
    this.#heap[index] = deadline;
  }

  #sink(deadline: Deadline): void {
    let index = 0;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = this.#heap[childIndex];
      const right = this.#heap[childIndex + 1];
      if (child && right && byDue(right, child) < 0) {
        child = right;
        childIndex++;
      }
      if (!child || byDue(deadline, child) < 0) break;
      this.#heap[index] = child;
      index = childIndex;
    }
    this.#heap[index] = deadline;
  }
}

const byDue = (a: Deadline, b: Deadline) => a.dueAtMs - b.dueAtMs || a.order - b.order;
