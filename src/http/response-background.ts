import { rewriteArtifact } from "../artifacts/artifacts";
import { ApiError } from "../errors";
import { ModelCall } from "../pipeline/model-call";
import { runStages } from "../pipeline/pipeline";
import { callableModel } from "../pipeline/resolve-model";
import { INFERENCE_STAGES } from "../pipeline/stages";
import type { Services } from "../services";
import { type BackgroundPorts, type BackgroundTask, startRun } from "../tenancy/background";
import type { Actor, TenantContext, TenantHome } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import { newId } from "../tenancy/ids";
import { enterForCaller } from "../tenancy/jobs";
import { toApiError } from "./errors";
import type { AppContext } from "./handler";
import { makeResponse, prepareResponse, storeResponse } from "./response-making";
import { type ResponseHead, type ResponseState, responseToWire, UNDER_WAY } from "./response-reply";
import { type ParsedResponse, parseResponse } from "./response-request";

/** How long a run waits for a slot of its own tenant: nobody stands at the counter. */
const PATIENCE_MS = 300_000;

/** What a run is given: who asked, and what. */
interface Task {
  readonly home: TenantHome;
  readonly actor: Actor;
  readonly head: ResponseHead;
  readonly asked: unknown;
}

/** Takes a response on. @throws ApiError for what its model cannot do, as if it were run at once */
export async function acceptInBackground(c: AppContext, parsed: ParsedResponse): Promise<Response> {
  const { services, tenant, policy } = c.var;
  if (!parsed.store) {
    const message = "'background' needs 'store': the result is fetched later, and this project or request keeps none.";
    throw new ApiError("invalid_value", message, { param: "background" });
  }
  const model = callableModel(services.pipeline.catalogue, { policy, context: tenant }, parsed.request);
  const head: ResponseHead = {
    id: newId("response"),
    createdAt: Math.floor(Date.now() / 1000),
    model: model.name,
    serviceTier: parsed.request.serviceTier,
    store: true,
  };
  const queued = responseToWire(head, parsed, { ...UNDER_WAY, status: "queued" });
  await storeResponse({ services, tenant }, parsed, queued);
  const { tenantId, region, isolation, actor } = tenant;
  const task: Task = { home: { tenantId, region, isolation }, actor, head, asked: parsed.asked };
  const start = { id: head.id, createdAtMs: head.createdAt * 1000, task: JSON.stringify(task) };
  await startRun(services.background, tenant, start);
  return c.json(queued);
}

/** What the objects that work in the background do with a response. */
export const backgroundPorts =
  (servicesOf: (env: object) => Services) =>
  (env: object): BackgroundPorts => ({
    run: (task, signal, waitUntil) => run(servicesOf(env), task, signal, waitUntil),
    async interrupted(task) {
      const { write } = open(servicesOf(env), task);
      const message = "The response was interrupted and is not begun again, since its model may have answered already.";
      await write({ ...UNDER_WAY, status: "failed", error: { code: "server_error", message } });
    },
  });

function open(services: Services, { task }: BackgroundTask) {
  const { home, actor, head, asked } = JSON.parse(task) as Task;
  const tenant = enterForCaller(home, actor);
  const parsed = parseResponse(asked);
  const write = async (state: ResponseState) =>
    rewriteArtifact(services, tenant, "response", head.id, responseToWire(head, parsed, state));
  return { tenant, parsed, head, write };
}

async function run(
  services: Services,
  task: BackgroundTask,
  signal: AbortSignal,
  waitUntil: (promise: Promise<unknown>) => void,
): Promise<void> {
  const { tenant, parsed, head, write } = open(services, task);
  const requestId = newId("request");
  try {
    signal.throwIfAborted();
    await write(UNDER_WAY);
    const making = await begin(services, tenant, parsed, { requestId, signal, waitUntil });
    const events = makeResponse({ ...making, head }, async (whole) => {
      signal.throwIfAborted();
      await rewriteArtifact(services, tenant, "response", head.id, whole);
    });
    while (!(await events.next()).done);
  } catch (error) {
    if (signal.aborted) return void (await write({ ...UNDER_WAY, status: "cancelled" }));
    const { code, message } = toApiError(error, requestId);
    const shown = code === "rate_limit_exceeded" ? code : "server_error";
    await write({ ...UNDER_WAY, status: "failed", error: { code: shown, message } });
  }
}

async function begin(
  services: Services,
  tenant: TenantContext,
  written: ParsedResponse,
  run: { requestId: string; signal: AbortSignal; waitUntil: (promise: Promise<unknown>) => void },
) {
  const policy = await askGate(() => services.gate(tenant).policy());
  if (!policy) throw new ApiError("not_found", "The project does not exist any more.");
  const parsed = await prepareResponse({ services, tenant }, policy, written);
  const call = new ModelCall({
    id: run.requestId,
    route: "/v1/responses",
    caller: { context: tenant, policy },
    request: parsed.request,
    ports: services.pipeline,
    patienceMs: PATIENCE_MS,
    startedAtMs: Date.now(),
    opened: undefined,
    waitUntil: run.waitUntil,
  });
  run.signal.addEventListener("abort", () => call.stop("client"), { once: true });
  if (run.signal.aborted) call.stop("client");
  await runStages(call, INFERENCE_STAGES);
  const rest = call.output[Symbol.asyncIterator]();
  return { call, parsed, first: await rest.next(), rest };
}
