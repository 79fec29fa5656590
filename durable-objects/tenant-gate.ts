import { DurableObject } from "cloudflare:workers";
import type { z } from "zod";
import { AdmissionBook, type AdmissionRequest, type Hold, type RateRule } from "../src/core/admission-book";
import { costOfDraw, type Lease } from "../src/core/gate-leases";
import { type ObjectAddress, parseObjectName } from "../src/core/object-name";
import type { PolicySnapshot } from "../src/core/policy";
import { pricesOf } from "../src/core/prices";
import {
  type CallFacts,
  type DecisionRecord,
  recordsOf,
  type UsageEvent,
  unreconciledEnd,
  unreconciledLease,
} from "../src/core/records";
import { admissionOf, factsOf, ratesOf, refusedByPlan } from "./admission";
import { copiesOf, decideChange } from "./changes";
import { readDecisions } from "./decision-reader";
import { eraseObject } from "./erasure";
import { GateAdmissions } from "./gate-admissions";
import { GatePurge } from "./gate-purge";
import { GateUpkeep } from "./gate-upkeep";
import { GroupCommit } from "./group-commit";
import { GateJournal } from "./journal";
import { journalSums } from "./journal-sums";
import { limitStates } from "./limits-view";
import type { GatePorts, ObjectHome, WrappedKey } from "./ports";
import { alertRecord, RefusalTally, type RefusedRequest } from "./refusals";
import { nextPurgeMs } from "./retention";
import { JournalSegments } from "./segments";
import type { Key } from "./tenant-facts";
import {
  type AdmitReply,
  AdmitRequest,
  type BindReply,
  BindRequest,
  type ChangeReply,
  ChangeRequest,
  type FinishReply,
  FinishRequest,
  type GrantedLease,
  type HourlyUsage,
  type JournalPage,
  JournalQuery,
  type JournalSums,
  type LimitsReply,
  ReturnRequest,
  type TenantGateRpc,
} from "./tenant-gate.messages";
import { migrate, type Statements, statements } from "./tenant-gate-statements";
import { TenantStore } from "./tenant-store";

/** Refusals of one second become one record each; see {@link RefusalTally}. */
const TALLY_MS = 1_000;
/** Models of one look at the limits. */
const MAX_MODELS = 1_000;

type ParsedAdmit = z.output<typeof AdmitRequest>;
type ParsedFinish = z.output<typeof FinishRequest>;

/**
 * One per tenant: the single writer of its hot path. It decides by `src/core`, keeps what it decided in its own
 * SQLite, and answers only when that is durable. No `await` stands between reading its state and changing it.
 */
