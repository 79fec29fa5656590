import { ApiError } from "../errors";
import { ModelCall } from "../pipeline/model-call";
import type { ModelRequest } from "../pipeline/model-request";
import { abandon, runStages } from "../pipeline/pipeline";
import { openingCall, rateHeaders } from "../pipeline/reserve";
import type { Opening } from "../tenancy/authenticate";
import type { AppContext } from "./handler";
import { readJson } from "./json-body";
import type { Route } from "./route";

/** How long a caller waits for a slot unless its own deadline is sooner. */
export const DEFAULT_PATIENCE_MS = 30_000;

/**
 * A body is read before the gate has said who calls only where it is announced and no larger than this: what a revoked
 * key can make this isolate do is bounded by it. A larger one waits for the answer, for one round trip more when the
 * key is not known.
 */
export const MAX_EARLY_BYTES = 64 * 1024;

/** A validated body: the model call in it, and what only the reply needs. */
export interface ParsedCall {
  readonly request: ModelRequest;
  /** The request is not whole yet: something of it lies in a store, and the route prepares it. */
  readonly needsMore?: boolean;
}

/** A route that makes one model call: how its body is read, and how it answers. */
export interface ModelEndpoint<T extends ParsedCall> {
  /** @throws ApiError that names the parameter */
  readonly parse: (body: unknown) => T;
  /** What the body alone cannot say: stored parts, and what the caller's project allows. */
  readonly prepare?: (c: AppContext, parsed: T) => Promise<T>;
  /** An answer without a model call of its own; undefined where there is to be one. */
  readonly instead?: (c: AppContext, parsed: T) => Promise<Response> | undefined;
  /** What this route calls the parameters that the pipeline names as a chat completion does. */
  readonly paramNames?: Readonly<Record<string, string>>;
  readonly reply: (c: AppContext, call: ModelCall, parsed: T) => Promise<Response>;
}

/**
 * The body is read and validated once: by the door where the gate must be asked who calls and the body is small, else
 * by the handler. An error in it is told only to callers that the door has let in.
 */
export function modelEndpoint<T extends ParsedCall>({
  parse,
  prepare,
  instead,
  paramNames,
  reply,
}: ModelEndpoint<T>): Required<Pick<Route, "handler" | "opening">> {
  const read = new WeakMap<Request, Promise<T>>();
  const parsedOf = (c: AppContext) => {
    const request = c.req.raw;
    const parsed = read.get(request) ?? readJson(request).then(parse);
    read.set(request, parsed);
    return parsed;
  };
  const opening =
    (c: AppContext): Opening =>
    async (who) => {
      if (!isReadEarly(c.req.raw.headers)) return undefined;
      const { requestId: id, route, services } = c.var;
      const request = await parsedOf(c).then(
        (parsed) => (parsed.needsMore ? undefined : parsed.request),
        () => undefined, // the handler meets the same error
      );
      const asking = { id, route: route.path, patienceMs: patienceMs(c), ports: services.pipeline };
      return request && openingCall({ ...asking, request }, who);
    };
  const handler = async (c: AppContext) => {
    const written = await parsedOf(c);
    try {
      const parsed = prepare ? await prepared(c, written, prepare) : written;
      const answer = instead?.(c, parsed);
      if (answer) return await answer;
      return await reply(c, await startCall(c, parsed.request), parsed);
    } catch (error) {
      throw renamed(error, paramNames);
    }
  };
  return { opening, handler };
}

/** `readJson` refuses a body that is longer than it was announced. */
function isReadEarly(headers: Headers): boolean {
  const announced = headers.get("content-length");
  return announced !== null && Number(announced) <= MAX_EARLY_BYTES;
}

function renamed(error: unknown, names: Readonly<Record<string, string>> = {}): unknown {
  if (!(error instanceof ApiError) || error.options.param === undefined) return error;
  const { param } = error.options;
  const name = Object.hasOwn(names, param) ? names[param] : undefined;
  if (name === undefined) return error;
  return new ApiError(error.code, error.message.replaceAll(`'${param}'`, `'${name}'`), {
    ...error.options,
    param: name,
  });
}

/** The door may have admitted the call already; what is refused now gives that back. */
async function prepared<T extends ParsedCall>(
  c: AppContext,
  written: T,
  prepare: NonNullable<ModelEndpoint<T>["prepare"]>,
): Promise<T> {
  try {
    return await prepare(c, written);
  } catch (error) {
    await abandon(callOf(c, written.request));
    throw error;
  }
}

/** Takes a request through the stages of its route; afterwards its output can be read. */
async function startCall(c: AppContext, request: ModelRequest): Promise<ModelCall> {
  const call = callOf(c, request);
  const { signal } = c.req.raw;
  if (signal.aborted) call.stop("client");
  signal.addEventListener("abort", () => call.stop("client"), { once: true });
  await runStages(call, c.var.route.stages);
  return call;
}

function callOf(c: AppContext, request: ModelRequest): ModelCall {
  const { route, services, tenant, policy, opened, requestId } = c.var;
  return new ModelCall({
    id: requestId,
    route: route.path,
    caller: { context: tenant, policy },
    request,
    ports: services.pipeline,
    patienceMs: patienceMs(c),
    startedAtMs: Date.now(),
    opened,
    waitUntil: (promise) => c.executionCtx.waitUntil(promise),
  });
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
