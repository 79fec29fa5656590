import type { AcquireReply, ModelDispatcherRpc } from "../../durable-objects/model-dispatcher.messages";
import { planOf } from "../core/plans";
import { ApiError } from "../errors";
import { askGate } from "../tenancy/gates";
import type { ModelCall } from "./model-call";
import { sequencesOf } from "./model-request";

/** Tokens are reported this often at most. */
const PROGRESS_MS = 2_000;
/** A model that is silent for longer still has its slot: somebody waits for it. */
const ALIVE_MS = 10_000;

/**
 * Waits for a slot of a scarce model, which its dispatcher shares fairly between tenants. Models that scale by
 * themselves pass at once.
 * @throws ApiError 503 with a wait estimate where the wait is hopeless
 */
export async function dispatch(call: ModelCall): Promise<void> {
  const { model, caller, reservation } = call;
  if (model.maxInFlight === null) return;
  const { actor, tenantId, region } = caller.context;
  if (actor.type === "job") throw new TypeError("a job makes no model calls of its own");
  const dispatcher = call.ports.dispatcher(region, model);
  const request = {
    ...{ requestId: call.id, tenantId, keyId: actor.keyId, weight: planOf(caller.policy).weight },
    ...{ inputTokens: reservation.promptTokens, slots: model.maxInFlight },
    // An object of an earlier version refuses what it does not know.
    ...(sequencesOf(call.request) > 1 ? { sequences: sequencesOf(call.request) } : {}),
  };
  // A second attempt waits no longer than the first would have: what is reserved is held for one wait.
  const timesOutAtMs = Date.now() + call.patienceMs;
  const reply = await waitForSlot(call, dispatcher, () =>
    dispatcher.acquire({ ...request, patienceMs: Math.max(0, timesOutAtMs - Date.now()) }),
  );
  if (!reply.acquired) {
    const message = `'${call.request.model}' is busy with others' requests and yours, and your turn would come too late. Try again in ${(reply.retryAfterMs / 1000).toFixed(1)} s.`;
    const retryAfter = String(Math.max(1, Math.ceil(reply.retryAfterMs / 1000)));
    throw new ApiError("model_overloaded", message, { headers: { "retry-after": retryAfter } });
  }
  call.slot = dispatcher;
  call.endpoint = reply.endpoint;
  call.sequences = reply.sequences ?? 1;
  call.slotSeenAtMs = Date.now();
  call.slotTimer = setInterval(() => reportProgress(call, call.usage.completionTokens, ALIVE_MS), ALIVE_MS);
}

/** A caller that goes away leaves the queue; a slot whose grant is lost on its way is given back. */
async function waitForSlot(
  call: ModelCall,
  dispatcher: ModelDispatcherRpc,
  acquire: () => Promise<AcquireReply>,
): Promise<AcquireReply> {
  const cancel = () => void dispatcher.leave(call.id).catch(() => {}); // else it times out
  if (call.signal.aborted) throw new ApiError("client_closed_request", "The request was cancelled.");
  call.signal.addEventListener("abort", cancel, { once: true });
  try {
    return await askGate(acquire);
  } catch (error) {
    const nothing = { requestId: call.id, inputTokens: 0, outputTokens: 0 };
    call.waitUntil(dispatcher.release(nothing).catch(() => {})); // else it is freed when nothing is heard of it
    throw error;
  } finally {
    call.signal.removeEventListener("abort", cancel);
  }
}

/**
 * Before the first token: the endpoint failed or is busy, another may answer in its place, in the same slot.
 * @returns false where there is none that was not tried
 */
export async function failOver(call: ModelCall, outcome: "failed" | "busy", restMs: number): Promise<boolean> {
  if (!call.slot || !call.endpoint) return false;
  const request = { requestId: call.id, endpointId: call.endpoint.id, outcome, restMs };
  const next = await call.slot.failover(request).catch(() => null);
  call.endpoint = next;
  call.sequences = next?.sequences ?? 1;
  return next !== null;
}

/** Tells the dispatcher how many tokens have come: they are charged, and the slot lives on. */
export function reportProgress(call: ModelCall, outputTokens: number, afterMs = PROGRESS_MS): void {
  const nowMs = Date.now();
  if (!call.slot || nowMs - call.slotSeenAtMs < afterMs) return;
  call.slotSeenAtMs = nowMs;
  void call.slot.progress(call.id, outputTokens).catch(() => {});
}

/** Frees the slot with what was really taken; once, whoever asks for it. */
export async function freeSlot(call: ModelCall): Promise<void> {
  const { slot, usage } = call;
  if (!slot) return;
  call.slot = undefined;
  clearInterval(call.slotTimer);
  const outcome = call.endpointFailed ? "failed" : "ended";
  const used = {
    requestId: call.id,
    inputTokens: usage.promptTokens,
    outputTokens: usage.completionTokens,
    outcome,
  } as const;
  await slot.release(used).catch(() => {}); // else it is freed when nothing is heard of it
}
