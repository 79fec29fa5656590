import { type CallPrices, microdollarsOf, picodollarsOf, UNPRICED } from "./prices";
import { booked, NO_REMAINDER, type Remainder } from "./remainders";

/**
 * What a model call leaves behind, forever: one usage event (what is counted and billed) and one decision record
 * (who decided what, and why). Schema version 1 of both; later versions add fields and keep reading these.
 * Money is integer micro-dollars; times are Unix milliseconds by the gate's clock.
 */
export const USAGE_EVENT_VERSION = 1;
export const DECISION_VERSION = 1;

/** How a call ended. `unreconciled`: nobody settled it in time, so it was booked at its worst case. */
export type Outcome = "completed" | "cancelled" | "provider_error" | "deadline" | "unreconciled";

export const CALL_KINDS = ["completions", "embeddings", "moderations"] as const;
export type CallKind = (typeof CALL_KINDS)[number];

export interface UsageEvent {
  readonly v: typeof USAGE_EVENT_VERSION;
  /** The request id; unique per tenant, the key of every de-duplication. */
  readonly id: string;
  readonly atMs: number;
  readonly kind: CallKind;
  readonly outcome: Outcome;
  /** Public model name. */
  readonly model: string;
  readonly keyId: string;
  readonly endUser: string | null;
  readonly serviceTier: ServiceTier;
  readonly batch: boolean;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** True where the provider reported no usage and the tap's own count stands in. */
  readonly estimated: boolean;
  /** The provider reported a usage that cannot be true; nothing of it was booked. Missing in earlier events. */
  readonly usageRejected?: boolean;
  /** What it may have taken beyond what is booked, where nobody counted it. Missing in earlier events. */
  readonly unseen?: { readonly tokens: number; readonly costMicrodollars: number };
  /** Tokens above the reservation: the platform's loss, never billed. */
  readonly overrunTokens: number;
  /** To the tenant; null while nothing is priced. */
  readonly priceMicrodollars: number | null;
  readonly priceVersion: string | null;
  /** Of the provider; null while nothing is priced. */
  readonly costMicrodollars: number | null;
  readonly costVersion: string | null;
}

export type ServiceTier = "priority" | "default" | "flex";

export interface DecisionRecord {
  readonly v: typeof DECISION_VERSION;
  /** Request id; for refusals that stand for many requests, the id of the first. */
  readonly id: string;
  readonly atMs: number;
  /** `alert`: a limit that only alerts was passed; the call itself has its own record. */
  readonly kind: "model_call" | "cache_hit" | "refusal" | "alert";
  readonly outcome: Outcome | "refused" | "alerted";
  /** The rule that refused or alerted, else null. */
  readonly rule: string | null;
  /** Requests that this record stands for; above 1 only for refusals. */
  readonly count: number;
  readonly route: string;
  readonly keyId: string;
  readonly endUser: string | null;
  readonly region: string;
  readonly policyVersion: number;
  readonly model: string;
  /** Provider and provider model: for the operator, never shown to tenants. */
  readonly provider: string | null;
  readonly providerModel: string | null;
  readonly adapterDigest: string | null;
  readonly promptVersion: string | null;
  readonly featuresRead: readonly string[];
  readonly guardVerdict: { readonly policyVersion: number; readonly rules: readonly string[] } | null;
  readonly stream: boolean;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly queuedMs: number;
  readonly firstTokenMs: number | null;
  readonly totalMs: number | null;
}

/** What the gate remembers of an admitted call until it is settled or expires. */
export interface CallFacts {
  readonly requestId: string;
  readonly kind: CallKind;
  readonly route: string;
  readonly model: string;
  readonly provider: string;
  readonly providerModel: string;
  readonly keyId: string;
  readonly endUser: string | null;
  readonly serviceTier: ServiceTier;
  readonly stream: boolean;
  readonly policyVersion: number;
  readonly region: string;
  readonly queuedMs: number;
  /** Reserved: an upper bound of the prompt, and output cap times choices. */
  readonly reservedPromptTokens: number;
  readonly reservedOutputTokens: number;
  /** In force at admission; missing in calls that an earlier version admitted. */
  readonly prices?: CallPrices;
}

/** What is known of a call once it ended. */
export interface CallEnd {
  readonly outcome: Outcome;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly estimated: boolean;
  readonly usageRejected?: boolean;
  readonly adapterDigest: string | null;
  readonly promptVersion: string | null;
  readonly firstTokenMs: number | null;
  readonly totalMs: number | null;
}

/** The end of a call that nobody reported: silence means spent, so its worst case is booked. */
export function unreconciledEnd(facts: CallFacts): CallEnd {
  return {
    outcome: "unreconciled",
    promptTokens: facts.reservedPromptTokens,
    cachedTokens: 0,
    completionTokens: facts.reservedOutputTokens,
    estimated: true,
    adapterDigest: null,
    promptVersion: null,
    firstTokenMs: null,
    totalMs: null,
  };
}

