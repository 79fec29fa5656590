import { type DueRow, DueTable } from "../src/core/due-table";
import type { JournalTail } from "./journal-tail";
import type { Statements } from "./tenant-gate-statements";

/** What a gate does by itself. Each is idempotent and looks for itself at what there is to do. */
export type UpkeepKind = "expire" | "outbox" | "rollup" | "segment" | "purge" | "sweep";

/** Work that a crash cut off is taken up again this long after its start. */
const RESUME_MS = 60_000;
const RESUME = "resume";
/** Whoever calls models may have its answers stored: what is beyond its time is looked for at most this late. */
const SWEEP_MS = 24 * 60 * 60 * 1000;
/** Usage reaches the ledger at most this late. */
const ROLLUP_MS = 60_000;
/** An alarm waits this long for its work, so that one database that does not answer holds up nothing else. */
const TURN_MS = 20_000;
/** Work that has not ended by then counts as failed and is done again beside it: all of it is idempotent. */
const WORK_MS = 120_000;

/** What the calendar needs of its gate. */
export interface UpkeepDeps {
  readonly storage: Pick<DurableObjectStorage, "setAlarm" | "transactionSync">;
  readonly sql: Statements;
  readonly tail: JournalTail;
  readonly work: Readonly<Record<UpkeepKind, () => Promise<void>>>;
}

/**
 * The gate's calendar: one alarm for the whole object, set to the earliest due row. A row that fails is retried
 * with back-off; the alarm's own retries are not relied on.
 */
export class GateUpkeep {
  readonly #deps: UpkeepDeps;
  readonly #due: DueTable;
  readonly #running = new Map<UpkeepKind, Promise<void>>();
  #alarmAtMs: number | undefined;
  #isStopped = false;

  constructor(deps: UpkeepDeps, nowMs: number) {
    this.#deps = deps;
    const rows = deps.sql.due();
    this.#due = DueTable.restore(rows.map(({ kind, id, due_at, attempt }) => ({ kind, id, dueAtMs: due_at, attempt })));
    // Earlier versions left rows behind that nobody was to seal.
    if (!this.#due.get("segment", "") && deps.sql.lastJournalRow()) this.keepPromise("segment", nowMs);
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
    this.keepPromise("sweep", nowMs + SWEEP_MS);
    this.keepPromise("segment", this.#deps.tail.dueMs(nowMs));
  }

  /**
   * Does the work now; where it fails, the alarm comes back for it.
   * @returns whether it is done
   */
  async tryNow(kind: UpkeepKind): Promise<boolean> {
    this.#due.remove(kind, "");
    return this.#run(kind, 0, Date.now());
  }

  /** Does the work now, behind what of its kind is under way. @throws what the work throws */
  async runNow(kind: UpkeepKind): Promise<void> {
    await this.#inTurn(kind);
  }

  /** Does what is due; work of different kinds does not wait for each other, but a purge leaves nothing to others. */
  async runDue(nowMs: number): Promise<void> {
    this.#alarmAtMs = undefined;
    const due = this.#due.takeDue(nowMs);
    const purge = due.find((row) => kindOf(row) === "purge");
    const now = purge ? [purge] : due;
    for (const row of due.filter((each) => !now.includes(each))) this.#due.put(row); // for the next alarm, at once
    const runs = now.map((row) => this.#run(kindOf(row), row.attempt, nowMs));
    await within(Promise.all(runs), TURN_MS).catch(() => {});
    this.#saveNow();
    this.#schedule();
  }

  /** The object is being erased: nothing is due any more, and nothing is written. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Writes the calendar's changes; the caller is inside one transaction. */
  save(): void {
    if (this.#isStopped) return;
    const { sql } = this.#deps;
    const { upsert, remove } = this.#due.takeDirty();
    for (const row of upsert) sql.putDue(row.kind, row.id, row.dueAtMs, row.attempt);
    for (const row of remove) sql.removeDue(row.kind, row.id);
  }

  /** Runs of one kind follow each other: a later one sees what the earlier one came too early for. */
  #inTurn(kind: UpkeepKind): Promise<void> {
    const before = this.#running.get(kind) ?? Promise.resolve();
    const run = before.catch(() => {}).then(() => within(this.#deps.work[kind](), WORK_MS));
    this.#running.set(kind, run);
    return run;
  }

  async #run(kind: UpkeepKind, attempt: number, nowMs: number): Promise<boolean> {
    const run = this.#inTurn(kind);
    // Its own row is taken; until the work is done this one stands for it, so that a crash forgets nothing.
    this.#due.put({ kind: RESUME, id: kind, dueAtMs: nowMs + RESUME_MS, attempt });
    this.#schedule();
    try {
      await run;
      return true;
    } catch (error) {
      console.error(JSON.stringify({ event: "upkeep_failed", kind, attempt, reason: String(error) }));
      this.#due.put(this.#due.failed({ kind, id: "", dueAtMs: nowMs, attempt }, Date.now(), Math.random()));
      return false;
    } finally {
      if (this.#running.get(kind) === run) {
        this.#running.delete(kind);
        this.#due.remove(RESUME, kind);
      }
      this.#saveNow(); // nobody else may come by to save it
      this.#schedule();
    }
  }

  #saveNow(): void {
    if (!this.#isStopped) this.#deps.storage.transactionSync(() => this.save());
  }

  #schedule(): void {
    const nextMs = this.#due.nextDueMs();
    if (this.#isStopped || nextMs === undefined || (this.#alarmAtMs !== undefined && this.#alarmAtMs <= nextMs)) return;
    this.#alarmAtMs = nextMs;
    void this.#deps.storage.setAlarm(nextMs);
  }
}

const kindOf = ({ kind, id }: DueRow) => (kind === RESUME ? id : kind) as UpkeepKind;

/** @throws when the work takes longer; it goes on nevertheless */
async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no end within ${ms} ms`)), ms);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
