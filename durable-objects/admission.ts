import type { AdmissionRequest, Hold, RateRule } from "../src/core/admission-book";
import type { ObjectAddress } from "../src/core/object-name";
import { modelLimits, type PolicySnapshot } from "../src/core/policy";
import type { CallFacts } from "../src/core/records";
import type { AdmitRequest } from "./tenant-gate.messages";

/** The rates that a request must pass under a policy, and an end user's own from its token. */
export function ratesOf(policy: PolicySnapshot, { model, endUser }: AdmitRequest): RateRule[] {
  const limits = modelLimits(policy, model);
  const rates: RateRule[] = [
    { key: `rpm/model/${model}`, name: "requests_per_minute", unit: "requests", limit: limits.requestsPerMinute },
    { key: `tpm/model/${model}`, name: "tokens_per_minute", unit: "tokens", limit: limits.tokensPerMinute },
  ];
  if (endUser?.requestsPerMinute != null) {
    const key = `rpm/end_user/${endUser.subject}`;
    rates.push({ key, name: "end_user_requests_per_minute", unit: "requests", limit: endUser.requestsPerMinute });
  }
  return rates;
}

/** A request as the admission book takes it. */
export function admissionOf(
  { region }: ObjectAddress,
  policy: PolicySnapshot,
  request: AdmitRequest,
  rates: readonly RateRule[],
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
  };
  return {
    ...{ facts, requestId, rates, promptTokens, outputTokens, choices, outputLowerable },
    class: serviceTier,
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
  const { requestsPerMinute, tokensPerMinute } = modelLimits(policy, request.facts.model);
  const rates = request.rates.map((rule) => {
    if (rule.name === "requests_per_minute") return { ...rule, limit: requestsPerMinute };
    if (rule.name === "tokens_per_minute") return { ...rule, limit: tokensPerMinute };
    return rule;
  });
  const { inFlight: inFlightLimit, queueLength } = policy.limits;
  return { ...request, inFlightLimit, queueLength, rates };
}
