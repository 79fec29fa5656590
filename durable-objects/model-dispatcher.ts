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
    const running = called.flatMap(({ id, endpoint }) => {
      const slot = this.#share.slotOf(id); // without one nothing of the call runs any more
      return slot ? [{ callId: id, endpointId: endpoint, sequences: slot.sequences ?? 1 }] : [];
    });
    this.#pool = EndpointPool.restore(
      endpoints.map(({ body }) => JSON.parse(body) as { endpoint: Endpoint; breaker: Breaker }),
      running,
    );
    for (const { callId, endpointId } of running) this.#calls.set(callId, { at: endpointId, tried: [endpointId] });
    if (running.length < called.length) this.#sql.exec("delete from called where id not in (select id from slot)");
  }

  async acquire(raw: AcquireRequest): Promise<AcquireReply> {
    const { requestId, tenantId, keyId, patienceMs, slots, ...work } = AcquireRequest.parse(raw);
    const nowMs = Date.now();
    this.#catalogueSlots = slots;
    this.#resize(nowMs);
    const asked = { id: requestId, tenant: tenantId, key: keyId, ...work, giveUpAtMs: nowMs + patienceMs };
    const verdict = this.#share.ask(asked, nowMs);
    // The first slot needs its endpoint before another one is granted.
    const reply = verdict.verdict === "granted" ? this.#acquired(verdict.slot, 0, nowMs) : undefined;
    this.#grantWaiting(nowMs);
    if (reply) return reply;
    if (verdict.verdict === "refused") {
      const { reason, retryAfterMs } = verdict;
      return { acquired: false, reason: reason === "ended" ? "left" : reason, retryAfterMs };
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
    if (!this.#share.leave(String(requestId))) return;
    this.#answer(requestId, LEFT);
    this.#wake(); // without a caller that waits, the object may sleep
  }

  async progress(requestId: string, outputTokens: number): Promise<void> {
    this.#share.progress(String(requestId), Math.max(0, Math.floor(Number(outputTokens) || 0)), Date.now());
    this.#save();
  }

  async release(raw: ReleaseRequest): Promise<void> {
    const { requestId, outcome, ...used } = ReleaseRequest.parse(raw);
    const nowMs = Date.now();
    this.#leaveEndpoint(requestId, outcome, nowMs);
    if (!this.#share.finish(requestId, used, nowMs)) this.#answer(requestId, LEFT);
    this.#grantWaiting(nowMs);
  }

  async failover(raw: FailoverRequest): Promise<CallEndpoint | null> {
    const { requestId, endpointId, outcome, restMs } = FailoverRequest.parse(raw);
    const nowMs = Date.now();
    const slot = this.#share.slotOf(requestId);
    if (!slot) return null; // its slot was freed: nothing of it may run anywhere
    const called = this.#calls.get(requestId);
    if (endpointId !== undefined && called?.at !== endpointId) return called ? this.#endpointOf(slot, nowMs) : null;
    this.#leaveEndpoint(requestId, outcome, nowMs, restMs);
    const next = this.#enterEndpoint(slot, called?.tried ?? [], nowMs);
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
    if (this.#pool.size > 0) this.#share.resize(this.#pool.capacity(nowMs), this.#pool.widest(nowMs));
    else this.#share.resize(this.#catalogueSlots);
  }

  #acquired(slot: FairSlot, queuedMs: number, nowMs: number): AcquireReply {
    const endpoint = this.#endpointOf(slot, nowMs) ?? this.#enterEndpoint(slot, [], nowMs);
    return { acquired: true, queuedMs, endpoint, sequences: this.#share.slotOf(slot.id)?.sequences ?? 1 };
  }

  /** Where it runs. */
  #endpointOf({ id, sequences = 1 }: FairSlot, nowMs: number): CallEndpoint | null {
    const called = this.#calls.get(id);
    const listed = called && this.#pool.list(nowMs).find((endpoint) => endpoint.id === called.at);
    return listed ? { id: listed.id, url: listed.url, sequences } : null;
  }

  /** Where there is room for fewer of its sequences than it has slots, it gives the others back. */
  #enterEndpoint({ id, sequences = 1 }: FairSlot, tried: readonly string[], nowMs: number): CallEndpoint | null {
    const endpoint = this.#pool.choose(id, tried, nowMs, sequences);
    if (!endpoint) return null;
    const fits = this.#pool.sequencesOf(id, endpoint.id);
    this.#share.narrow(id, fits);
    this.#calls.set(id, { at: endpoint.id, tried: [...tried, endpoint.id] });
    this.#sql.exec("insert or replace into called (id, endpoint) values (?, ?)", id, endpoint.id);
    return { id: endpoint.id, url: endpoint.url, sequences: fits };
  }

  #leaveEndpoint(requestId: string, outcome: CallOutcome, nowMs: number, restMs?: number): void {
    const called = this.#calls.get(requestId);
    if (!called) return;
    this.#pool.done(requestId, called.at, outcome, nowMs, restMs);
    this.#calls.delete(requestId);
    this.#sql.exec("delete from called where id = ?", requestId);
  }

  #grantWaiting(nowMs: number): void {
    for (;;) {
      this.#resize(nowMs); // each grant takes room at an endpoint
      const slot = this.#share.grantNext(nowMs);
      if (!slot) break;
      const queuedMs = nowMs - (this.#waiting.get(slot.id)?.enqueuedAtMs ?? nowMs);
      this.#answer(slot.id, this.#acquired(slot, queuedMs, nowMs));
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

/** For a call that was cancelled, or released, before it had a slot. */
const LEFT: AcquireReply = { acquired: false, reason: "left", retryAfterMs: 0 };

const counterOf = ({ tenant, key, served }: { tenant: string; key: string; served: number }): FairCounter => ({
  tenant,
  key: key === WHOLE_TENANT ? null : key,
  served,
});
