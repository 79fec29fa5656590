import type { FinishRequest } from "../../durable-objects/tenant-gate.messages";
import type { Outcome } from "../core/records";
import { ApiError } from "../errors";
import { ProviderError } from "../inference/provider";
import { freeSlot } from "./dispatch";
import { promptAlone } from "./meter";
import type { ModelCall, Output } from "./model-call";
import { OPERATOR_FAILURES, providerFailed } from "./run-provider";

/** A settlement is retried for this long, then the hold is left to be booked as unreconciled. */
const RETRY_MS = 10_000;
const RETRY_PAUSE_MS = 250;

/**
 * Settles the call when its output ends, in whatever way, and lets the end through only then: what a request leaves
 * is durable before its caller has the end of the reply.
 */
export async function settle(call: ModelCall): Promise<void> {
  call.output = settling(call, call.output);
}

async function* settling(call: ModelCall, output: AsyncIterable<Output>): AsyncGenerator<Output> {
  const { requestDeadlineMs } = call.ports;
  const deadlineMs = Math.max(requestDeadlineMs - RETRY_MS, requestDeadlineMs / 2); // leaves time to settle
  const deadline = setTimeout(() => call.stop("deadline"), deadlineMs);
  let outcome: Exclude<Outcome, "unreconciled"> = "cancelled"; // a consumer that stops reading runs only `finally`
  try {
    const pending: Output[] = [];
    for await (const delta of output) {
      // How each choice ended, and the usage, wait with the end.
      if (delta.type === "finish" || delta.type === "usage") pending.push(delta);
      else yield delta;
    }
    outcome = call.stoppedBy === "client" ? "cancelled" : "completed";
    call.waitUntil(freeSlot(call)); // the model is done with it: the next one need not wait for the books
    await finish(call, outcome);
    yield* pending;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    outcome = call.stoppedBy === "deadline" ? "deadline" : call.stoppedBy === "client" ? "cancelled" : "provider_error";
    if (outcome !== "provider_error" && call.firstTokenMs === null) call.usage = promptAlone(call);
    throw await failed(call, error, outcome);
  } finally {
    clearTimeout(deadline);
    await freeSlot(call);
    await finish(call, outcome).catch(() => {}); // once; a consumer that left has nobody to tell
    call.finished.resolve();
  }
}

async function failed(call: ModelCall, error: unknown, outcome: Outcome): Promise<unknown> {
  if (outcome === "deadline") return new ApiError("model_timeout", "The request ran longer than this platform allows.");
  if (!(error instanceof ProviderError)) return error;
  if (OPERATOR_FAILURES.has(error.failure)) {
    const { provider, providerModel } = call.model;
    const log = { event: "provider_failed", requestId: call.id, provider, providerModel, failure: error.failure };
    console.error(JSON.stringify({ ...log, message: error.message, code: error.detail.providerCode ?? null }));
  }
  return providerFailed(error);
}

const finishing = new WeakMap<ModelCall, Promise<void>>(); // one settlement per call, whoever asks for it

/**
 * Settles once; further calls wait for the first.
 * @throws ApiError `settlement_unavailable` when the gate could not be reached for {@link RETRY_MS}
 */
export function finish(call: ModelCall, outcome: Exclude<Outcome, "unreconciled">): Promise<void> {
  const known = finishing.get(call);
  if (known) return known;
  const first = settleAtGate(call, outcome);
  finishing.set(call, first);
  return first;
}

/** Gives back what a call reserved that never reached the model; nothing is recorded. */
export async function release(call: ModelCall): Promise<void> {
  const { leaseId } = call;
  if (leaseId !== null && call.ports.leases.release(leaseId, call.id)) return;
  const gate = call.ports.gate(call.caller.context);
  await gate.finish({ requestId: call.id, draw: drawOf(call), end: null }).catch(() => {}); // else it expires by itself
  if (leaseId !== null) call.ports.leases.settled(leaseId, call.id);
}

async function settleAtGate(call: ModelCall, outcome: Exclude<Outcome, "unreconciled">): Promise<void> {
  const { usage, firstTokenMs, usageRejected } = call;
  const totalMs = Date.now() - call.startedAtMs;
  const facts = { adapterDigest: null, promptVersion: null, firstTokenMs, totalMs };
  const { promptTokens, cachedTokens, completionTokens, estimated } = usage;
  const request: FinishRequest = {
    requestId: call.id,
    draw: drawOf(call),
    end: { outcome, promptTokens, cachedTokens, completionTokens, estimated, usageRejected, ...facts },
  };
  const giveUpAtMs = Date.now() + RETRY_MS;
  for (;;) {
    try {
      const reply = await call.ports.gate(call.caller.context).finish(request);
      if (!reply.settled) throw settlementUnavailable(call.id);
      call.receipt = reply.receipt;
      if (request.draw) call.ports.leases.settled(request.draw.leaseId, call.id);
      return;
    } catch (error) {
      if (error instanceof ApiError) throw error;
      if (Date.now() >= giveUpAtMs || isOurMistake(error)) throw settlementUnavailable(call.id);
      // Full jitter, so that callers of one object do not come back together.
      await new Promise((resolve) => setTimeout(resolve, Math.random() * RETRY_PAUSE_MS * 2));
    }
  }
}

/** Refused for what it is, so it would be refused again; the name of an error survives its way from an object. */
const isOurMistake = (error: unknown) =>
  error instanceof Error && ["ZodError", "TypeError", "RangeError"].includes(error.name);

/** What the gate does not know of a call that it did not admit itself. */
function drawOf(call: ModelCall): FinishRequest["draw"] {
  const { leaseId, request, route } = call;
  if (leaseId === null) return null;
  const { promptTokens, outputTokens } = call.reservation;
  const choices = request.kind === "completions" ? request.choices : 1;
  const { kind, stream } = request;
  return { leaseId, kind, route, stream, promptTokens, outputTokens: outputTokens * choices };
}

const settlementUnavailable = (id: string) =>
  new ApiError("settlement_unavailable", `The usage of this request could not be recorded. Quote request ${id}.`);
