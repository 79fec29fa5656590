import type {
  AdmitReply,
  AdmitRequest,
  OpeningCall,
  RateState,
  Refusal,
} from "../../durable-objects/tenant-gate.messages";
import { DRAW_MS } from "../core/gate-leases";
import { dependsOnTokens } from "../core/rate-windows";
import { ApiError } from "../errors";
import type { Model } from "../inference/catalogue";
import { type Opened, type Opening, tenantRefused } from "../tenancy/authenticate";
import type { Actor } from "../tenancy/context";
import { askInLine } from "../tenancy/gates";
import { drawOnLease, keepLease, type Need, wantedDraws } from "./lease";
import type { CallStart, ModelCall } from "./model-call";
import type { ModelRequest } from "./model-request";
import { byteBound, tokenBound } from "./prompt-bound";
import { isServed } from "./residency";
import { findModel, isOneOf } from "./resolve-model";

/**
 * Reserves the call's worst case at the tenant's gate: a request, tokens, a slot. May wait in the tenant's line.
 * @throws ApiError 429 that names the rule, its state and a true Retry-After; 401, 403 or 503
 */
export async function reserve(call: ModelCall): Promise<void> {
  const hasLeft = () => call.stoppedBy === "client";
  if (hasLeft()) throw leftWhileWaiting(call, call.opened?.admission);
  const need = needOf(call.request, call.model);
  const drawn = call.opened ? undefined : drawOnLease(call, need);
  if (drawn) {
    call.reservation = drawn;
    return;
  }
  const wanted = wantedDraws(call); // also where the gate has been asked: then this key is known to be busy
  const answer = call.opened ?? (await ask(call, need, wanted));
  if (hasLeft()) throw leftWhileWaiting(call, answer.admission);
  if (!isProvisional(answer.admission, need)) return take(call, need, answer);
  const counted = countedNeed(call, need, answer.admission.refusal);
  const second = await ask(call, counted, wanted);
  if (hasLeft()) throw leftWhileWaiting(call, second.admission);
  take(call, counted, second);
}

/** Whether the gate found no room for the prompt's bytes, and is asked again for what they are in tokens. */
const isProvisional = (admission: AdmitReply, need: CallNeed): admission is Extract<AdmitReply, { refusal: unknown }> =>
  need.promptIsBytes && "refusal" in admission && dependsOnTokens(admission.refusal.unit);

/** Counted by the model's tokenizer, as far as the limit reaches. */
function countedNeed({ request, model, ports }: ModelCall, need: CallNeed, { unit, limit }: Refusal): CallNeed {
  const enough = unit === "tokens" ? limit : Number.POSITIVE_INFINITY;
  const counted = tokenBound(request, model, ports.tokenizers, enough);
  return { ...need, promptTokens: Math.min(counted, need.promptTokens), promptIsBytes: false };
}

function take(call: ModelCall, need: Need, { admission, askedAtMs }: Opened): void {
  if (admission.admitted) {
    const { outputTokens, rates, lease, policyVersion } = admission;
    call.reservation = { outputTokens, rates, promptTokens: need.promptTokens, leaseId: null };
    call.ports.renewBinding(call.caller, askedAtMs, policyVersion);
    if (lease) keepLease(call, lease, rates, askedAtMs);
  } else if ("reason" in admission) throw refusedFor(admission.reason, call.request);
  else throw rateLimited(admission.refusal, call.request.model, admission.rates);
}

/**
 * The gate was told that this caller left, so it may have taken everything back already; it is told again, in case it
 * did not hear.
 */
function leftWhileWaiting(call: ModelCall, admission: AdmitReply | undefined): ApiError {
  const gate = call.ports.gate(call.caller.context);
  if (admission?.admitted) call.waitUntil(gate.leave(call.id).catch(() => {}));
  return new ApiError("client_closed_request", "The request was cancelled.");
}

async function ask(call: ModelCall, need: CallNeed, wanted: number): Promise<Opened> {
  const { model, caller, signal } = call;
  const { actor } = caller.context;
  const gate = call.ports.gate(caller.context);
  const request: AdmitRequest = {
    ...callOf(call, model),
    ...need,
    keyId: keyIdOf(actor),
    endUser: actor.type === "end_user" ? { subject: actor.subject, requestsPerMinute: actor.requestsPerMinute } : null,
    wantedDraws: wanted,
  };
  const askedAtMs = Date.now();
  const isAdmitted = ({ admitted }: AdmitReply) => admitted;
  const waitUntil = (promise: Promise<unknown>) => call.waitUntil(promise);
  const inLine = { requestId: call.id, signal, isAdmitted, waitUntil };
  const admission = await askInLine(gate, inLine, () => gate.admit(request));
  return { admission, askedAtMs };
}

type Asking = Pick<CallStart, "id" | "route" | "request" | "ports" | "patienceMs">;

/**
 * The call as the gate is asked for it while nobody knows yet who calls. Undefined where another stage would refuse
 * it whatever the gate says.
 */
export function openingCall(asking: Asking, who: Parameters<Opening>[0]): Omit<OpeningCall, "endUser"> | undefined {
  const model = findModel(asking.ports.catalogue, asking.request);
  return model && isServed(model, who.region) && isOneOf(model, who.models) ? callOf(asking, model) : undefined;
}

/** What the gate must know of a call besides who makes it. */
function callOf({ id, route, request, ports, patienceMs }: Asking, model: Model): Omit<OpeningCall, "endUser"> {
  return {
    requestId: id,
    kind: request.kind,
    route,
    model: model.name,
    provider: model.provider,
    providerModel: model.providerModel,
    serviceTier: request.serviceTier,
    stream: request.stream,
    patienceMs,
    holdMs: holdMs(ports, model, patienceMs),
    ...needOf(request, model),
  };
}

/**
 * How long a reservation lasts. A call of a scarce model may wait for its slot as long as its caller does, after a
 * draw on a lease that is nearly over, and has its whole deadline from when it runs.
 */
const holdMs = ({ requestDeadlineMs }: Asking["ports"], { maxInFlight }: Model, patienceMs: number): number =>
  requestDeadlineMs + (maxInFlight === null ? 0 : DRAW_MS + patienceMs);

/** Below this a prompt's bytes are near enough to its tokens to stand for them. */
const SHORT_PROMPT_BYTES = 512;

/** The worst case of a call. */
interface CallNeed extends Need {
  readonly outputLowerable: boolean;
  /** Its prompt was not counted yet. */
  readonly promptIsBytes: boolean;
}

function needOf(request: ModelRequest, model: Model): CallNeed {
  const isChat = request.kind === "completions" && model.task === "chat";
  const cap = isChat ? Math.min(request.maxOutputTokens ?? model.defaultMaxOutputTokens, model.contextTokens) : 0;
  const promptTokens = byteBound(request, model);
  return {
    promptTokens,
    promptIsBytes: promptTokens > SHORT_PROMPT_BYTES && model.tokenizer !== "bytes",
    outputTokens: cap,
    outputLowerable: isChat && request.maxOutputTokens === undefined,
    choices: isChat ? request.choices : 1,
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
    case "request_ended": {
      const message = "The platform lost track of this request before it ran. Try again.";
      return new ApiError("admission_unavailable", message, { headers: { "retry-after": "1" } });
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
