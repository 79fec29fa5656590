import { DurableObject } from "cloudflare:workers";
import { type FairCounter, FairShare, type FairSlot } from "../src/core/fair-share";
import {
  type AcquireReply,
  AcquireRequest,
  type DispatcherMetrics,
  type ModelDispatcherRpc,
  ReleaseRequest,
} from "./model-dispatcher.messages";

/** Requests of all tenants that may wait for one model; each tenant's own line stands before this one. */
const QUEUE_LENGTH = 10_000;
/** A slot of which nothing is heard for this long is free again: its isolate is gone. Longer than a model may be silent. */
const SLOT_MS = 150_000;

const SCHEMA = `
  create table if not exists counter (tenant text not null, key text not null, served real not null,
    primary key (tenant, key)) without rowid;
  create table if not exists slot (id text primary key, body text not null) without rowid;`;
/** The tenant's own counter, beside those of its keys, which are never empty. */
const WHOLE_TENANT = "";

type Answer = (reply: AcquireReply) => void;

/**
 * One per scarce model and region: it shares the model's slots between tenants by {@link FairShare}. What it decided
 * is written in the same turn; the runtime lets no answer out before that is durable.
 */
export class ModelDispatcher extends DurableObject<object> implements ModelDispatcherRpc {
  readonly #sql: SqlStorage;
  readonly #share: FairShare;
  readonly #waiting = new Map<string, { readonly enqueuedAtMs: number; readonly answer: Answer }>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #alarmAtMs: number | undefined;

  constructor(ctx: DurableObjectState, env: object) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#sql.exec(SCHEMA);
    const counters = this.#sql.exec<{ tenant: string; key: string; served: number }>("select * from counter").toArray();
    const slots = this.#sql.exec<{ body: string }>("select body from slot").toArray();
    // How many slots there are, the first call says.
    const options = { slots: 0, queueLength: QUEUE_LENGTH, slotMs: SLOT_MS };
    const stored = { counters: counters.map(counterOf), slots: slots.map(({ body }) => JSON.parse(body) as FairSlot) };
    this.#share = FairShare.restore(stored, options);
  }

  async acquire(raw: AcquireRequest): Promise<AcquireReply> {
    const { requestId, tenantId, keyId, weight, inputTokens, patienceMs, slots } = AcquireRequest.parse(raw);
    const nowMs = Date.now();
    this.#share.resize(slots);
    const asked = { id: requestId, tenant: tenantId, key: keyId, weight, inputTokens, giveUpAtMs: nowMs + patienceMs };
    const verdict = this.#share.ask(asked, nowMs);
    this.#grantWaiting(nowMs);
    if (verdict.verdict === "granted") return { acquired: true, queuedMs: 0 };
    if (verdict.verdict === "refused") {
      return { acquired: false, reason: verdict.reason, retryAfterMs: verdict.retryAfterMs };
    }
    const { promise, resolve } = Promise.withResolvers<AcquireReply>();
    // A caller that asks again because its first answer is late waits beside its first call.
    const earlier = this.#waiting.get(requestId);
    const answer: Answer = (reply) => {
      earlier?.answer(reply);
      resolve(reply);
    };
    this.#waiting.set(requestId, { enqueuedAtMs: earlier?.enqueuedAtMs ?? nowMs, answer });
    this.#wake();
    return promise;
  }

  async leave(requestId: string): Promise<void> {
    if (this.#share.leave(String(requestId)))
      this.#answer(requestId, { acquired: false, reason: "left", retryAfterMs: 0 });
  }

  async progress(requestId: string, outputTokens: number): Promise<void> {
    this.#share.progress(String(requestId), Math.max(0, Math.floor(Number(outputTokens) || 0)), Date.now());
    this.#save();
  }

  async release(raw: ReleaseRequest): Promise<void> {
    const { requestId, ...used } = ReleaseRequest.parse(raw);
    const nowMs = Date.now();
    this.#share.finish(requestId, used, nowMs);
    this.#grantWaiting(nowMs);
  }

  async metrics(): Promise<DispatcherMetrics> {
    return this.#share.metrics(Date.now());
  }

  async countRows(tenantId: string): Promise<number> {
    const rows = "select count(*) as n from counter where tenant = ?";
    return this.#sql.exec<{ n: number }>(rows, String(tenantId)).one().n;
  }

  async eraseTenant(tenantId: string): Promise<void> {
    this.#share.forget(String(tenantId));
    this.#save();
  }

  override async alarm(): Promise<void> {
    this.#alarmAtMs = undefined;
    this.#expire();
  }

  #expire(): void {
    const nowMs = Date.now();
    for (const id of this.#share.expire(nowMs).gaveUp) {
      this.#answer(id, { acquired: false, reason: "queue_timeout", retryAfterMs: 1_000 });
    }
    this.#grantWaiting(nowMs);
  }

  #grantWaiting(nowMs: number): void {
    for (const { id } of this.#share.grantWaiting(nowMs)) {
      const waited = nowMs - (this.#waiting.get(id)?.enqueuedAtMs ?? nowMs);
      this.#answer(id, { acquired: true, queuedMs: waited });
    }
    this.#save();
    this.#wake();
  }

  #answer(id: string, reply: AcquireReply): void {
    this.#waiting.get(id)?.answer(reply);
    this.#waiting.delete(id);
  }

  #save(): void {
    const { tenants, slots } = this.#share.takeDirty();
    if (tenants.length + slots.upsert.length + slots.remove.length === 0) return;
    this.ctx.storage.transactionSync(() => {
      for (const { tenant, counters } of tenants) {
        this.#sql.exec("delete from counter where tenant = ?", tenant);
        for (const { key, served } of counters) {
          this.#sql.exec(
            "insert into counter (tenant, key, served) values (?, ?, ?)",
            tenant,
            key ?? WHOLE_TENANT,
            served,
          );
        }
      }
      for (const slot of slots.upsert) {
        this.#sql.exec("insert or replace into slot (id, body) values (?, ?)", slot.id, JSON.stringify(slot));
      }
      for (const id of slots.remove) this.#sql.exec("delete from slot where id = ?", id);
    });
  }

  /** Those who wait hold the object awake, so a timer is enough for them; for slots there is an alarm. */
  #wake(): void {
    clearTimeout(this.#timer);
    const nextMs = this.#share.nextDueMs();
    if (nextMs === undefined) return;
    if (this.#waiting.size > 0) this.#timer = setTimeout(() => this.#expire(), Math.max(0, nextMs - Date.now()));
    if (this.#alarmAtMs !== undefined && this.#alarmAtMs <= nextMs) return;
    this.#alarmAtMs = nextMs;
    void this.ctx.storage.setAlarm(this.#alarmAtMs);
  }
}

const counterOf = ({ tenant, key, served }: { tenant: string; key: string; served: number }): FairCounter => ({
  tenant,
  key: key === WHOLE_TENANT ? null : key,
  served,
});
