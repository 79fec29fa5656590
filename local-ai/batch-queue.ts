import type { BatchRequest } from "./inputs";

const SCHEMA = `
  create table if not exists batch (id text primary key, model text not null, created_ms integer not null)
    without rowid;
  create table if not exists batch_request (batch text not null, number integer not null, body text not null,
    outcome text, primary key (batch, number)) without rowid;
  create index if not exists batch_request_open on batch_request (batch, number) where outcome is null;`;
/** Results can be fetched for this long. */
const KEPT_MS = 24 * 60 * 60 * 1000;

export interface PendingRequest {
  readonly batch: string;
  readonly number: number;
  readonly model: string;
  readonly inputs: BatchRequest;
}
export type Outcome =
  | { readonly success: true; readonly result: unknown }
  | { readonly success: false; readonly error: string };

/** Workers AI, "Asynchronous Batch API": what a poll answers. */
export type BatchStatus =
  | { readonly status: "queued" | "running"; readonly model: string; readonly request_id: string }
  | {
      readonly responses: readonly (Outcome & { readonly id: number; readonly external_reference?: string })[];
      readonly usage: {
        readonly prompt_tokens: number;
        readonly completion_tokens: number;
        readonly total_tokens: number;
      };
    };

/** Requests that may wait, in the object's database: a restart loses none, and runs none twice that has its outcome. */
export class BatchQueue {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(SCHEMA);
  }

  add(model: string, requests: readonly BatchRequest[], nowMs: number): string {
    const id = crypto.randomUUID();
    this.#forget(nowMs - KEPT_MS);
    this.#sql.exec("insert into batch values (?, ?, ?)", id, model, nowMs);
    for (const [number, request] of requests.entries())
      this.#sql.exec("insert into batch_request values (?, ?, ?, null)", id, number, JSON.stringify(request));
    return id;
  }

  /** The oldest requests without an outcome. */
  pending(limit: number): PendingRequest[] {
    const rows = this.#sql.exec<{ batch: string; number: number; body: string; model: string }>(
      `select batch, number, body, model from batch_request join batch on batch.id = batch
       where outcome is null order by created_ms, batch, number limit ?`,
      limit,
    );
    return [...rows].map(({ batch, number, body, model }) => ({
      ...{ batch, number, model },
      inputs: JSON.parse(body) as BatchRequest,
    }));
  }

  settle({ batch, number }: PendingRequest, outcome: Outcome): void {
    const text = JSON.stringify(outcome);
    this.#sql.exec("update batch_request set outcome = ? where batch = ? and number = ?", text, batch, number);
  }

  /** @returns undefined for one that is not known, or no longer */
  status(id: string): BatchStatus | undefined {
    const [batch] = this.#sql.exec<{ model: string }>("select model from batch where id = ?", id);
    if (!batch) return undefined;
    const rows = [
      ...this.#sql.exec<{ number: number; body: string; outcome: string | null }>(
        "select number, body, outcome from batch_request where batch = ? order by number",
        id,
      ),
    ];
    const open = rows.filter(({ outcome }) => outcome === null).length;
    if (open > 0) return { status: open === rows.length ? "queued" : "running", model: batch.model, request_id: id };
    const responses = rows.map(({ number, body, outcome }) => {
      const { external_reference: reference } = JSON.parse(body) as BatchRequest;
      const told = JSON.parse(outcome ?? "") as Outcome;
      return { id: number, ...told, ...(reference === undefined ? {} : { external_reference: reference }) };
    });
    return { responses, usage: usageOf(responses) };
  }

  #forget(beforeMs: number): void {
    this.#sql.exec("delete from batch_request where batch in (select id from batch where created_ms < ?)", beforeMs);
    this.#sql.exec("delete from batch where created_ms < ?", beforeMs);
  }
}

function usageOf(outcomes: readonly Outcome[]) {
  const sum = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };
  for (const outcome of outcomes) {
    const { usage } = (outcome.success ? outcome.result : {}) as { usage?: Partial<typeof sum> };
    for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += usage?.[name] ?? 0;
  }
  return sum;
}
