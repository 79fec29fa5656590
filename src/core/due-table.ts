/** One thing to do at a time. Schema version 1. */
export interface DueRow {
  readonly kind: string;
  readonly id: string;
  readonly dueAtMs: number;
  /** Failed attempts so far. */
  readonly attempt: number;
}
export const DUE_SCHEMA_VERSION = 1;

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 300_000;
/** Rows of one turn, so that an alarm stays short. */
export const MAX_DUE_ROWS = 50;

/** What an object has to do and when: its one alarm is the smallest due time. Pure; persisted by its dirty rows. */
export class DueTable {
  readonly #rows = new Map<string, DueRow>();
  readonly #dirty = new Map<string, Pick<DueRow, "kind" | "id">>();

  static restore(rows: readonly DueRow[]): DueTable {
    const table = new DueTable();
    for (const row of rows) table.#rows.set(nameOf(row), row);
    return table;
  }

  get(kind: string, id: string): DueRow | undefined {
    return this.#rows.get(nameOf({ kind, id }));
  }

  /** Replaces the row of the same kind and id. */
  put(row: DueRow): void {
    this.#rows.set(nameOf(row), row);
    this.#dirty.set(nameOf(row), row);
  }

  remove(kind: string, id: string): void {
    if (this.#rows.delete(nameOf({ kind, id }))) this.#dirty.set(nameOf({ kind, id }), { kind, id });
  }

  /** Takes the rows that are due, earliest first. */
  takeDue(nowMs: number, max = MAX_DUE_ROWS): DueRow[] {
    const due = [...this.#rows.values()].filter((row) => row.dueAtMs <= nowMs);
    const taken = due.sort((a, b) => a.dueAtMs - b.dueAtMs).slice(0, max);
    for (const row of taken) this.remove(row.kind, row.id);
    return taken;
  }

  nextDueMs(): number | undefined {
    if (this.#rows.size === 0) return undefined;
    return [...this.#rows.values()].reduce((least, row) => Math.min(least, row.dueAtMs), Number.POSITIVE_INFINITY);
  }

  /**
   * The row again, later: exponential back-off from 1 s to 5 min, with full jitter above half of it.
   * @param jitter 0 to 1
   */
  failed(row: DueRow, nowMs: number, jitter: number): DueRow {
    const pauseMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(row.attempt, 20));
    return { ...row, attempt: row.attempt + 1, dueAtMs: nowMs + Math.ceil((pauseMs * (1 + jitter)) / 2) };
  }

  takeDirty(): { readonly upsert: DueRow[]; readonly remove: Pick<DueRow, "kind" | "id">[] } {
    const upsert: DueRow[] = [];
    const remove: Pick<DueRow, "kind" | "id">[] = [];
    for (const [name, { kind, id }] of this.#dirty) {
      const row = this.#rows.get(name);
      if (row) upsert.push(row);
      else remove.push({ kind, id });
    }
    this.#dirty.clear();
    return { upsert, remove };
  }
}

const nameOf = ({ kind, id }: Pick<DueRow, "kind" | "id">) => `${kind.length}:${kind}:${id}`;
