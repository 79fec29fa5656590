import { DurableObject } from "cloudflare:workers";
import { type Breaker, type CallOutcome, type Endpoint, EndpointPool } from "../src/core/endpoint-pool";
import { BURST, type FairCounter, FairShare, type FairSlot } from "../src/core/fair-share";
import {
  type AcquireReply,
  AcquireRequest,
  type CallEndpoint,
  type DispatcherMetrics,
  EndpointSpec,
  FailoverRequest,
  type ListedEndpoint,
  type ModelDispatcherRpc,
  ReleaseRequest,
} from "./model-dispatcher.messages";

/** Requests of all tenants that may wait for one model; each tenant's own line stands before this one. */
const QUEUE_LENGTH = 10_000;
/** A slot of which nothing is heard for this long is free again: its isolate is gone. Those that live say so sooner. */
const SLOT_MS = 45_000;

const SCHEMA = `
  create table if not exists counter (tenant text not null, key text not null, served real not null,
    primary key (tenant, key)) without rowid;
  create table if not exists slot (id text primary key, body text not null) without rowid;
  create table if not exists endpoint (id text primary key, body text not null) without rowid;
  create table if not exists called (id text primary key, endpoint text not null) without rowid;`;
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
  readonly #pool: EndpointPool;
  /** Where each call that runs has gone, and where it has been. */
  readonly #calls = new Map<string, { at: string; readonly tried: string[] }>();
  /** Of a model without endpoints of its own. */
  #catalogueSlots = 0;
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
    const options = { slots: 0, queueLength: QUEUE_LENGTH, slotMs: SLOT_MS, burst: BURST };
    const stored = { counters: counters.map(counterOf), slots: slots.map(({ body }) => JSON.parse(body) as FairSlot) };
    this.#share = FairShare.restore(stored, options);
    const endpoints = this.#sql.exec<{ body: string }>("select body from endpoint").toArray();
    const called = this.#sql.exec<{ id: string; endpoint: string }>("select * from called").toArray();
    this.#pool = EndpointPool.restore(
      endpoints.map(({ body }) => JSON.parse(body) as { endpoint: Endpoint; breaker: Breaker }),
      called.map(({ id, endpoint }) => ({ callId: id, endpointId: endpoint })),
    );
    for (const { id, endpoint } of called) this.#calls.set(id, { at: endpoint, tried: [endpoint] });
  }

  async acquire(raw: AcquireRequest): Promise<AcquireReply> {
    const { requestId, tenantId, keyId, weight, inputTokens, patienceMs, slots } = AcquireRequest.parse(raw);
    const nowMs = Date.now();
    this.#catalogueSlots = slots;
    this.#resize(nowMs);
    const asked = { id: requestId, tenant: tenantId, key: keyId, weight, inputTokens, giveUpAtMs: nowMs + patienceMs };
    const verdict = this.#share.ask(asked, nowMs);
    this.#grantWaiting(nowMs);
    if (verdict.verdict === "granted") return this.#acquired(requestId, 0, nowMs);
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
    const { requestId, outcome, ...used } = ReleaseRequest.parse(raw);
    const nowMs = Date.now();
    this.#leaveEndpoint(requestId, outcome, nowMs);
    this.#share.finish(requestId, used, nowMs);
    this.#grantWaiting(nowMs);
  }

  async failover(raw: FailoverRequest): Promise<CallEndpoint | null> {
    const { requestId, outcome, restMs } = FailoverRequest.parse(raw);
    const nowMs = Date.now();
    const tried = this.#calls.get(requestId)?.tried ?? [];
    this.#leaveEndpoint(requestId, outcome, nowMs, restMs);
    const next = this.#enterEndpoint(requestId, tried, nowMs);
    this.#grantWaiting(nowMs);
    return next;
  }

  async addEndpoint(raw: EndpointSpec): Promise<void> {
    const nowMs = Date.now();
    this.#pool.add({ ...EndpointSpec.parse(raw), addedAtMs: nowMs, isLeaving: false });
    this.#grantWaiting(nowMs);
  }

  async removeEndpoint(id: string): Promise<boolean> {
    const isRemoved = this.#pool.remove(String(id));
    this.#grantWaiting(Date.now());
    return isRemoved;
  }

  async listEndpoints(): Promise<readonly ListedEndpoint[]> {
    return this.#pool.list(Date.now()).map(({ isLeaving: _, ...listed }) => listed);
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
    const { freed, gaveUp } = this.#share.expire(nowMs);
    for (const { id } of freed) this.#leaveEndpoint(id, "failed", nowMs); // its isolate is gone, or its model's answer came to nothing
    for (const id of gaveUp) {
      this.#answer(id, { acquired: false, reason: "queue_timeout", retryAfterMs: 1_000 });
    }
    this.#grantWaiting(nowMs);
  }

  /** Endpoints of its own decide how many calls may run; without any, the catalogue does. */
  #resize(nowMs: number): void {
    this.#share.resize(this.#pool.size > 0 ? this.#pool.capacity(nowMs) : this.#catalogueSlots);
  }

  #acquired(requestId: string, queuedMs: number, nowMs: number): AcquireReply {
    const known = this.#calls.get(requestId);
    const listed = known && this.#pool.list(nowMs).find(({ id }) => id === known.at);
    const endpoint = listed ? { id: listed.id, url: listed.url } : this.#enterEndpoint(requestId, [], nowMs);
    return { acquired: true, queuedMs, endpoint };
  }

  #enterEndpoint(requestId: string, tried: readonly string[], nowMs: number): CallEndpoint | null {
    const chosen = this.#pool.choose(requestId, tried, nowMs);
    if (!chosen) return null;
    this.#calls.set(requestId, { at: chosen.id, tried: [...tried, chosen.id] });
    this.#sql.exec("insert or replace into called (id, endpoint) values (?, ?)", requestId, chosen.id);
    return { id: chosen.id, url: chosen.url };
  }

  #leaveEndpoint(requestId: string, outcome: CallOutcome, nowMs: number, restMs?: number): void {
    const called = this.#calls.get(requestId);
    if (!called) return;
    this.#pool.done(requestId, called.at, outcome, nowMs, restMs);
    this.#calls.delete(requestId);
    this.#sql.exec("delete from called where id = ?", requestId);
  }

  #grantWaiting(nowMs: number): void {
    this.#resize(nowMs);
    for (const { id } of this.#share.grantWaiting(nowMs)) {
      const waited = nowMs - (this.#waiting.get(id)?.enqueuedAtMs ?? nowMs);
      const reply = this.#acquired(id, waited, nowMs);
      this.#answer(id, reply);
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
    const endpoints = this.#pool.takeDirty();
    this.ctx.storage.transactionSync(() => {
      for (const member of endpoints.upsert) {
        const body = JSON.stringify(member);
        this.#sql.exec("insert or replace into endpoint (id, body) values (?, ?)", member.endpoint.id, body);
      }
      for (const id of endpoints.remove) this.#sql.exec("delete from endpoint where id = ?", id);
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
    // Who waits for an endpoint that rests must look again when it may be tried.
    const restingMs = this.#waiting.size > 0 ? this.#pool.nextDueMs(Date.now()) : undefined;
    const nextMs = Math.min(this.#share.nextDueMs() ?? Infinity, restingMs ?? Infinity);
    if (nextMs === Infinity) return;
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