/** What nobody settled or returned of a lease: its calls are not known, its worst case is. */
export function unreconciledLease(
  lease: {
    readonly id: string;
    readonly facts: CallFacts;
    readonly draws: number;
    readonly tokens: number;
    readonly microdollars: number;
  },
  nowMs: number,
  before: Remainder = NO_REMAINDER,
): CallRecords {
  const reserved = { reservedPromptTokens: 0, reservedOutputTokens: lease.tokens };
  const facts = { ...lease.facts, ...reserved, requestId: `lease_${lease.id}` };
  const { event, decision } = recordsOf(facts, unreconciledEnd(facts), nowMs);
  const priceMicrodollars = event.priceMicrodollars === null ? null : lease.microdollars;
  return { event: { ...event, priceMicrodollars }, decision: { ...decision, count: lease.draws }, remainder: before };
}

/** What one ended call leaves: two records, and what of its money is carried to the model's next call. */
export interface CallRecords {
  readonly event: UsageEvent;
  readonly decision: DecisionRecord;
  readonly remainder: Remainder;
}

/** @param before what the model's last call left */
export function recordsOf(
  facts: CallFacts,
  end: CallEnd,
  nowMs: number,
  before: Remainder = NO_REMAINDER,
): CallRecords {
  // A prompt that was longer than its bound, or a provider that ignored its cap, is our loss: all of it is counted, the
  // tenant pays up to the reservation, and the rest is named as overrun.
  const paid = {
    promptTokens: Math.min(end.promptTokens, facts.reservedPromptTokens),
    completionTokens: Math.min(end.completionTokens, facts.reservedOutputTokens),
  };
  const { promptTokens, completionTokens } = end;
  const overrunTokens = promptTokens - paid.promptTokens + (completionTokens - paid.completionTokens);
  const cachedTokens = Math.min(end.cachedTokens, promptTokens);
  const { price, priceVersion, cost, costVersion } = facts.prices ?? UNPRICED;
  const priced = booked(price && picodollarsOf(price, { ...paid, cachedTokens }), before.price);
  // The overrun is not the tenant's, but the provider asks for it.
  const costing = booked(cost && picodollarsOf(cost, end), before.cost);
  const event: UsageEvent = {
    v: USAGE_EVENT_VERSION,
    id: facts.requestId,
    atMs: nowMs,
    kind: facts.kind,
    outcome: end.outcome,
    model: facts.model,
    keyId: facts.keyId,
    endUser: facts.endUser,
    serviceTier: facts.serviceTier,
    batch: false,
    promptTokens,
    cachedTokens,
    completionTokens,
    estimated: end.estimated,
    ...(end.usageRejected ? { usageRejected: true } : {}),
    ...(end.estimated ? { unseen: unseenOf(facts, end) } : {}),
    overrunTokens,
    priceMicrodollars: priced.microdollars,
    priceVersion,
    costMicrodollars: costing.microdollars,
    costVersion,
  };
  const decision: DecisionRecord = {
    v: DECISION_VERSION,
    id: facts.requestId,
    atMs: nowMs,
    kind: "model_call",
    outcome: end.outcome,
    rule: null,
    count: 1,
    route: facts.route,
    keyId: facts.keyId,
    endUser: facts.endUser,
    region: facts.region,
    policyVersion: facts.policyVersion,
    model: facts.model,
    provider: facts.provider,
    providerModel: facts.providerModel,
    adapterDigest: end.adapterDigest,
    promptVersion: end.promptVersion,
    featuresRead: [],
    guardVerdict: null,
    stream: facts.stream,
    promptTokens,
    completionTokens,
    queuedMs: facts.queuedMs,
    firstTokenMs: end.firstTokenMs,
    totalMs: end.totalMs,
  };
  return { event, decision, remainder: { price: priced.rest, cost: costing.rest } };
}

/** Nobody counted an estimated call: its provider may have worked up to the worst case. */
function unseenOf(facts: CallFacts, { promptTokens, cachedTokens, completionTokens }: CallEnd) {
  const worst = {
    promptTokens: Math.max(facts.reservedPromptTokens, promptTokens),
    cachedTokens: 0,
    completionTokens: Math.max(facts.reservedOutputTokens, completionTokens),
  };
  const tokens = worst.promptTokens - promptTokens + (worst.completionTokens - completionTokens);
  const cost = facts.prices?.cost;
  const booked = { promptTokens, cachedTokens, completionTokens };
  const costMicrodollars = cost ? Math.max(0, microdollarsOf(cost, worst) - microdollarsOf(cost, booked)) : 0;
  return { tokens, costMicrodollars };
}
