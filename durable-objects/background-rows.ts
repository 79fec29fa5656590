import type { AcceptRequest, BackgroundTask } from "./background-runs.messages";

/** `task` is the plain text of earlier versions, and empty where `sealed` has it. */
const SCHEMA = `create table if not exists run (id text primary key, created_at integer not null, task text not null,
  begun integer not null) without rowid`;
/** What later versions added, in this order; each with a value for the rows that were there before. */
const LATER_COLUMNS = [
  ["sealed", "blob"],
  ["end_user", "text not null default ''"],
  ["bytes", "integer not null default 0"],
  ["begin_at", "integer not null default 0"],
  ["held_until", "integer not null default 0"],
  ["outcome", "blob"],
  ["write_at", "integer not null default 0"],
  ["attempt", "integer not null default 0"],
] as const;

export type RunRow = {
  readonly id: string;
  readonly created_at: number;
  readonly task: string;
  readonly sealed: ArrayBuffer | null;
  readonly begun: number;
  /** Sealed: how it ended, where that could not be written yet. */
  readonly outcome: ArrayBuffer | null;
  readonly held_until: number;
  readonly attempt: number;
};
/** What is remembered of each row, for the limits. */
export type RunSize = { readonly id: string; readonly end_user: string; readonly bytes: number };

/** The rows of BackgroundRuns: every statement of it. Times are Unix milliseconds. */
export class BackgroundRows {
  constructor(readonly sql: SqlStorage) {
    sql.exec(SCHEMA);
    sql.exec("create table if not exists meta (key text primary key, value text not null) without rowid");
    const known = new Set(
      sql
        .exec<{ name: string }>("select name from pragma_table_info('run')")
        .toArray()
        .map(({ name }) => name),
    );
    for (const [name, type] of LATER_COLUMNS)
      if (!known.has(name)) sql.exec(`alter table run add column ${name} ${type}`);
  }

  name(): string | undefined {
    return this.sql.exec<{ value: string }>("select value from meta where key = 'name'").toArray().at(0)?.value;
  }
  keepName(name: string): void {
    if (this.name() === undefined) this.sql.exec("insert into meta values ('name', ?)", name);
  }

  sizes(): RunSize[] {
    return this.sql.exec<RunSize>("select id, end_user, bytes from run").toArray();
  }

  add(request: Omit<AcceptRequest, "task" | "limits">, sealed: Uint8Array, bytes: number, beginAtMs: number): void {
    const { id, createdAtMs, endUser, heldUntilMs } = request;
    this.sql.exec(
      `insert or ignore into run (id, created_at, task, begun, sealed, end_user, bytes, begin_at, held_until)
       values (?, ?, '', 0, ?, ?, ?, ?, ?)`,
      ...[id, createdAtMs, sealed, endUser, bytes, beginAtMs, heldUntilMs],
    );
  }

  find(id: string): RunRow | undefined {
    return this.sql.exec<RunRow>("select * from run where id = ?", id).toArray().at(0);
  }

  /** Those that may begin, the oldest first. */
  toBegin(nowMs: number, limit: number): RunRow[] {
    return this.#list("begun = 0 and outcome is null and begin_at <= ?", nowMs, Math.max(0, limit));
  }
  /** Those that were running when the process ended. */
  begun(nowMs: number): RunRow[] {
    return this.#list("begun = 1 and outcome is null and begin_at <= ?", nowMs, 1_000);
  }
  /** Those whose end is still to be written. */
  toWrite(nowMs: number): RunRow[] {
    return this.#list("outcome is not null and write_at <= ?", nowMs, 16);
  }
  /** Those that have waited too long for what is held for them. */
  overdueHolds(nowMs: number): RunRow[] {
    return this.#list("begun = 0 and held_until > 0 and held_until <= ?", nowMs, 16);
  }

  mayBegin(id: string): void {
    this.sql.exec("update run set begin_at = 0 where id = ? and begun = 0", id);
  }
  markBegun(id: string): void {
    this.sql.exec("update run set begun = 1 where id = ?", id);
  }
  postpone(id: string, begun: 0 | 1, untilMs: number): void {
    this.sql.exec("update run set begun = ?, begin_at = ? where id = ?", begun, untilMs, id);
  }
  markNotHeld(id: string): void {
    this.sql.exec("update run set held_until = 0 where id = ?", id);
  }
  putOutcome(id: string, outcome: Uint8Array, writeAtMs: number, attempt: number): void {
    this.sql.exec(
      "update run set begun = 1, outcome = ?, write_at = ?, attempt = ? where id = ?",
      ...[outcome, writeAtMs, attempt, id],
    );
  }
  remove(id: string): void {
    this.sql.exec("delete from run where id = ?", id);
  }
  count(): number {
    return this.sql.exec<{ n: number }>("select count(*) as n from run").one().n;
  }

  /** When the next row is to begin or to be written; undefined where there is none. */
  nextDueMs(): number | undefined {
    const query = "select min(case when outcome is null then begin_at else write_at end) as due from run";
    return this.sql.exec<{ due: number | null }>(query).one().due ?? undefined;
  }

  #list(where: string, nowMs: number, limit: number): RunRow[] {
    const query = `select * from run where ${where} order by created_at, id limit ?`;
    return this.sql.exec<RunRow>(query, nowMs, limit).toArray();
  }
}

export const taskOf = (row: RunRow, task: string): BackgroundTask => ({
  ...{ id: row.id, createdAtMs: row.created_at, task, isHeld: row.held_until > 0 },
});
