import { DurableObject } from "cloudflare:workers";
import { eraseObject } from "./erasure";
import { type ClaimReply, ClaimRequest, type IdempotencyStoreRpc, KeepRequest } from "./idempotency-store.messages";

const SCHEMA = `
  create table if not exists reply (key text primary key, body_digest text not null, request_id text not null,
    state text not null, content text, status integer, headers text, body blob, expires_at integer not null) without rowid;
  create index if not exists reply_by_expiry on reply (expires_at);`;
/** How long the first reply is given again. */
const KEPT_MS = 24 * 60 * 60 * 1000;
/** Of all replies; beyond it the oldest are forgotten before their time. */
const MAX_BYTES = 1024 * 1024 * 1024;

type Row = {
  readonly body_digest: string;
  readonly request_id: string;
  readonly state: "running" | "kept" | "done";
  readonly content: string | null;
  readonly status: number | null;
  readonly headers: string | null;
  readonly body: ArrayBuffer | null;
  readonly expires_at: number;
};

/**
 * One per tenant: what was answered to requests with an `Idempotency-Key` (IETF draft "The Idempotency-Key HTTP
 * Header Field"). Of several with the same key one does the work, the others wait here for its reply.
 */
export class IdempotencyStore extends DurableObject<object> implements IdempotencyStoreRpc {
  readonly #sql: SqlStorage;
  /** By key, whoever waits for a change of its row. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #bytes: number;

  constructor(ctx: DurableObjectState, env: object) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#sql.exec(SCHEMA);
    const sum = "select coalesce(sum(length(body)), 0) as bytes from reply";
    this.#bytes = this.#sql.exec<{ bytes: number }>(sum).one().bytes;
  }

  async claim(raw: ClaimRequest): Promise<ClaimReply> {
    const { key, body, requestId, patienceMs, holdMs } = ClaimRequest.parse(raw);
    const giveUpAtMs = Date.now() + patienceMs;
    for (;;) {
      const nowMs = Date.now();
      const row = this.#find(key);
      if (!row || row.expires_at <= nowMs) {
        this.#put(key, { body, requestId, expiresAtMs: nowMs + holdMs });
        return { state: "claimed" };
      }
      if (row.body_digest !== body) return { state: "reused" };
      if (row.state !== "running") return replyOf(row);
      if (row.request_id === requestId) return { state: "claimed" }; // the first answer was lost on its way
      if (nowMs >= giveUpAtMs) return { state: "running" };
      await this.#change(key, giveUpAtMs - nowMs);
    }
  }

  async keep(raw: KeepRequest): Promise<void> {
    const { key, requestId, content, reply } = KeepRequest.parse(raw);
    const row = this.#find(key);
    if (row?.request_id !== requestId || row.state !== "running") return; // kept already, or no longer its claim
    const bytes = reply?.body.byteLength ?? 0;
    this.#sql.exec(
      "update reply set state = ?, content = ?, status = ?, headers = ?, body = ?, expires_at = ? where key = ?",
      ...[reply ? "kept" : "done", content, reply?.status ?? null, reply ? JSON.stringify(reply.headers) : null],
      ...[reply ? reply.body.slice().buffer : null, Date.now() + KEPT_MS, key],
    );
    this.#bytes += bytes;
    this.#makeRoom();
    this.#wake(key);
  }

  async release(key: string, requestId: string): Promise<void> {
    const gone = "delete from reply where key = ? and request_id = ? and state = 'running'";
    this.#sql.exec(gone, String(key), String(requestId));
    this.#wake(String(key));
  }

  async countRows(): Promise<number> {
    return this.#sql.exec<{ n: number }>("select count(*) as n from reply").one().n;
  }

  async erase(): Promise<void> {
    await eraseObject(this.ctx);
  }

  /** Forgets what is over. */
  override async alarm(): Promise<void> {
    this.#forget("expires_at <= ?", Date.now());
    const next = this.#sql.exec<{ at: number | null }>("select min(expires_at) as at from reply").one().at;
    if (next !== null) await this.ctx.storage.setAlarm(next);
  }

  #find(key: string): Row | undefined {
    return this.#sql.exec<Row>("select * from reply where key = ?", key).toArray()[0];
  }

  #put(key: string, claim: { readonly body: string; readonly requestId: string; readonly expiresAtMs: number }): void {
    this.#forget("key = ?", key);
    this.#sql.exec(
      "insert into reply (key, body_digest, request_id, state, expires_at) values (?, ?, ?, 'running', ?)",
      ...[key, claim.body, claim.requestId, claim.expiresAtMs],
    );
    void this.#remind(claim.expiresAtMs);
  }

  /** What is over is not given any more, whenever the alarm comes; it only clears away. */
  async #remind(atMs: number): Promise<void> {
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(atMs);
  }

  #makeRoom(): void {
    while (this.#bytes > MAX_BYTES) {
      const oldest = "select key from reply where state = 'kept' order by expires_at limit 1";
      const [row] = this.#sql.exec<{ key: string }>(oldest).toArray();
      if (!row) return;
      this.#forget("key = ?", row.key);
    }
  }

  #forget(where: string, value: string | number): void {
    const gone = this.#sql
      .exec<{ bytes: number | null }>(`delete from reply where ${where} returning length(body) as bytes`, value)
      .toArray();
    this.#bytes -= gone.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
  }

  /** Settles when the row of a key changes, or after so long. */
  #change(key: string, patienceMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, waiting.add(resolve));
    const timer = setTimeout(resolve, patienceMs);
    return promise.finally(() => {
      clearTimeout(timer);
      waiting.delete(resolve);
      if (waiting.size === 0) this.#waiting.delete(key);
    });
  }

  #wake(key: string): void {
    for (const resolve of this.#waiting.get(key) ?? []) resolve();
  }
}

function replyOf({ content, status, headers, body }: Row): ClaimReply {
  if (status === null || headers === null || body === null) return { state: "done", content };
  const reply = { status, headers: JSON.parse(headers) as [string, string][], body: new Uint8Array(body) };
  return { state: "kept", reply, content };
}
