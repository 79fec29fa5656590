import type { z } from "zod";
import type { AdmissionBook, AdmissionRequest, Hold, RateRule } from "../src/core/admission-book";
import type { EndedRequests } from "../src/core/ended-requests";
import { costOfDraw, type Lease } from "../src/core/gate-leases";
import type { ObjectAddress } from "../src/core/object-name";
import type { PolicySnapshot } from "../src/core/policy";
import { pricesOf } from "../src/core/prices";
import { dependsOnTokens } from "../src/core/rate-windows";
import {
  type CallEnd,
  type CallFacts,
  type CallRecords,
  recordsOf,
  type UsageEvent,
  unreconciledEnd,
  unreconciledLease,
} from "../src/core/records";
import { admissionOf, factsOf, ratesOf, refusedByPlan } from "./admission";
import type { AdmissionStatements } from "./gate-admission-statements";
import type { GateAdmissions } from "./gate-admissions";
import type { GateUpkeep } from "./gate-upkeep";
import type { GroupCommit } from "./group-commit";
import type { GateJournal } from "./journal";
import type { GatePorts } from "./ports";
import { alertedBy, alertRecord, RefusalTally, type RefusedRequest } from "./refusals";
import type { Key } from "./tenant-facts";
import type {
  AdmitReply,
  AdmitRequest,
  BindRequest,
  FinishReply,
  FinishRequest,
  GrantedLease,
  ReturnRequest,
} from "./tenant-gate.messages";
import type { TenantStore } from "./tenant-store";

/** Refusals of one second become one record each; see {@link RefusalTally}. */
const TALLY_MS = 1_000;

type ParsedAdmit = z.output<typeof AdmitRequest>;
type ParsedFinish = z.output<typeof FinishRequest>;
type ParsedDraw = NonNullable<ParsedFinish["draw"]>;

/** One that ended before, or whose caller has gone: nobody waits for this answer. */
const ENDED: AdmitReply = { admitted: false, reason: "request_ended" };

/** A key that may call, under the policy in force. */
export interface Principal {
  readonly policy: PolicySnapshot;
  readonly key: Key;
}
export interface NoPrincipal {
  readonly reason: "unknown_key" | "archived" | "suspended";
}

/** Who a credential is, while key and tenant may call. */
export function principalOf(
  store: TenantStore,
  credential: z.output<typeof BindRequest>["credential"],
): Principal | NoPrincipal {
  const { policy } = store;
  const key = store.liveKey(credential, Date.now());
  if (!policy || !key) return { reason: "unknown_key" };
  // One that is being purged is to callers an archived one.
  if (policy.status !== "active") return { reason: policy.status === "purged" ? "archived" : policy.status };
  return { policy, key };
}

interface GateCallsDeps {
  readonly address: ObjectAddress;
  readonly ports: GatePorts;
  readonly store: TenantStore;
  readonly book: AdmissionBook<CallFacts>;
  readonly admissions: GateAdmissions;
  readonly ended: EndedRequests;
  readonly statements: AdmissionStatements;
  readonly journal: GateJournal;
  readonly upkeep: GateUpkeep;
  readonly commit: GroupCommit;
}

/**
 * The calls of one tenant, from their admission to their one end: settled, released, refused, or booked at their worst
 * case when nobody speaks of them in time. Messages may come twice, late, or in another order than they were sent; a
 * request id is admitted once in its life, and ends once.
 */
export class GateCalls {
  readonly #deps: GateCallsDeps;
  readonly #refusals = new RefusalTally();
  /** Under way, from the question until its answer is durable: a caller that asks again gets the same answer. */
  readonly #admitting = new Map<string, Promise<AdmitReply>>();

  constructor(deps: GateCallsDeps) {
    this.#deps = deps;
  }

  admit(request: ParsedAdmit): Promise<AdmitReply> {
    const { requestId } = request;
    const underWay = this.#admitting.get(requestId);
    if (underWay) return underWay;
    const reply = this.#admit(request).finally(() => this.#admitting.delete(requestId));
    this.#admitting.set(requestId, reply);
    return reply;
  }

