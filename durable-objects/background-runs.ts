import { DurableObject } from "cloudflare:workers";
import { type ObjectAddress, parseObjectName } from "../src/core/object-name";
import { BackgroundRows, type RunRow, type RunSize, taskOf } from "./background-rows";
import {
  type AcceptReply,
  AcceptRequest,
  type BackgroundRunsRpc,
  type BackgroundTask,
  BEGIN_AFTER_MS,
  StartRequest,
} from "./background-runs.messages";
import { eraseObject } from "./erasure";
import type { PayloadSealing } from "./ports";

/** Runs of one tenant at once; its own limits hold besides. */
const MAX_RUNNING = 16;
/** After this long an alarm takes on nothing new: the platform ends one after 15 minutes. */
const TURN_MS = 4 * 60 * 1000;
/** While something runs, what waits is looked at this often. */
const LOOK_MS = 10_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 300_000;
/** A row that cannot be read now, because its tenant's gate does not answer, is read again after this long. */
const LATER_MS = 10_000;
/** Rows of callers of an earlier version, which name no limit. */
const MAX_ROWS = 10_000;

/** What a run does. */
export interface BackgroundPorts {
  /** Of payloads of this tenant. */
  sealing(tenant: ObjectAddress): PayloadSealing;
  /**
   * Does not throw.
   * @param signal aborted when it is cancelled, possibly before it begins
   * @returns how it ended, to be written; null where nobody wants to know
   */
  run(
    task: BackgroundTask,
    signal: AbortSignal,
    waitUntil: (promise: Promise<unknown>) => void,
  ): Promise<string | null>;
  /** How one ended whose process ended in the middle of it. */
  interrupted(task: BackgroundTask): string;
  /** Writes down how it ended. May be repeated. @throws when it could not be written */
  write(task: BackgroundTask, outcome: string): Promise<void>;
  /** Gives back what was reserved for it. May be repeated. */
  release(task: BackgroundTask): Promise<void>;
}

interface Running {
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

/**
 * One per tenant: work that goes on after its caller has its reply. The alarm does it, so that it needs no caller; a
 * run that a crash cut off is told so, and not begun again, since its model may have been paid for. How a run ended is
 * written until it is written. Payloads lie sealed with the tenant's data key.
 */
export const backgroundRuns = (portsOf: (env: object) => BackgroundPorts) =>
  class BackgroundRuns extends DurableObject<object> implements BackgroundRunsRpc {
    readonly #rows: BackgroundRows;
    readonly #ports: BackgroundPorts;
    #payloads: PayloadSealing | undefined;
    readonly #running = new Map<string, Running>();
    /** Every row there is, and those that are being written. */
    readonly #sizes = new Map<string, Omit<RunSize, "id">>();
    readonly #accepting = new Map<string, Promise<void>>();
    #wake = () => {};

