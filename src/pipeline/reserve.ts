import type { AdmitReply, AdmitRequest, RateState, Refusal } from "../../durable-objects/tenant-gate.messages";
import { ApiError } from "../errors";
import { tenantRefused } from "../tenancy/authenticate";
import type { Actor } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import { drawOnLease, keepLease, wantedDraws } from "./lease";
import type { ModelCall } from "./model-call";
import { type ModelRequest, promptTokenBound } from "./model-request";

/**
 * Reserves the call's worst case at the tenant's gate: a request, tokens, a slot. May wait in the tenant's line.
 * @throws ApiError 429 that names the rule, its state and a true Retry-After; 401, 403 or 503
 */
export async function reserve(call: ModelCall): Promise<void> {
  const request = admitRequest(call);
  const drawn = drawOnLease(call, request);
  if (drawn) {
    call.reservation = drawn;
    return;
  }
  const gate = call.ports.gate(call.caller.context);
  const leave = () => void gate.leave(call.id).catch(() => {}); // the line forgets it by itself later
  call.signal.addEventListener("abort", leave, { once: true });
  const askedAtMs = Date.now();
  const asked = { ...request, wantedDraws: wantedDraws(call) };
  const reply = await askGate(() => gate.admit(asked));
  call.signal.removeEventListener("abort", leave);
  if (reply.admitted) {
    const { outputTokens, rates, lease, policyVersion } = reply;
    call.reservation = { outputTokens, rates, promptTokens: request.promptTokens, leaseId: null };
    call.ports.renewBinding(call.caller, askedAtMs, policyVersion);
    if (lease) keepLease(call, lease, rates, askedAtMs);
  } else if ("reason" in reply) throw refusedFor(reply.reason, call.request);
  else throw rateLimited(reply.refusal, call.request.model, reply.rates);
}

function admitRequest(call: ModelCall): AdmitRequest {
  const { request, model, caller } = call;
  const { actor } = caller.context;
  const isChat = request.kind === "completions" && model.task === "chat";
  const cap = isChat ? Math.min(request.maxOutputTokens ?? model.defaultMaxOutputTokens, model.contextTokens) : 0;
  return {
    requestId: call.id,
    kind: request.kind,
    route: call.route,
    model: model.name,
    provider: model.provider,
    providerModel: model.providerModel,
    keyId: keyIdOf(actor),
    endUser: actor.type === "end_user" ? { subject: actor.subject, requestsPerMinute: actor.requestsPerMinute } : null,
    serviceTier: request.serviceTier,
    stream: request.stream,
    promptTokens: promptTokenBound(request),
    outputTokens: cap,
    outputLowerable: isChat && request.maxOutputTokens === undefined,
    choices: isChat ? request.choices : 1,
    patienceMs: call.patienceMs,
    holdMs: call.ports.requestDeadlineMs,
  };
}

function keyIdOf(actor: Actor): string {
  if (actor.type === "job") throw new TypeError("a job makes no model calls of its own");
  return actor.keyId;
}

function refusedFor(reason: Extract<AdmitReply, { reason: unknown }>["reason"], request: ModelRequest): ApiError {
  const headers = { "x-should-retry": "false" };
  switch (reason) {
    case "price_unknown": {
      const message = `'${request.model}' has no price here, and a budget is in force: the call could overspend it unseen. Ask whoever runs this platform.`;
      return new ApiError("price_unknown", message, { param: "model", headers });
    }
    case "tier_not_in_plan": {
      const message = `This project's plan has no service tier '${request.serviceTier}'. Leave 'service_tier' out.`;
      return new ApiError("service_tier_not_in_plan", message, { param: "service_tier", headers });
    }
    default:
      return tenantRefused(reason);
  }
}

/** A budget is no rate: what SDKs do with a 429, trying again, would only cost. */
function overBudget({ rule, limit, used, requested }: Refusal, rates: readonly RateState[]): ApiError {
  const [limitUsd, usedUsd, askedUsd] = [limit, used, requested].map((micro) => `$${(micro / 1e6).toFixed(6)}`);
  const message = `The budget ${rule} is exhausted: limit ${limitUsd}, spent and held ${usedUsd}, this request at most ${askedUsd}. Ask for less output, or for a larger budget.`;
  const headers = { ...rateHeaders(rates), "x-should-retry": "false" };
  return new ApiError("insufficient_quota", message, { headers, more: { limits: rates.map(rateToWire) } });
}

function rateLimited(refusal: Refusal, model: string, rates: readonly RateState[]): ApiError {
  if (refusal.unit === "microdollars") return overBudget(refusal, rates);
  const { rule, limit, used, requested, retryAfterMs, neverFits } = refusal;
  const state = `limit ${limit}, used ${used}, requested ${requested}`;
  const advice = neverFits
    ? "The request is larger than the limit itself: make it smaller."
    : `Try again in ${(retryAfterMs / 1000).toFixed(2)} s.`;
  const waits = rule === "in_flight" || rule === "queue_timeout";
  const message = `Rate limit reached for ${rule} of '${model}': ${state}. ${advice}`;
  const retry: Record<string, string> = neverFits
    ? { "x-should-retry": "false" }
    : { "retry-after": String(Math.ceil(retryAfterMs / 1000)), "retry-after-ms": String(retryAfterMs) };
  const headers = { ...rateHeaders(rates), ...retry };
  const more = { limits: rates.map(rateToWire) };
  return new ApiError(waits ? "queue_full" : "rate_limit_exceeded", message, { headers, more });
}

/** A rule and where it stands, as replies explain it. Money is micro-dollars. */
export const rateToWire = ({ name, unit, limit, settled, held, remaining, resetMs, mode = "hard" }: RateState) => ({
  ...{ rule: name, unit, mode, limit, settled, held, remaining, reset_seconds: resetMs / 1000 },
});

/** `x-ratelimit-*` for requests and tokens of the model, as OpenAI's rate-limit guide names them. */
export function rateHeaders(rates: readonly RateState[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const unit of ["requests", "tokens"] as const) {
    // Where an end user's own limit is the tighter one, that is what its caller must know.
    // Headers speak of minutes; days and budgets stand in /v1/tenantry/limits.
    const minutes = rates.filter((one) => one.unit === unit && /^(rpm|tpm)\/|\/minute\//.test(one.key));
    const rate = minutes.filter(({ mode = "hard" }) => mode === "hard").sort((a, b) => a.remaining - b.remaining)[0];
    if (!rate) continue;
    headers[`x-ratelimit-limit-${unit}`] = String(rate.limit);
    headers[`x-ratelimit-remaining-${unit}`] = String(rate.remaining);
    headers[`x-ratelimit-reset-${unit}`] = `${(rate.resetMs / 1000).toFixed(3)}s`;
  }
  return headers;
}
