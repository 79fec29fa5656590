import { Deadlines } from "./deadlines";

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

type RowName = Pick<DueRow, "kind" | "id">;

/** What an object has to do and when: its one alarm is the smallest due time. Pure; persisted by its dirty rows. */
export class DueTable {
  readonly #rows = new Map<string, DueRow>();
  readonly #deadlines = new Deadlines();
  readonly #dirty = new Map<string, RowName>();

  /** From the rows that {@link takeDirty} persisted. */
  static restore(rows: readonly DueRow[]): DueTable {
    const table = new DueTable();
    for (const row of rows) table.put(row);
    table.#dirty.clear();
    return table;
  }

  get(kind: string, id: string): DueRow | undefined {
    return this.#rows.get(nameOf({ kind, id }));
  }

  /** Replaces the row of the same kind and id. */
  put(row: DueRow): void {
    const name = nameOf(row);
    this.#rows.set(name, row);
    this.#deadlines.set(name, row.dueAtMs);
    this.#dirty.set(name, row);
  }

  remove(kind: string, id: string): void {
    const name = nameOf({ kind, id });
    if (!this.#rows.delete(name)) return;
    this.#deadlines.delete(name);
    this.#dirty.set(name, { kind, id });
  }

  /**
   * Takes the rows that are due, earliest first. They are gone from here and, with the next {@link takeDirty}, from
   * storage: whoever must survive a crash while it works puts the row back before that.
   */
  takeDue(nowMs: number, max = MAX_DUE_ROWS): DueRow[] {
    const taken: DueRow[] = [];
    for (const name of this.#deadlines.takeDue(nowMs, max)) {
      const row = this.#rows.get(name);
      if (!row) continue;
      this.remove(row.kind, row.id);
      taken.push(row);
    }
    return taken;
  }

  nextDueMs(): number | undefined {
    return this.#deadlines.nextMs();
  }

  /**
   * The row again, later: exponential back-off from 1 s to 5 min, of which the upper half is jitter.
   * @param jitter 0 to 1
   */
  failed(row: DueRow, nowMs: number, jitter: number): DueRow {
    const pauseMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** row.attempt);
    return { ...row, attempt: row.attempt + 1, dueAtMs: nowMs + Math.ceil((pauseMs * (1 + jitter)) / 2) };
  }

  /** What must be written so that {@link restore} finds it. */
  takeDirty(): { readonly upsert: DueRow[]; readonly remove: RowName[] } {
    const upsert: DueRow[] = [];
    const remove: RowName[] = [];
    for (const [name, { kind, id }] of this.#dirty) {
      const row = this.#rows.get(name);
      if (row) upsert.push(row);
      else remove.push({ kind, id });
    }
    this.#dirty.clear();
    return { upsert, remove };
  }
}

/** The length keeps `a:b` of kind `c` apart from `b` of kind `c:a`. */
const nameOf = ({ kind, id }: RowName) => `${kind.length}:${kind}:${id}`;