export const tenantGate = (portsOf: (env: object) => GatePorts) =>
  class TenantGate extends DurableObject<object> implements TenantGateRpc {
    readonly #address: ObjectAddress;
    readonly #sql: Statements;
    readonly #ports: GatePorts;
    readonly #store: TenantStore;
    readonly #book: AdmissionBook<CallFacts>;
    readonly #admissions: GateAdmissions;
    readonly #purge: GatePurge;
    readonly #journal: GateJournal;
    readonly #segments: JournalSegments;
    readonly #commit: GroupCommit;
    readonly #upkeep: GateUpkeep;
    readonly #refusals = new RefusalTally();

    constructor(ctx: DurableObjectState, env: object) {
      super(ctx, env);
      // An alarm after a restart may not know the object's name, so it is kept.
      migrate(ctx.storage.sql);
      this.#sql = statements(ctx.storage.sql);
      const name = this.#sql.meta("name") ?? ctx.id.name;
      if (!name || (ctx.id.name && ctx.id.name !== name)) throw new TypeError("a gate that is not the one meant");
      this.#sql.putMeta("name", name);
      this.#address = parseObjectName(name);
      this.#ports = portsOf(env);
      this.#store = new TenantStore(this.#sql);
      this.#journal = new GateJournal(this.#sql, this.#ports.sha256);
      this.#book = restoreBook(this.#sql, this.#ports.maxDraws);
      const transaction = (work: () => void) => ctx.storage.transactionSync(work);
      this.#segments = new JournalSegments(
        () => this.#home,
        this.#sql,
        this.#ports,
        () => this.#store.dataKey,
        transaction,
      );
      this.#commit = new GroupCommit(
        () => transaction(() => this.#save()),
        () => ctx.storage.sync(),
        (error) => ctx.abort(`a commit failed, memory is ahead of storage: ${String(error)}`),
      );
      this.#upkeep = new GateUpkeep(ctx.storage, this.#sql, {
        expire: () => this.#expire(),
        outbox: () => this.#flushOutbox(),
        purge: () => this.#runPurge(),
        rollup: () => this.#flushUsage(),
        segment: async () => void (await this.#segments.sealOldest(Date.now())),
      });
      this.#upkeep.keepPromise("expire", this.#book.nextHoldExpiryMs());
      this.#admissions = new GateAdmissions(this.#book, {
        holdDue: (dueMs) => this.#upkeep.keepPromise("expire", dueMs),
        expire: () => void this.#expire(),
      });
      this.#purge = new GatePurge(this.#store, this.#ports, {
        home: () => this.#home,
        transaction,
        flush: async () => {
          await this.#upkeep.runNow("outbox");
          await this.#upkeep.runNow("rollup");
        },
        erase: () => this.erase(),
      });
    }

    async bind(raw: BindRequest): Promise<BindReply> {
      const { credential, knownPolicyVersion, call } = BindRequest.parse(raw);
      const first = this.#find(credential);
      if ("reason" in first) return { bound: false, ...first };
      const admission = call && mayCall(first, call) ? await this.#admit({ ...call, keyId: first.key.id }) : null;
      // It may have waited: who it is, and under which policy, is answered as of now.
      const found = admission ? this.#find(credential) : first;
      if ("reason" in found) return { bound: false, ...found };
      const { policy, key } = found;
      const { id, serviceAccountId, scopes } = key;
      return {
        bound: true,
        key: { id, serviceAccountId, scopes },
        policyVersion: policy.version,
        policy: policy.version === knownPolicyVersion ? null : policy,
        admission,
      };
    }

    async admit(raw: AdmitRequest): Promise<AdmitReply> {
      return this.#admit(AdmitRequest.parse(raw));
    }

    async leave(requestId: string): Promise<void> {
      this.#admissions.leave(String(requestId));
    }

    async finish(raw: FinishRequest): Promise<FinishReply> {
      const { requestId, end, draw } = FinishRequest.parse(raw);
      const nowMs = Date.now();
      if (draw) return this.#finishDraw(requestId, draw, end, nowMs);
      if (end === null) {
        this.#book.release(requestId);
        this.#admissions.grantWaiting();
        await this.#commit.durable();
        return { settled: true, receipt: null };
      }
      const hold = this.#book.hold(requestId);
      if (!hold) {
        const recorded = this.#journal.recorded(requestId);
        if (!recorded || recorded.event.outcome === "unreconciled") return { settled: false };
        await this.#commit.durable();
        return { settled: true, receipt: recorded.receipt };
      }
      const records = recordsOf(factsOf(hold), end, nowMs);
      this.#book.settle(requestId, usedBy(records.event), nowMs);
      const receipt = this.#record(records, nowMs);
      this.#admissions.grantWaiting();
      await this.#commit.durable();
      return { settled: true, receipt };
    }

    async returnLease(raw: ReturnRequest): Promise<void> {
      const { leaseId, running } = ReturnRequest.parse(raw);
      // What is recorded already is over, though its answer may not have arrived there.
      const open = running.filter(({ requestId }) => this.#journal.recorded(requestId) === undefined);
      this.#book.returnLease(leaseId, open, Date.now());
      this.#admissions.leaseIsBack();
      await this.#commit.durable();
    }

    async change(raw: ChangeRequest): Promise<ChangeReply> {
      const { command, actorKeyId, auditId } = ChangeRequest.parse(raw);
      const isNew = command.type === "create_tenant" && !this.#store.hasDataKey;
      const dataKey = isNew ? await this.#ports.dataKeys.create(this.#address) : null;
      const nowMs = Date.now();
      const change = decideChange(this.#address, this.#store.facts, command, nowMs);
      if ("refused" in change) return { changed: false, reason: change.refused };
      const copies = copiesOf(change, this.#store.facts, { id: auditId, actorKeyId }, nowMs);
      this.ctx.storage.transactionSync(() => this.#store.apply(change, copies, dataKey));
      this.#upkeep.keepPromise("outbox", nowMs);
      this.#upkeep.keepPromise("purge", nextPurgeMs(this.#store.facts));
      const { policy } = this.#store;
      if (!policy) throw new TypeError("a changed tenant without a policy");
      this.#admissions.relimit(policy);
      await this.#commit.durable();
      // The change is made; its copies follow at once, or by the alarm where a database does not answer.
      await this.#upkeep.tryNow("outbox");
      return { changed: true, policy: this.#store.policy ?? policy, nowMs };
    }

    async policy(): Promise<PolicySnapshot | null> {
      return this.#store.policy;
    }

    async dataKey(): Promise<WrappedKey | null> {
      return this.#store.hasDataKey ? this.#store.dataKey : null;
    }

    async limits(models: readonly string[]): Promise<LimitsReply | null> {
      const { policy } = this.#store;
      if (!policy) return null;
      const limits = limitStates(policy, this.#book, models.slice(0, MAX_MODELS).map(String), Date.now());
      const { inFlight: running, waiting } = this.#book;
      return { policy, limits, inFlight: { limit: policy.limits.inFlight, running, waiting } };
    }

    async isEmpty(): Promise<boolean> {
      await this.#commit.durable();
      return this.#store.facts.isEmpty;
    }

    async decisions(raw: JournalQuery): Promise<JournalPage> {
      await this.#commit.durable(); // what was just recorded is part of the answer
      return readDecisions(this.#sql, this.#segments, JournalQuery.parse(raw));
    }

    async journalSums(fromMs: number, toMs: number): Promise<JournalSums> {
      await this.#upkeep.tryNow("rollup");
      return journalSums(this.#sql, this.#segments, Number(fromMs), Number(toMs));
    }

    async unsyncedUsage(): Promise<readonly HourlyUsage[]> {
      await this.#commit.durable();
      return this.#journal.unsynced().map(({ usage }) => usage);
    }

    async countRows(): Promise<number> {
      await this.#commit.durable();
      return this.#sql.countRows();
    }

    async erase(): Promise<void> {
      this.#upkeep.stop();
      await eraseObject(this.ctx);
    }

    override async alarm(): Promise<void> {
      await this.#upkeep.runDue(Date.now());
    }

    get #home(): ObjectHome {
      return { ...this.#address, isolation: this.#store.policy?.isolation ?? "pool" };
    }

    /** Who a credential is, while key and tenant may call. */
    #find(credential: z.output<typeof BindRequest>["credential"]): Found | NotFound {
      const { policy } = this.#store;
      const key = this.#store.liveKey(credential, Date.now());
      if (!policy || !key) return { reason: "unknown_key" };
      return policy.status === "active" ? { policy, key } : { reason: closed(policy.status) };
    }

    async #admit(request: ParsedAdmit): Promise<AdmitReply> {
      const caller = this.#find({ keyId: request.keyId });
      if ("reason" in caller) return { admitted: false, reason: caller.reason };
      const { policy } = caller;
      const nowMs = Date.now();
      const rates = ratesOf(policy, request);
      const known = this.#book.hold(request.requestId);
      if (known) {
        // The first answer was lost on its way, and with it the lease that it brought.
        const lease = this.#book.leaseOf(request.requestId);
        return this.#granted(known, rates, lease ? grantedLease(lease) : null);
      }
      const prices = pricesOf(this.#ports.prices, request.model);
      const reason = refusedByPlan(policy, request, rates, prices);
      if (reason) {
        this.#refused(request, policy, reason);
        return { admitted: false, reason };
      }
      const asked = admissionOf(this.#address, policy, request, rates, prices, nowMs);
      const verdict = await this.#admissions.decide(asked);
      this.#recordAlerts(request, policy);
      if ("left" in verdict) return { admitted: false, reason: "unknown_key" };
      if ("refusal" in verdict) {
        this.#refused(request, policy, verdict.refusal.rule);
        return { admitted: false, refusal: verdict.refusal, rates: this.#book.rates(rates, Date.now()) };
      }
      const lease = this.#lease(request, asked);
      await this.#commit.durable();
      const after = this.#find({ keyId: request.keyId });
      if (!("reason" in after)) return this.#granted(verdict.hold, rates, lease);
      // Revoked while it waited in the line.
      await this.finish({ requestId: request.requestId, end: null });
      return { admitted: false, reason: after.reason };
    }

    #granted(hold: Hold<CallFacts>, rates: readonly RateRule[], lease: GrantedLease | null = null): AdmitReply {
      const queuedMs = hold.grantedAtMs - hold.enqueuedAtMs;
      const policyVersion = this.#store.policy?.version ?? 0;
      const { outputTokens } = hold;
      return {
        admitted: true,
        outputTokens,
        queuedMs,
        rates: this.#book.rates(rates, Date.now()),
        policyVersion,
        lease,
      };
    }

    /** More of the same, prepaid, for an isolate that is busy with it. An end user's own rates are always asked for. */
    #lease(request: ParsedAdmit, asked: AdmissionRequest<CallFacts>): GrantedLease | null {
      const wanted = Math.min(request.wantedDraws, this.#ports.maxDraws);
      if (wanted < 1 || request.endUser) return null;
      const lease = this.#book.lease(request.requestId, asked, wanted, Date.now());
      if (!lease) return null;
      this.#upkeep.keepPromise("expire", lease.expiresAtMs);
      return grantedLease(lease);
    }

    /** The end of a call that its isolate admitted by itself. */
    async #finishDraw(
      requestId: string,
      draw: NonNullable<ParsedFinish["draw"]>,
      end: ParsedFinish["end"],
      nowMs: number,
    ): Promise<FinishReply> {
      const recorded = this.#journal.recorded(requestId);
      const lease = this.#book.leaseOf(draw.leaseId);
      if (recorded || !lease) {
        await this.#commit.durable();
        return recorded ? { settled: true, receipt: recorded.receipt } : { settled: false };
      }
      const { kind, route, stream, promptTokens, outputTokens } = draw;
      const called = { kind, route, stream, reservedPromptTokens: promptTokens, reservedOutputTokens: outputTokens };
      const facts: CallFacts = { ...lease.facts, ...called, requestId };
      const price = lease.facts.prices?.price ?? null;
      const worst = costOfDraw({ promptTokens, outputTokens, choices: 1, price });
      const records = end && recordsOf(facts, end, nowMs);
      const used = records ? usedBy(records.event) : { tokens: 0, microdollars: 0 };
      if (!this.#book.settleDraw(lease.id, worst, used, nowMs)) return { settled: false };
      const receipt = records && this.#record(records, nowMs);
      this.#admissions.grantWaiting();
      await this.#commit.durable();
      return { settled: true, receipt };
    }

    #record({ event, decision }: CallRecords, nowMs: number): string {
      const receipt = this.#journal.append(decision, event);
      if (event.usageRejected) this.#journal.append(alertRecord(alerted(decision), "usage_rejected", nowMs), null);
      this.#upkeep.afterRecord(nowMs);
      return receipt;
    }

    async #expire(): Promise<void> {
      const nowMs = Date.now();
      const { unreconciled, gaveUp } = this.#book.expire(nowMs);
      for (const hold of unreconciled) {
        const facts = factsOf(hold);
        this.#record(recordsOf(facts, unreconciledEnd(facts), nowMs), nowMs);
      }
      for (const lease of this.#book.expireLeases(nowMs)) {
        this.#record(unreconciledLease(lease, nowMs), nowMs);
      }
      this.#admissions.gaveUp(gaveUp);
      this.#upkeep.keepPromise("expire", this.#book.nextHoldExpiryMs());
      await this.#commit.durable();
    }

    /** What a limit leaves that only alerts: one record each time it is passed for the first time in its period. */
    #recordAlerts(request: AdmitRequest, policy: PolicySnapshot): void {
      const alerts = this.#book.takeAlerts();
      if (alerts.length === 0) return;
      const endUser = request.endUser?.subject ?? null;
      const at = { region: this.#address.region, policyVersion: policy.version };
      const { requestId, route, keyId, model, stream } = request;
      const facts = { requestId, route, keyId, endUser, model, stream, ...at };
      const nowMs = Date.now();
      for (const { name } of alerts) this.#journal.append(alertRecord(facts, name, nowMs), null);
      this.#upkeep.afterRecord(nowMs);
    }

    #refused(request: AdmitRequest, policy: PolicySnapshot, rule: string): void {
      const { requestId, route, keyId, model, stream } = request;
      const endUser = request.endUser?.subject ?? null;
      const at = { region: this.#address.region, policyVersion: policy.version };
      const refused = { requestId, route, keyId, endUser, model, stream, ...at };
      if (!this.#refusals.add(refused, rule, Date.now())) return;
      setTimeout(() => {
        for (const record of this.#refusals.take()) this.#journal.append(record, null);
        this.#upkeep.afterRecord(Date.now());
        void this.#commit.durable();
      }, TALLY_MS);
    }

    /** Everything that memory has and storage has not; inside the group's transaction. */
    #save(): void {
      this.#journal.save();
      this.#upkeep.save();
      const { holds, leases, buckets } = this.#book.takeDirty();
      for (const lease of leases.upsert) this.#sql.putLease(lease.id, JSON.stringify(lease));
      for (const id of leases.remove) this.#sql.removeLease(id);
      for (const hold of holds.upsert) this.#sql.putHold(hold.requestId, JSON.stringify(hold));
      for (const requestId of holds.remove) this.#sql.removeHold(requestId);
      for (const { rule, bucketMs, count } of buckets.upsert) this.#sql.putBucket(rule, bucketMs, count);
      for (const { rule, bucketMs } of buckets.remove) this.#sql.removeBucket(rule, bucketMs);
    }

    async #flushOutbox(): Promise<void> {
      for (;;) {
        const rows = this.#sql.outbox(100);
        const last = rows.at(-1);
        if (!last) return;
        await this.#ports.copies.apply(
          this.#home,
          rows.map((row) => JSON.parse(row.body)),
        );
        this.#sql.removeOutbox(last.seq);
      }
    }

    async #runPurge(): Promise<void> {
      const isGone = await this.#purge.run(Date.now());
      if (!isGone) this.#upkeep.keepPromise("purge", nextPurgeMs(this.#store.facts));
    }

    async #flushUsage(): Promise<void> {
      await this.#commit.durable();
      const unsynced = this.#journal.unsynced();
      const usage = unsynced.map((hour) => hour.usage);
      await this.#ports.ledger.write(this.#home, usage, this.#journal.takeLastUsed(), Date.now());
      this.ctx.storage.transactionSync(() => {
        for (const hour of unsynced) hour.markSynced();
      });
    }
  };

type CallRecords = ReturnType<typeof recordsOf>;

/** What an alert says of the call that it stands beside. */
const alerted = ({ id, ...decision }: DecisionRecord): RefusedRequest => {
  const { route, keyId, endUser, model, stream, region, policyVersion } = decision;
  return { requestId: id, route, keyId, endUser, model, stream, region, policyVersion };
};

interface Found {
  readonly policy: PolicySnapshot;
  readonly key: Key;
}
interface NotFound {
  readonly reason: "unknown_key" | "archived" | "suspended";
}

/** Whether the call that came along with a credential is one that its key may make. */
const mayCall = ({ policy, key }: Found, { endUser, model }: Pick<ParsedAdmit, "endUser" | "model">) =>
  key.scopes.includes(endUser ? "account" : "data") && (policy.allowedModels?.includes(model) ?? true);

const grantedLease = ({ id, draws, tokens, microdollars, facts }: Lease<CallFacts>): GrantedLease => ({
  ...{ id, draws, tokens, microdollars, price: facts.prices?.price ?? null },
});

/** What callers are told; one that is being purged is to them an archived one. */
const closed = (status: "suspended" | "archived" | "purged") => (status === "purged" ? "archived" : status);

/** What a recorded call took of what was reserved for it. */
const usedBy = (event: UsageEvent) => ({
  tokens: event.promptTokens + event.completionTokens,
  microdollars: event.priceMicrodollars ?? 0,
});

function restoreBook(sql: Statements, maxDraws: number): AdmissionBook<CallFacts> {
  const leases = sql.leases().map((row) => JSON.parse(row.body) as Lease<CallFacts>);
  return AdmissionBook.restore<CallFacts>({
    holds: sql.holds().map((row) => JSON.parse(row.body) as Hold<CallFacts>),
    // Those of an earlier configuration are out there still.
    leases: maxDraws > 0 || leases.length > 0 ? leases : undefined,
    buckets: sql.buckets().map((row) => ({ rule: row.rule, bucketMs: row.bucket_ms, count: row.count })),
  });
}
