import { DatabaseSync, type SQLInputValue } from "node:sqlite";

type Row = Record<string, SqlStorageValue>;

/** A Durable Object's SQLite in memory, for tests that need many small steps. Transactions roll back as they do there. */
export class SqliteStorage {
  readonly #database = new DatabaseSync(":memory:");
  /** When the alarm rings; null while none is set. */
  alarmMs: number | null = null;
  /** In the place of the true size, where a test says that the database is full. */
  fullBytes: number | null = null;

  readonly sql = {
    exec: (text: string, ...values: SQLInputValue[]) => this.#exec(text, values),
    databaseSize: 0,
  } as unknown as SqlStorage;

  constructor() {
    Object.defineProperty(this.sql, "databaseSize", { get: () => this.fullBytes ?? this.#size() });
  }

  setAlarm = async (dueMs: number | Date): Promise<void> => {
    this.alarmMs = Number(dueMs);
  };

  transactionSync = <T>(work: () => T): T => {
    this.#database.exec("begin");
    try {
      const result = work();
      this.#database.exec("commit");
      return result;
    } catch (error) {
      this.#database.exec("rollback");
      throw error;
    }
  };

  #exec(text: string, values: readonly SQLInputValue[]) {
    const rows = this.#database.prepare(text).all(...values) as Row[];
    return {
      toArray: () => rows,
      one: () => {
        const [row, ...others] = rows;
        if (!row || others.length > 0) throw new Error(`expected one row, got ${rows.length}`);
        return row;
      },
      [Symbol.iterator]: () => rows[Symbol.iterator](),
    };
  }

  #size(): number {
    return Number((this.#database.prepare("pragma page_count").get() as Row).page_count) * 4_096;
  }
}
