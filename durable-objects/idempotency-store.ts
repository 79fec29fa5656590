import { DurableObject } from "cloudflare:workers";
import { type ObjectAddress, parseObjectName } from "../src/core/object-name";
import { eraseObject } from "./erasure";
import {
  type ClaimReply,
  ClaimRequest,
  type IdempotencyStoreRpc,
  KeepRequest,
  type KeptReply,
} from "./idempotency-store.messages";
import type { DataKeys, WrappedKey } from "./ports";

/** What an IdempotencyStore needs of the world. */
export interface IdempotencyPorts {
  readonly dataKeys: Pick<DataKeys, "seal" | "open">;
  /** The tenant's data key, as its gate has it; null where there is no such tenant. */
  readonly dataKeyOf: (tenant: ObjectAddress) => Promise<WrappedKey | null>;
  /** Of all replies, sealed; beyond it the oldest are forgotten before their time. */
  readonly maxBytes: number;
}

const SCHEMA = `
  create table if not exists reply (key text primary key, body_digest text not null, request_id text not null,
    state text not null, content text, status integer, headers text, body blob, expires_at integer not null) without rowid;
  create index if not exists reply_by_expiry on reply (expires_at);
  create table if not exists meta (key text primary key, value text not null) without rowid;`;
/** Version 2 seals. What version 1 kept lies there in plain text: that it was done is remembered, the reply is not. */
const SCHEMA_VERSION = "2";
const FORGET_PLAIN_REPLIES = `update reply set state = 'done', status = null, headers = null, body = null
  where state = 'kept'`;
/** How long the first reply is given again. */
const KEPT_MS = 24 * 60 * 60 * 1000;

type Row = {
  readonly key: string;
  readonly body_digest: string;
  readonly request_id: string;
  readonly state: "running" | "kept" | "done";
  readonly content: string | null;
  /** In the clear; headers and body of the reply are sealed together in `body`. */
  readonly status: number | null;
  readonly body: ArrayBuffer | null;
  readonly expires_at: number;
};

/**
 * One per tenant: what was answered to requests with an `Idempotency-Key` (IETF draft "The Idempotency-Key HTTP
 * Header Field"). Of several with the same key one does the work, the others wait here for its reply. Replies lie
 * sealed with the tenant's data key, whose wrapped form is asked for once and kept beside them.
 */
export const idempotencyStore = (portsOf: (env: object) => IdempotencyPorts) =>
  class IdempotencyStore extends DurableObject<object> implements IdempotencyStoreRpc {
    readonly #sql: SqlStorage;
    readonly #ports: IdempotencyPorts;
    /** By key, whoever waits for a change of its row. */
    readonly #waiting = new Map<string, Set<() => void>>();
    #bytes: number;

    constructor(ctx: DurableObjectState, env: object) {
      super(ctx, env);
      this.#sql = ctx.storage.sql;
      this.#ports = portsOf(env);
      ctx.storage.transactionSync(() => {
        this.#sql.exec(SCHEMA);
        if (this.#meta("schema_version") !== SCHEMA_VERSION) this.#sql.exec(FORGET_PLAIN_REPLIES);
        this.#putMeta("schema_version", SCHEMA_VERSION);
      });
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
        if (row.state !== "running") return this.#replyOf(row);
        if (row.request_id === requestId) return { state: "claimed" }; // the first answer was lost on its way
        if (nowMs >= giveUpAtMs) return { state: "running" };
        await this.#change(key, giveUpAtMs - nowMs);
      }
    }

    async keep(raw: KeepRequest): Promise<void> {
      const { key, requestId, content, reply } = KeepRequest.parse(raw);
      const sealed = reply && (await this.#sealed(key, reply));
      const row = this.#find(key);
      if (row?.request_id !== requestId || row.state !== "running") return; // kept already, or no longer its claim
      this.#sql.exec(
        "update reply set state = ?, content = ?, status = ?, body = ?, expires_at = ? where key = ?",
        ...[sealed ? "kept" : "done", content, sealed ? (reply?.status ?? null) : null],
        ...[sealed ? sealed.slice().buffer : null, Date.now() + KEPT_MS, key],
      );
      this.#bytes += sealed?.byteLength ?? 0;
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

    #put(
      key: string,
      claim: { readonly body: string; readonly requestId: string; readonly expiresAtMs: number },
    ): void {
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
      while (this.#bytes > this.#ports.maxBytes) {
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

    /** Undefined where there is no tenant to seal it for: then it is not kept. */
    async #sealed(key: string, reply: KeptReply): Promise<Uint8Array | undefined> {
      try {
        const dataKey = await this.#dataKey();
        return dataKey && (await this.#ports.dataKeys.seal(this.#address, dataKey, purposeOf(key), packed(reply)));
      } catch (error) {
        return unreadable("idempotent_reply_not_sealed", error); // what was done is remembered all the same
      }
    }

    async #replyOf({ key, content, status, body }: Row): Promise<ClaimReply> {
      if (status === null || body === null) return { state: "done", content };
      try {
        const dataKey = await this.#dataKey();
        if (!dataKey) return { state: "done", content };
        const plain = await this.#ports.dataKeys.open(this.#address, dataKey, purposeOf(key), new Uint8Array(body));
        return { state: "kept", reply: { status, ...unpacked(plain) }, content };
      } catch (error) {
        unreadable("idempotent_reply_not_opened", error);
        return { state: "done", content };
      }
    }

    /** Asked for once in the life of a tenant; it never changes. */
    async #dataKey(): Promise<WrappedKey | undefined> {
      const known = this.#meta("data_key");
      if (known !== undefined) return JSON.parse(known) as WrappedKey;
      const dataKey = await this.#ports.dataKeyOf(this.#address);
      if (!dataKey) return undefined;
      this.#putMeta("data_key", JSON.stringify(dataKey));
      return dataKey;
    }

    /** Callers reach this object by its name alone. */
    get #address(): ObjectAddress {
      return parseObjectName(this.ctx.id.name ?? "");
    }

    #meta(key: string): string | undefined {
      return this.#sql.exec<{ value: string }>("select value from meta where key = ?", key).toArray()[0]?.value;
    }

    #putMeta(key: string, value: string): void {
      this.#sql.exec("insert or replace into meta (key, value) values (?, ?)", key, value);
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
  };

/** The length of the headers as JSON, the headers, the body. */
function packed({ headers, body }: KeptReply): Uint8Array {
  const head = new TextEncoder().encode(JSON.stringify(headers));
  const bytes = new Uint8Array(4 + head.byteLength + body.byteLength);
  new DataView(bytes.buffer).setUint32(0, head.byteLength);
  bytes.set(head, 4);
  bytes.set(body, 4 + head.byteLength);
  return bytes;
}

function unpacked(bytes: Uint8Array): Pick<KeptReply, "headers" | "body"> {
  const bodyAt = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const headers = JSON.parse(new TextDecoder().decode(bytes.subarray(4, bodyAt))) as [string, string][];
  return { headers, body: bytes.slice(bodyAt) };
}

function unreadable(event: string, error: unknown): undefined {
  console.error(JSON.stringify({ event, message: String(error).slice(0, 500) }));
}

/** A reply opens for its own key alone. */
const purposeOf = (key: string) => `idempotent reply ${key}`;
