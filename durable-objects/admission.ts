import type { AdmissionRequest, Hold, RateRule } from "../src/core/admission-book";
import type { ObjectAddress } from "../src/core/object-name";
import { planOf } from "../src/core/plans";
import { type LimitRule, modelLimits, type PolicySnapshot } from "../src/core/policy";
import type { CallPrices } from "../src/core/prices";
import type { CallFacts } from "../src/core/records";
import type { AdmitRequest } from "./tenant-gate.messages";

/** Who makes a request, as far as limits ask. */
type Asking = Pick<AdmitRequest, "model" | "keyId" | "endUser">;

/** The rates that a request must pass under a policy, and an end user's own from its token. */
export function ratesOf(policy: PolicySnapshot, { model, keyId, endUser }: Asking): RateRule[] {
  const rates = [...modelRates(policy, model), ...monthlySpend(policy)];
  if (endUser?.requestsPerMinute != null) {
    const key = `rpm/end_user/${endUser.subject}`;
    rates.push({ key, name: "end_user_requests_per_minute", unit: "requests", limit: endUser.requestsPerMinute });
  }
  for (const rule of policy.limits.rules) {
    const who = { project: "", api_key: keyId, end_user: endUser?.subject }[rule.scope];
    if (who === undefined || (rule.subject !== null && rule.subject !== who)) continue;
    rates.push(ruleOf(rule, who));
  }
  return rates;
}

/** A model's own limits. */
export function modelRates(policy: PolicySnapshot, model: string): RateRule[] {
  const { requestsPerMinute, tokensPerMinute } = modelLimits(policy, model);
  return [
    { key: `rpm/model/${model}`, name: "requests_per_minute", unit: "requests", limit: requestsPerMinute },
    { key: `tpm/model/${model}`, name: "tokens_per_minute", unit: "tokens", limit: tokensPerMinute },
  ];
}

/** The contract's hard limit of the calendar month. */
export function monthlySpend({ limits }: PolicySnapshot): RateRule[] {
  if (limits.monthlySpend === null) return [];
  const named = { key: "spend/month@UTC/project/", name: "monthly_spend", unit: "microdollars" } as const;
  return [{ ...named, limit: limits.monthlySpend }];
}

const UNITS = { requests: "requests", tokens: "tokens", spend: "microdollars" } as const;

/** What a rule counts over, as the windows name it. */
export const periodNameOf = ({ metric, window, timeZone }: LimitRule): string => {
  if (metric === "spend") return `${window}@${timeZone ?? "UTC"}`;
  return window === "minute" ? "minute" : "24h";
};

/** A rule for one key or end user, or the project; its own count is in its key. */
export function ruleOf(rule: LimitRule, who: string): RateRule {
  const { scope, metric, window, limit, mode } = rule;
  // Slashes in a time zone would end a part.
  const key = `${metric}/${periodNameOf(rule).replaceAll("/", ".")}/${scope}/${who}`;
  return { key, name: `${scope}_${metric}_per_${window}`, unit: UNITS[metric], limit, mode };
}

/** What a plan or a budget refuses whatever the rates say. Without a price, a budget cannot hold: it is closed. */
export function refusedByPlan(
  policy: PolicySnapshot,
  { serviceTier }: Pick<AdmitRequest, "serviceTier">,
  rates: readonly RateRule[],
  { price }: CallPrices,
): "price_unknown" | "tier_not_in_plan" | undefined {
  if (!planOf(policy).tiers.includes(serviceTier)) return "tier_not_in_plan";
  const isBudgeted = rates.some(({ unit, mode = "hard" }) => unit === "microdollars" && mode === "hard");
  return isBudgeted && price === null ? "price_unknown" : undefined;
}

/** A request as the admission book takes it. */
export function admissionOf(
  { region }: ObjectAddress,
  policy: PolicySnapshot,
  request: AdmitRequest,
  rates: readonly RateRule[],
  prices: CallPrices,
  nowMs: number,
): AdmissionRequest<CallFacts> {
  const { requestId, promptTokens, outputTokens, outputLowerable, choices, serviceTier } = request;
  const { kind, route, model, provider, providerModel, keyId, stream, endUser } = request;
  const facts: CallFacts = {
    ...{ requestId, kind, route, model, provider, providerModel, keyId, serviceTier, stream, region },
    endUser: endUser?.subject ?? null,
    policyVersion: policy.version,
    queuedMs: 0,
    reservedPromptTokens: promptTokens,
    reservedOutputTokens: outputTokens * choices,
    prices,
  };
  return {
    ...{ facts, requestId, rates, promptTokens, outputTokens, choices, outputLowerable, price: prices.price },
    class: serviceTier,
    party: endUser?.subject ?? null,
    inFlightLimit: policy.limits.inFlight,
    queueLength: policy.limits.queueLength,
    giveUpAtMs: nowMs + request.patienceMs,
    holdMs: request.holdMs,
  };
}

/** The facts as they were granted: a cap may have been lowered, and the wait is known by then. */
export function factsOf(hold: Hold<CallFacts>): CallFacts {
  return {
    ...hold.facts,
    queuedMs: hold.grantedAtMs - hold.enqueuedAtMs,
    reservedOutputTokens: hold.outputTokens * hold.choices,
  };
}

/** A waiting request under the limits of now; an end user's own limit stands in its token. */
export function relimited(policy: PolicySnapshot, request: AdmissionRequest<CallFacts>): AdmissionRequest<CallFacts> {
  const { model, keyId, endUser } = request.facts;
  const ofToken = request.rates.filter(({ name }) => name === "end_user_requests_per_minute");
  const subject = endUser === null ? null : { subject: endUser, requestsPerMinute: null };
  const rates = [...ratesOf(policy, { model, keyId, endUser: subject }), ...ofToken];
  const { inFlight: inFlightLimit, queueLength } = policy.limits;
  return { ...request, inFlightLimit, queueLength, rates };
}