    constructor(ctx: DurableObjectState, env: object) {
      super(ctx, env);
      this.#rows = new BackgroundRows(ctx.storage.sql);
      this.#ports = portsOf(env);
      // An alarm after a restart may not know the object's name, so it is kept.
      if (ctx.id.name) this.#rows.keepName(ctx.id.name);
      for (const { id, ...size } of this.#rows.sizes()) this.#sizes.set(id, size);
      if (this.#sizes.size > 0) void ctx.storage.setAlarm(Date.now()); // the process ended before they did
    }

    async start(raw: StartRequest): Promise<void> {
      const request = StartRequest.parse(raw);
      const limits = { runs: MAX_ROWS, bytes: Number.MAX_SAFE_INTEGER, endUserRuns: MAX_ROWS };
      const { accepted } = await this.#accept({ ...request, endUser: "", heldUntilMs: 0, limits });
      if (!accepted) throw new Error("too many runs");
      await this.begin(request.id);
    }

    async accept(raw: AcceptRequest): Promise<AcceptReply> {
      return this.#accept(AcceptRequest.parse(raw));
    }

    async begin(id: string): Promise<void> {
      this.#rows.mayBegin(String(id));
      await this.ctx.storage.setAlarm(Date.now());
      this.#wake();
    }

    async forget(id: string): Promise<void> {
      await this.#accepting.get(String(id))?.catch(() => {});
      if (this.#rows.find(String(id))?.begun === 0) this.#end(String(id));
    }

    async cancel(id: string): Promise<void> {
      await this.#accepting.get(String(id))?.catch(() => {});
      const running = this.#running.get(String(id));
      running?.abort.abort();
      if (running) return running.ended;
      const row = this.#rows.find(String(id));
      if (!row) return;
      if (row.outcome) await this.#writeAgain(row);
      else await this.#begin(row, AbortSignal.abort()).ended;
    }

    async countRows(): Promise<number> {
      return this.#rows.count();
    }

    async erase(): Promise<void> {
      for (const { abort } of this.#running.values()) abort.abort();
      await eraseObject(this.ctx);
    }

    /** Works until nothing is left, or for its turn. */
    override async alarm(): Promise<void> {
      const startedAtMs = Date.now();
      for (const row of this.#rows.begun(startedAtMs)) if (!this.#running.has(row.id)) await this.#interrupt(row);
      for (;;) {
        const isOver = Date.now() - startedAtMs > TURN_MS;
        for (const row of this.#rows.toWrite(Date.now())) await this.#writeAgain(row);
        for (const row of this.#rows.overdueHolds(Date.now())) await this.#giveBack(row);
        const room = isOver ? 0 : MAX_RUNNING - this.#running.size;
        for (const row of this.#rows.toBegin(Date.now(), room)) this.#begin(row);
        if (this.#running.size === 0) break;
        await this.#untilNews();
      }
      const dueMs = this.#rows.nextDueMs();
      if (dueMs !== undefined) await this.ctx.storage.setAlarm(Math.max(Date.now(), dueMs));
    }

    get #sealing(): PayloadSealing {
      const name = this.ctx.id.name ?? this.#rows.name();
      if (!name) throw new TypeError("an object that does not know its name");
      this.#payloads ??= this.#ports.sealing(parseObjectName(name));
      return this.#payloads;
    }

    async #accept({ task, limits, ...request }: AcceptRequest): Promise<AcceptReply> {
      const { id, endUser } = request;
      const known = this.#accepting.get(id);
      if (known || this.#sizes.has(id)) {
        await known;
        return { accepted: true };
      }
      const bytes = task.length;
      const refusal = beyond(limits, [...this.#sizes.values()], { end_user: endUser, bytes });
      if (refusal) return { accepted: false, ...refusal };
      this.#sizes.set(id, { end_user: endUser, bytes }); // counted before the first wait
      const stored = (async () => {
        const sealed = await this.#sealing.seal(`run ${id}`, task);
        this.#rows.add(request, sealed, bytes, Date.now() + BEGIN_AFTER_MS);
        const alarmMs = await this.ctx.storage.getAlarm();
        if (alarmMs === null) await this.ctx.storage.setAlarm(Date.now() + BEGIN_AFTER_MS);
      })();
      this.#accepting.set(id, stored);
      try {
        await stored;
      } catch (error) {
        if (!this.#rows.find(id)) this.#sizes.delete(id);
        throw error;
      } finally {
        this.#accepting.delete(id);
      }
      return { accepted: true };
    }

    #begin(row: RunRow, cancelled?: AbortSignal): Running {
      this.#rows.markBegun(row.id);
      const abort = new AbortController();
      if (cancelled) abort.abort();
      const waitUntil = (promise: Promise<unknown>) => this.ctx.waitUntil(promise);
      const ended = (async () => {
        const task = await this.#taskOf(row).catch((error) => {
          this.#rows.postpone(row.id, 0, Date.now() + LATER_MS); // its model was not called
          throw error;
        });
        const outcome = await this.#ports.run(task, abort.signal, waitUntil);
        await this.#conclude(task, outcome);
      })()
        .catch((error) => {
          // The row stays; where it has begun, the next alarm says that it was interrupted.
          console.error(JSON.stringify({ event: "background_run_failed", id: row.id, reason: String(error) }));
        })
        .then(() => void this.#running.delete(row.id));
      const running = { abort, ended };
      this.#running.set(row.id, running);
      return running;
    }

    async #interrupt(row: RunRow): Promise<void> {
      try {
        const task = await this.#taskOf(row);
        await this.#conclude(task, this.#ports.interrupted(task));
      } catch (error) {
        console.error(JSON.stringify({ event: "background_run_unreadable", id: row.id, reason: String(error) }));
        this.#rows.postpone(row.id, 1, Date.now() + LATER_MS);
      }
    }

    /** Writes how it ended; what cannot be written now is kept, and the alarm comes back for it. */
    async #conclude(task: BackgroundTask, outcome: string | null, attempt = 0): Promise<void> {
      try {
        if (outcome !== null) await this.#ports.write(task, outcome);
        this.#end(task.id);
      } catch (error) {
        console.error(
          JSON.stringify({ event: "background_end_not_written", id: task.id, attempt, reason: String(error) }),
        );
        if (outcome === null) return;
        const sealed = await this.#sealing.seal(`outcome ${task.id}`, outcome);
        const pauseMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(attempt, 20));
        this.#rows.putOutcome(task.id, sealed, Date.now() + pauseMs, attempt + 1);
        this.#wake();
      }
    }

    async #writeAgain(row: RunRow): Promise<void> {
      try {
        const outcome = await this.#sealing.open(`outcome ${row.id}`, new Uint8Array(row.outcome as ArrayBuffer));
        await this.#conclude(await this.#taskOf(row), outcome, row.attempt);
      } catch (error) {
        console.error(JSON.stringify({ event: "background_end_unreadable", id: row.id, reason: String(error) }));
        this.#rows.putOutcome(
          row.id,
          new Uint8Array(row.outcome as ArrayBuffer),
          Date.now() + LONGEST_RETRY_MS,
          row.attempt,
        );
      }
    }

    async #giveBack(row: RunRow): Promise<void> {
      try {
        await this.#ports.release(await this.#taskOf(row));
        this.#rows.markNotHeld(row.id);
      } catch (error) {
        console.error(JSON.stringify({ event: "background_hold_not_released", id: row.id, reason: String(error) }));
      }
    }

    async #taskOf(row: RunRow): Promise<BackgroundTask> {
      const text = row.sealed ? await this.#sealing.open(`run ${row.id}`, new Uint8Array(row.sealed)) : row.task;
      return taskOf(row, text);
    }

    /** Until something ended or came, or it is time to look at what waits. */
    async #untilNews(): Promise<void> {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const news = new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, LOOK_MS);
      });
      await Promise.race([news, ...[...this.#running.values()].map(({ ended }) => ended)]);
      clearTimeout(timer);
    }

    #end(id: string): void {
      this.#sizes.delete(id);
      this.#rows.remove(id);
    }
  };

type Limits = AcceptRequest["limits"];

/** The limit that one more would pass. */
function beyond(
  limits: Limits,
  known: readonly Omit<RunSize, "id">[],
  { end_user, bytes }: Omit<RunSize, "id">,
): { readonly rule: "runs" | "bytes" | "end_user_runs"; readonly limit: number } | undefined {
  if (known.length + 1 > limits.runs) return { rule: "runs", limit: limits.runs };
  const own = known.filter((row) => row.end_user === end_user).length;
  if (end_user !== "" && own + 1 > limits.endUserRuns) return { rule: "end_user_runs", limit: limits.endUserRuns };
  const total = known.reduce((sum, row) => sum + row.bytes, bytes);
  return total > limits.bytes ? { rule: "bytes", limit: limits.bytes } : undefined;
}
