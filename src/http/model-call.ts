import { ModelCall } from "../pipeline/model-call";
import type { ModelRequest } from "../pipeline/model-request";
import { runStages } from "../pipeline/pipeline";
import { rateHeaders } from "../pipeline/reserve";
import type { AppContext } from "./handler";

/** How long a caller waits for a slot unless its own deadline is sooner. */
const DEFAULT_PATIENCE_MS = 30_000;

/** Takes a request through the stages of its route; afterwards its output can be read. */
export async function startCall(c: AppContext, request: ModelRequest): Promise<ModelCall> {
  const { route, services, tenant, policy, requestId } = c.var;
  const caller = { context: tenant, policy };
  const waitUntil = (promise: Promise<unknown>) => c.executionCtx.waitUntil(promise);
  const { pipeline } = services;
  const call = new ModelCall(requestId, route.path, caller, request, pipeline, patienceMs(c), Date.now(), waitUntil);
  c.req.raw.signal.addEventListener("abort", () => call.stop("client"), { once: true });
  await runStages(call, route.stages);
  return call;
}

/** The official clients tell their own timeout, in seconds. */
function patienceMs(c: AppContext): number {
  const seconds = Number(c.req.header("x-stainless-timeout") ?? Number.NaN);
  return Number.isFinite(seconds) && seconds > 0
    ? Math.min(DEFAULT_PATIENCE_MS, Math.floor(seconds * 1000))
    : DEFAULT_PATIENCE_MS;
}

/** Headers of an admitted call: the rates after it, the cap that was reserved, and its receipt once settled. */
export function callHeaders(call: ModelCall): Record<string, string> {
  const headers = rateHeaders(call.rates);
  if (call.request.kind === "completions") headers["x-max-output-tokens"] = String(call.reservation.outputTokens);
  if (call.receipt !== null) headers["x-audit"] = call.receipt;
  return headers;
}
