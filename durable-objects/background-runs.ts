import { DurableObject } from "cloudflare:workers";
import { type BackgroundRunsRpc, type BackgroundTask, StartRequest } from "./background-runs.messages";
import { eraseObject } from "./erasure";

const SCHEMA = `create table if not exists run (id text primary key, created_at integer not null, task text not null,
  begun integer not null) without rowid`;
/** Runs of one tenant at once; its own limits hold besides. */
const MAX_RUNNING = 16;
/** After this long an alarm takes on nothing new: the platform ends one after 15 minutes. */
const TURN_MS = 4 * 60 * 1000;

/** What a run does; each ends by writing down how it ended, and does not throw. */
export interface BackgroundPorts {
  /** @param signal aborted when it is cancelled, possibly before it begins */
  run(task: BackgroundTask, signal: AbortSignal, waitUntil: (promise: Promise<unknown>) => void): Promise<void>;
  /** The process ended in the middle of it. */
  interrupted(task: BackgroundTask): Promise<void>;
}

type Row = { readonly id: string; readonly created_at: number; readonly task: string; readonly begun: number };
interface Running {
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

/**
 * One per tenant: work that goes on after its caller has its reply. The alarm does it, so that it needs no caller; a
 * run that a crash cut off is told so, and not begun again, since its model may have been paid for.
 */
export const backgroundRuns = (portsOf: (env: object) => BackgroundPorts) =>
  class BackgroundRuns extends DurableObject<object> implements BackgroundRunsRpc {
    readonly #sql: SqlStorage;
    readonly #ports: BackgroundPorts;
    readonly #running = new Map<string, Running>();
    #wake = () => {};

    constructor(ctx: DurableObjectState, env: object) {
      super(ctx, env);
      this.#sql = ctx.storage.sql;
      this.#sql.exec(SCHEMA);
      this.#ports = portsOf(env);
      if (this.#rows("1").length > 0) void ctx.storage.setAlarm(Date.now()); // the process ended before they did
    }

    async start(raw: StartRequest): Promise<void> {
      const { id, createdAtMs, task } = StartRequest.parse(raw);
      this.#sql.exec("insert or ignore into run values (?, ?, ?, 0)", id, createdAtMs, task);
      await this.ctx.storage.setAlarm(Date.now());
      this.#wake();
    }

    async cancel(id: string): Promise<void> {
      const running = this.#running.get(String(id));
      running?.abort.abort();
      if (running) return running.ended;
      const [row] = this.#sql.exec<Row>("select * from run where id = ?", String(id)).toArray();
      if (row) await this.#begin(row, AbortSignal.abort()).ended;
    }

    async countRows(): Promise<number> {
      return this.#sql.exec<{ n: number }>("select count(*) as n from run").one().n;
    }

    async erase(): Promise<void> {
      for (const { abort } of this.#running.values()) abort.abort();
      await eraseObject(this.ctx);
    }

    /** Works until nothing is left, or for its turn. */
    override async alarm(): Promise<void> {
      const startedAtMs = Date.now();
      for (const row of this.#rows("begun = 1")) {
        if (this.#running.has(row.id)) continue;
        await this.#ports.interrupted(taskOf(row));
        this.#end(row.id);
      }
      for (;;) {
        const isOver = Date.now() - startedAtMs > TURN_MS;
        for (const row of isOver ? [] : this.#rows("begun = 0", MAX_RUNNING - this.#running.size)) this.#begin(row);
        if (this.#running.size === 0) break;
        const news = new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        await Promise.race([news, ...[...this.#running.values()].map(({ ended }) => ended)]);
      }
      if (this.#rows("1").length > 0) await this.ctx.storage.setAlarm(Date.now());
    }

    #begin(row: Row, cancelled?: AbortSignal): Running {
      this.#sql.exec("update run set begun = 1 where id = ?", row.id);
      const abort = new AbortController();
      if (cancelled) abort.abort();
      const waitUntil = (promise: Promise<unknown>) => this.ctx.waitUntil(promise);
      const ended = this.#ports
        .run(taskOf(row), abort.signal, waitUntil)
        .catch((error) =>
          console.error(JSON.stringify({ event: "background_run_failed", id: row.id, reason: String(error) })),
        )
        .then(() => this.#end(row.id));
      const running = { abort, ended };
      this.#running.set(row.id, running);
      return running;
    }

    #end(id: string): void {
      this.#running.delete(id);
      this.#sql.exec("delete from run where id = ?", id);
    }

    #rows(where: string, limit = 1_000): Row[] {
      const query = `select * from run where ${where} order by created_at, id limit ?`;
      return this.#sql.exec<Row>(query, Math.max(0, limit)).toArray();
    }
  };

const taskOf = ({ id, created_at, task }: Row): BackgroundTask => ({ id, createdAtMs: created_at, task });
