import { rewriteArtifact } from "../artifacts/artifacts";
import { LeaseBook } from "../core/lease-book";
import { planOf } from "../core/plans";
import { ApiError } from "../errors";
import { ModelCall } from "../pipeline/model-call";
import { abandon, runStages } from "../pipeline/pipeline";
import { ADMISSION_STAGES, INFERENCE_STAGES } from "../pipeline/stages";
import type { Services } from "../services";
import { acceptRun, type BackgroundPorts, type BackgroundTask, beginRun, forgetRun } from "../tenancy/background";
import type { Actor, TenantContext, TenantHome } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import { newId } from "../tenancy/ids";
import { enterForCaller } from "../tenancy/jobs";
import { toApiError } from "./errors";
import type { AppContext } from "./handler";
import { callHeaders } from "./model-call";
import { makeResponse, prepareResponse, storeResponse } from "./response-making";
import { type ResponseHead, type ResponseState, responseToWire, UNDER_WAY, type WireResponse } from "./response-reply";
import { type ParsedResponse, parseResponse } from "./response-request";

/** How long its caller waits until its tenant's limits let it in. */
const ACCEPT_PATIENCE_MS = 30_000;
/** How long a run waits for a slot of its own tenant, where it had to give back the one that it had. */
const PATIENCE_MS = 300_000;
/** Of the time for which the gate holds what it reserved, this much may pass before the run begins. */
const WAITING_SHARE = 0.5;
const ROUTE = "/v1/responses";

/** What a run is given: who asked, and what. */
interface Task {
  readonly home: TenantHome;
  readonly actor: Actor;
  readonly head: ResponseHead;
  readonly asked: unknown;
  /** How it was let in; missing in tasks of earlier versions, which were not asked for before they began. */
  readonly admitted?: { readonly callId: string; readonly outputTokens: number; readonly atMs: number };
}

/**
 * Takes a response on. It passes every limit that it would pass if it were run at once, and keeps what was reserved
 * for it; what waits is bounded per plan, and its room is taken before it is accepted.
 * @throws ApiError for what its model cannot do, 429 beyond a limit, 403 beyond the quota
 */
export async function acceptInBackground(c: AppContext, parsed: ParsedResponse): Promise<Response> {
  const { services, tenant, policy } = c.var;
  if (!parsed.store) {
    const message = "'background' needs 'store': the result is fetched later, and this project or request keeps none.";
    throw new ApiError("invalid_value", message, { param: "background" });
  }
  const call = await admit(c, parsed);
  const head: ResponseHead = {
    id: newId("response"),
    createdAt: Math.floor(Date.now() / 1000),
    model: call.model.name,
    serviceTier: parsed.request.serviceTier,
    store: true,
  };
  const queued = responseToWire(head, parsed, { ...UNDER_WAY, status: "queued" });
  try {
    await acceptRun(services.background, tenant, acceptRequest(c, call, head, parsed));
    await storeResponse({ services, tenant, policy }, parsed, queued);
  } catch (error) {
    await forgetRun(services.background, tenant, head.id).catch(() => {}); // it finds no response, and ends
    await abandon(call);
    throw error;
  }
  // Where this does not arrive it begins by itself a little later.
  await beginRun(services.background, tenant, head.id).catch(() => {});
  return c.json(queued, 200, callHeaders(call));
}

/** Reserves the call's worst case for whoever runs it: at the gate itself, since a lease ends with its isolate. */
async function admit(c: AppContext, parsed: ParsedResponse): Promise<ModelCall> {
  const { services, tenant, policy, requestId, opened } = c.var;
  const call = new ModelCall({
    ...{ id: requestId, route: ROUTE, request: parsed.request, opened, startedAtMs: Date.now() },
    caller: { context: tenant, policy },
    ports: { ...services.pipeline, leases: new LeaseBook(0) },
    patienceMs: ACCEPT_PATIENCE_MS,
    waitUntil: (promise) => c.executionCtx.waitUntil(promise),
  });
  const { signal } = c.req.raw;
  if (signal.aborted) call.stop("client");
  signal.addEventListener("abort", () => call.stop("client"), { once: true });
  await runStages(call, ADMISSION_STAGES);
  call.finished.resolve(); // whoever runs it settles it
  return call;
}

function acceptRequest(c: AppContext, call: ModelCall, head: ResponseHead, parsed: ParsedResponse) {
  const { services, tenant, policy } = c.var;
  const { tenantId, region, isolation, actor } = tenant;
  const atMs = Date.now();
  const admitted = { callId: call.id, outputTokens: call.reservation.outputTokens, atMs };
  const task: Task = { home: { tenantId, region, isolation }, actor, head, asked: parsed.asked, admitted };
  return {
    ...{ id: head.id, createdAtMs: head.createdAt * 1000, task: JSON.stringify(task) },
    endUser: actor.type === "end_user" ? actor.subject : "",
    heldUntilMs: atMs + Math.floor(services.pipeline.requestDeadlineMs * WAITING_SHARE),
    limits: planOf(policy).background,
  };
}