  /** The caller has gone before it had its answer: whatever was or would be reserved for it is given back. */
  async leave(requestId: string): Promise<void> {
    if (this.#deps.journal.recorded(requestId)) return;
    this.#deps.admissions.leave(requestId);
    this.#giveBack(requestId);
    await this.#deps.commit.durable();
  }

  async finish({ requestId, end, draw }: ParsedFinish): Promise<FinishReply> {
    if (draw) return this.#finishDraw(requestId, draw, end);
    const { book, journal, admissions, commit } = this.#deps;
    const nowMs = Date.now();
    if (end === null) {
      admissions.leave(requestId);
      this.#release(requestId);
      admissions.grantWaiting();
      await commit.durable();
      return { settled: true, receipt: null };
    }
    const hold = book.hold(requestId);
    if (!hold) {
      const recorded = journal.recorded(requestId);
      if (!recorded) this.#refuseLater(requestId);
      if (!recorded || recorded.event.outcome === "unreconciled") return { settled: false };
      await commit.durable();
      return { settled: true, receipt: recorded.receipt };
    }
    const records = this.#recordsOf(factsOf(hold), end, nowMs);
    book.settle(requestId, usedBy(records.event), nowMs);
    const receipt = this.#record(records, nowMs);
    admissions.grantWaiting();
    await commit.durable();
    return { settled: true, receipt };
  }

  async returnLease({ leaseId, running }: z.output<typeof ReturnRequest>): Promise<void> {
    const { book, journal, admissions, commit } = this.#deps;
    // What is recorded already is over, though its answer may not have arrived there.
    const open = running.filter(({ requestId }) => journal.recorded(requestId) === undefined);
    book.returnLease(leaseId, open, Date.now());
    admissions.grantWaiting();
    await commit.durable();
  }

  /** Books at their worst case the calls and leases of which nobody spoke in time; the caller commits. */
  expire(): void {
    const { book, admissions, upkeep } = this.#deps;
    const nowMs = Date.now();
    const { unreconciled, gaveUp } = book.expire(nowMs);
    for (const hold of unreconciled) {
      const metadata = factsOf(hold);
      this.#record(this.#recordsOf(metadata, unreconciledEnd(metadata), nowMs), nowMs);
    }
    for (const lease of book.expireLeases(nowMs)) {
      const before = this.#deps.journal.usage.remainderOf(lease.facts.model);
      this.#record(unreconciledLease(lease, nowMs, before), nowMs);
    }
    admissions.gaveUp(gaveUp);
    upkeep.keepPromise("expire", book.nextHoldExpiryMs());
  }

  /**
   * Holds and leases whose end is in the journal already came into storage beside it by mistake. They would be booked
   * a second time; they are given back instead.
   * @returns whether there were any
   */
  dropRecorded(): boolean {
    const { book, journal } = this.#deps;
    const nowMs = Date.now();
    const holds = book.holds().filter(({ requestId }) => journal.recorded(requestId));
    const leases = book.leases().filter(({ id }) => journal.recorded(leaseRecordId(id)));
    for (const { requestId, facts } of holds) {
      book.release(requestId);
      this.#alarm(facts, "hold_of_recorded_call", nowMs);
    }
    for (const { id, facts } of leases) {
      book.returnLease(id, [], nowMs);
      this.#alarm(facts, "lease_of_recorded_calls", nowMs);
    }
    return holds.length + leases.length > 0;
  }

  async #admit(request: ParsedAdmit): Promise<AdmitReply> {
    const { address, ports, store, book, admissions, commit } = this.#deps;
    const { requestId } = request;
    const caller = principalOf(store, { keyId: request.keyId });
    if ("reason" in caller) return { admitted: false, reason: caller.reason };
    const { policy } = caller;
    const nowMs = Date.now();
    const rates = ratesOf(policy, request);
    const known = book.hold(requestId);
    // The first answer was lost on its way, and with it the lease that it brought.
    if (known) return this.#granted(known, rates);
    if (this.#hasEnded(requestId)) return ENDED;
    const prices = pricesOf(ports.prices, request.model);
    const reason = refusedByPlan(policy, request, rates, prices);
    if (reason) {
      this.#refused(request, policy, reason);
      return { admitted: false, reason };
    }
    const asked = admissionOf(address, policy, request, rates, prices, nowMs);
    const verdict = await admissions.decide(asked);
    this.#recordAlerts(request, policy);
    if ("left" in verdict) return ENDED;
    if ("refusal" in verdict) {
      const isLastWord = !request.promptIsBytes || !dependsOnTokens(verdict.refusal.unit);
      if (isLastWord) this.#refused(request, policy, verdict.refusal.rule);
      return { admitted: false, refusal: verdict.refusal, rates: book.rates(rates, Date.now()) };
    }
    this.#lease(request, asked);
    await commit.durable();
    // Meanwhile its key may have been revoked, or its caller may have left.
    const after = principalOf(store, { keyId: request.keyId });
    const isHeld = book.hold(requestId) !== undefined;
    if (isHeld && !("reason" in after)) return this.#granted(verdict.hold, rates);
    this.#giveBack(requestId);
    await commit.durable();
    return "reason" in after ? { admitted: false, reason: after.reason } : ENDED;
  }

  #granted(hold: Hold<CallFacts>, rates: readonly RateRule[]): AdmitReply {
    const { book, store } = this.#deps;
    const lease = book.leaseOf(hold.requestId);
    return {
      admitted: true,
      outputTokens: hold.outputTokens,
      queuedMs: hold.grantedAtMs - hold.enqueuedAtMs,
      rates: book.rates(rates, Date.now()),
      policyVersion: store.policy?.version ?? 0,
      lease: lease && !lease.running ? grantedLease(lease) : null,
    };
  }

