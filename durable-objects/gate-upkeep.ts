import { DueTable } from "../src/core/due-table";
import { SEGMENT_AGE_MS, SEGMENT_ROWS } from "./segments";
import type { Statements } from "./tenant-gate-statements";

/** What a gate does by itself. Each is idempotent and looks for itself at what there is to do. */
export type UpkeepKind = "expire" | "outbox" | "rollup" | "segment" | "purge";

/** Work that a crash cut off is taken up again this long after its start. */
const RESUME_MS = 60_000;
const RESUME = "resume";

/** Usage reaches the ledger at most this late. */
const ROLLUP_MS = 60_000;

/**
 * The gate's calendar: one alarm for the whole object, set to the earliest due row. A row that fails is retried
 * with back-off; the alarm's own retries are not relied on.
 */
export class GateUpkeep {
  readonly #storage: DurableObjectStorage;
  readonly #sql: Statements;
  readonly #work: Readonly<Record<UpkeepKind, () => Promise<void>>>;
  readonly #due: DueTable;
  readonly #running = new Map<UpkeepKind, Promise<void>>();
  #alarmAtMs: number | undefined;
  #tailRows: number;
  #isStopped = false;

  constructor(storage: DurableObjectStorage, sql: Statements, work: Readonly<Record<UpkeepKind, () => Promise<void>>>) {
    this.#storage = storage;
    this.#sql = sql;
    this.#work = work;
    this.#due = DueTable.restore(
      sql.due().map(({ kind, id, due_at, attempt }) => ({ kind, id, dueAtMs: due_at, attempt })),
    );
    this.#tailRows = sql.journalSpan().rows;
    this.#schedule();
  }

  /** Something of this kind must be looked at by then; an earlier promise stands. */
  keepPromise(kind: UpkeepKind, dueAtMs: number | undefined): void {
    if (dueAtMs === undefined) return;
    const known = this.#due.get(kind, "");
    if (known && known.dueAtMs <= dueAtMs) return;
    this.#due.put({ kind, id: "", dueAtMs, attempt: 0 });
    this.#schedule();
  }

  /** A record was appended: it must reach the ledger, and one day a segment. */
  afterRecord(nowMs: number): void {
    this.keepPromise("rollup", nowMs + ROLLUP_MS);
    this.#tailRows++;
    this.keepPromise("segment", this.#tailRows % SEGMENT_ROWS === 0 ? nowMs : nowMs + SEGMENT_AGE_MS);
  }

  /** Does the work now; where it fails, the alarm comes back for it. */
  async tryNow(kind: UpkeepKind): Promise<void> {
    this.#due.remove(kind, "");
    await this.#run(kind, 0, Date.now());
  }

  /** Does the work now, behind what of its kind is under way. @throws what the work throws */
  async runNow(kind: UpkeepKind): Promise<void> {
    await this.#inTurn(kind);
  }

  async runDue(nowMs: number): Promise<void> {
    this.#alarmAtMs = undefined;
    for (const row of this.#due.takeDue(nowMs)) {
      const kind = (row.kind === RESUME ? row.id : row.kind) as UpkeepKind;
      if (this.#isStopped) return;
      await this.#run(kind, row.attempt, nowMs);
    }
    if (this.#isStopped) return; // there are no tables any more
    this.#storage.transactionSync(() => this.save());
    this.#schedule();
  }

  /** The object is being erased: nothing is due any more, and nothing is written. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Writes the calendar's changes; the caller is inside one transaction. */
  save(): void {
    if (this.#isStopped) return;
    const { upsert, remove } = this.#due.takeDirty();
    for (const row of upsert) this.#sql.putDue(row.kind, row.id, row.dueAtMs, row.attempt);
    for (const row of remove) this.#sql.removeDue(row.kind, row.id);
  }

  /** Runs of one kind follow each other: a later one sees what the earlier one came too early for. */
  #inTurn(kind: UpkeepKind): Promise<void> {
    const before = this.#running.get(kind) ?? Promise.resolve();
    const run = before.catch(() => {}).then(() => this.#work[kind]());
    this.#running.set(kind, run);
    return run;
  }

  async #run(kind: UpkeepKind, attempt: number, nowMs: number): Promise<void> {
    const run = this.#inTurn(kind);
    // Its own row is taken; until the work is done this one stands for it, so that a crash forgets nothing.
    this.#due.put({ kind: RESUME, id: kind, dueAtMs: nowMs + RESUME_MS, attempt });
    this.#schedule();
    try {
      await run;
    } catch (error) {
      console.error(JSON.stringify({ event: "upkeep_failed", kind, attempt, reason: String(error) }));
      this.#due.put(this.#due.failed({ kind, id: "", dueAtMs: nowMs, attempt }, nowMs, Math.random()));
      this.#storage.transactionSync(() => this.save()); // nobody else may come by to save it
      this.#schedule();
    } finally {
      if (this.#running.get(kind) === run) {
        this.#running.delete(kind);
        this.#due.remove(RESUME, kind);
      }
    }
  }

  #schedule(): void {
    const nextMs = this.#due.nextDueMs();
    if (this.#isStopped || nextMs === undefined || (this.#alarmAtMs !== undefined && this.#alarmAtMs <= nextMs)) return;
    this.#alarmAtMs = nextMs;
    void this.#storage.setAlarm(nextMs);
  }
}