/** What the objects that work in the background do with a response. */
export const backgroundPorts =
  (servicesOf: (env: object) => Services) =>
  (env: object): BackgroundPorts => ({
    sealing: (tenant) => servicesOf(env).sealing(tenant),
    run: (task, signal, waitUntil) => run(servicesOf(env), task, signal, waitUntil),
    interrupted(task) {
      const { outcome } = open(task);
      return outcome(
        failedWith("The response was interrupted and is not begun again, since its model may have answered already."),
      );
    },
    async write(task, outcome) {
      const { tenant, head, outcome: other } = open(task);
      const services = servicesOf(env);
      const row = { id: head.id, kind: "response" } as const;
      const write = (whole: string) => rewriteArtifact(services, tenant, { ...row, output: JSON.parse(whole) }, true);
      try {
        await write(outcome);
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== "request_too_large") throw error;
        await write(other(failedWith("The response was too large to be stored.")));
      }
    },
    async release(task) {
      const { tenant, admitted } = open(task);
      const gate = servicesOf(env).gate(tenant);
      if (admitted) await askGate(() => gate.finish({ requestId: admitted.callId, end: null }));
    },
  });

const failedWith = (message: string): ResponseState => ({
  ...{ ...UNDER_WAY, status: "failed", error: { code: "server_error", message } },
});

function open({ task }: BackgroundTask) {
  const { home, actor, head, asked, admitted } = JSON.parse(task) as Task;
  const parsed = parseResponse(asked);
  const outcome = (state: ResponseState) => JSON.stringify(responseToWire(head, parsed, state));
  return { tenant: enterForCaller(home, actor), parsed, head, admitted, outcome };
}

interface RunContext {
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

/** @returns the whole response as it ended; null where it was deleted before it began */
async function run(
  services: Services,
  task: BackgroundTask,
  signal: AbortSignal,
  waitUntil: RunContext["waitUntil"],
): Promise<string | null> {
  const { tenant, parsed, head, admitted, outcome } = open(task);
  // What was reserved for it is used, or given back by whoever meets the end of it here.
  let held = task.isHeld ? admitted : undefined;
  const requestId = held?.callId ?? newId("request");
  try {
    signal.throwIfAborted();
    const output = JSON.parse(outcome(UNDER_WAY)) as WireResponse;
    if (!(await rewriteArtifact(services, tenant, { id: head.id, kind: "response", output }))) return null;
    const call = await prepareCall(services, tenant, parsed, held, { requestId, signal, waitUntil });
    held = undefined; // the call's own from here on
    await runStages(call.call, INFERENCE_STAGES);
    const rest = call.call.output[Symbol.asyncIterator]();
    const events = makeResponse({ ...call, head, first: await rest.next(), rest }, async () => signal.throwIfAborted());
    for (;;) {
      const { done, value } = await events.next();
      if (done) return JSON.stringify(value);
    }
  } catch (error) {
    if (signal.aborted) return outcome({ ...UNDER_WAY, status: "cancelled" });
    const { code, message } = toApiError(error, requestId);
    const shown = code === "rate_limit_exceeded" ? code : "server_error";
    return outcome({ ...UNDER_WAY, status: "failed", error: { code: shown, message } });
  } finally {
    const gate = services.gate(tenant);
    if (held) await gate.finish({ requestId: held.callId, end: null }).catch(() => {}); // else it expires by itself
  }
}

async function prepareCall(
  services: Services,
  tenant: TenantContext,
  written: ParsedResponse,
  held: Task["admitted"],
  { requestId, signal, waitUntil }: RunContext,
) {
  const policy = await askGate(() => services.gate(tenant).policy());
  if (!policy) throw new ApiError("not_found", "The project does not exist any more.");
  // It is stored already, and has its room.
  const parsed = await prepareResponse({ services, tenant }, policy, { ...written, store: false });
  const { pipeline } = services;
  const waitedMs = held ? Date.now() - held.atMs : 0;
  const call = new ModelCall({
    ...{ id: requestId, route: ROUTE, request: parsed.request, patienceMs: PATIENCE_MS, startedAtMs: Date.now() },
    caller: { context: tenant, policy },
    // What the gate holds ends at its own time, however late the run began.
    ports: { ...pipeline, requestDeadlineMs: Math.max(1_000, pipeline.requestDeadlineMs - waitedMs) },
    opened: held && {
      admission: {
        admitted: true,
        outputTokens: held.outputTokens,
        queuedMs: 0,
        rates: [],
        ...atPolicy(policy.version),
      },
      askedAtMs: held.atMs,
    },
    waitUntil,
  });
  signal.addEventListener("abort", () => call.stop("client"), { once: true });
  if (signal.aborted) call.stop("client");
  return { call, parsed };
}

const atPolicy = (policyVersion: number) => ({ policyVersion, lease: null });