  /** More of the same, prepaid, for an isolate that is busy with it. An end user's own rates are always asked for. */
  #lease(request: ParsedAdmit, asked: AdmissionRequest<CallFacts>): void {
    const { book, ports, upkeep } = this.#deps;
    const wanted = Math.min(request.wantedDraws, ports.maxDraws);
    if (wanted < 1 || request.endUser) return;
    const lease = book.lease(request.requestId, asked, wanted, Date.now());
    upkeep.keepPromise("expire", lease?.expiresAtMs);
  }

  /** The end of a call that its isolate admitted by itself. */
  async #finishDraw(requestId: string, draw: ParsedDraw, end: ParsedFinish["end"]): Promise<FinishReply> {
    const { book, journal, admissions, commit } = this.#deps;
    const nowMs = Date.now();
    const recorded = journal.recorded(requestId);
    const lease = book.leaseOf(draw.leaseId);
    if (recorded || !lease) {
      await commit.durable();
      return recorded ? { settled: true, receipt: recorded.receipt } : { settled: false };
    }
    const { kind, route, stream, promptTokens, outputTokens } = draw;
    const called = { kind, route, stream, reservedPromptTokens: promptTokens, reservedOutputTokens: outputTokens };
    const metadata: CallFacts = { ...lease.facts, ...called, requestId };
    const price = lease.facts.prices?.price ?? null;
    const worst = { requestId, ...costOfDraw({ promptTokens, outputTokens, choices: 1, price }) };
    const records = end && this.#recordsOf(metadata, end, nowMs);
    if (!book.settleDraw(lease.id, worst, records && usedBy(records.event), nowMs)) return { settled: false };
    const receipt = records && this.#record(records, nowMs);
    admissions.grantWaiting();
    await commit.durable();
    return { settled: true, receipt };
  }

  /** Ends a request that reached no model, also one that is still on its way here. */
  #release(requestId: string): void {
    const { book, ended, journal } = this.#deps;
    if (journal.recorded(requestId)) return;
    book.release(requestId);
    ended.add(requestId, Date.now(), true);
  }

  /** As {@link #release}, and with the hold goes the lease that was granted beside it: nobody draws on that. */
  #giveBack(requestId: string): void {
    const { book, admissions } = this.#deps;
    this.#release(requestId);
    book.returnLease(requestId, [], Date.now());
    admissions.grantWaiting();
  }

  /** Its end has overtaken its admission, which must not be held for ever. */
  #refuseLater(requestId: string): void {
    if (!this.#admitting.has(requestId)) this.#deps.ended.add(requestId, Date.now(), false);
  }

  #hasEnded(requestId: string): boolean {
    const { ended, statements, journal } = this.#deps;
    return ended.has(requestId) || journal.recorded(requestId) !== undefined || statements.hasEnded(requestId);
  }

  #recordsOf(metadata: CallFacts, end: CallEnd, nowMs: number): CallRecords {
    return recordsOf(metadata, end, nowMs, this.#deps.journal.usage.remainderOf(metadata.model));
  }

  #record({ event, decision, remainder }: CallRecords, nowMs: number): string {
    const { journal, upkeep } = this.#deps;
    const receipt = journal.append(decision, event, remainder);
    if (event.usageRejected) journal.append(alertRecord(alertedBy(decision), "usage_rejected", nowMs), null);
    upkeep.afterRecord(nowMs);
    return receipt;
  }

  #alarm(metadata: CallFacts, rule: string, nowMs: number): void {
    const { journal, upkeep } = this.#deps;
    console.error(JSON.stringify({ event: rule, requestId: metadata.requestId }));
    journal.append(
      alertRecord(alertedBy(recordsOf(metadata, unreconciledEnd(metadata), nowMs).decision), rule, nowMs),
      null,
    );
    upkeep.afterRecord(nowMs);
  }

  /** What a limit leaves that only alerts: one record each time it is passed for the first time in its period. */
  #recordAlerts(request: AdmitRequest, policy: PolicySnapshot): void {
    const { book, journal, upkeep } = this.#deps;
    const alerts = book.takeAlerts();
    if (alerts.length === 0) return;
    const nowMs = Date.now();
    const metadata = this.#refusedRequest(request, policy);
    for (const { name } of alerts) journal.append(alertRecord(metadata, name, nowMs), null);
    upkeep.afterRecord(nowMs);
  }

  #refused(request: AdmitRequest, policy: PolicySnapshot, rule: string): void {
    const { ended, journal, upkeep, commit } = this.#deps;
    ended.add(request.requestId, Date.now(), false); // a duplicate that comes late must not be admitted after all
    if (!this.#refusals.add(this.#refusedRequest(request, policy), rule, Date.now())) return;
    setTimeout(() => {
      for (const record of this.#refusals.take()) journal.append(record, null);
      upkeep.afterRecord(Date.now());
      void commit.durable().catch(() => {}); // a commit that fails speaks for itself
    }, TALLY_MS);
  }

  #refusedRequest(request: AdmitRequest, policy: PolicySnapshot): RefusedRequest {
    const { requestId, route, keyId, model, stream } = request;
    const endUser = request.endUser?.subject ?? null;
    const { region } = this.#deps.address;
    return { requestId, route, keyId, endUser, model, stream, region, policyVersion: policy.version };
  }
}

const leaseRecordId = (leaseId: string) => `lease_${leaseId}`;

const grantedLease = ({ id, draws, tokens, microdollars, facts }: Lease<CallFacts>): GrantedLease => ({
  ...{ id, draws, tokens, microdollars, price: facts.prices?.price ?? null },
});

/** What a recorded call took of what was reserved for it. */
const usedBy = (event: UsageEvent) => ({
  tokens: event.promptTokens + event.completionTokens,
  microdollars: event.priceMicrodollars ?? 0,
});
