import { describe, expect, it } from "vitest";
import { LeaseBook } from "../../../src/core/lease-book";
import type { ModelCall, PipelinePorts } from "../../../src/pipeline/model-call";
import { runStages } from "../../../src/pipeline/pipeline";
import { CONTROL_STAGES, INFERENCE_STAGES, STAGE_ORDER } from "../../../src/pipeline/stages";
import { CATALOGUE, callOf, chatRequest } from "./calls";

describe("the stages of a model call", () => {
  it("are all that exist, in their order: nobody's model runs unauthenticated, unreserved, unmetered or unsettled", () => {
    expect(INFERENCE_STAGES).toEqual([
      ...["authenticate", "bind", "validate", "resolve_model", "residency", "reserve", "dispatch", "run", "meter"],
      "settle",
    ]);
    for (const stages of [CONTROL_STAGES, INFERENCE_STAGES]) {
      const places = stages.map((stage) => STAGE_ORDER.indexOf(stage));
      expect(places).toEqual([...places].sort((one, other) => one - other));
      expect(stages.slice(0, 3)).toEqual(["authenticate", "bind", "validate"]);
    }
  });
});

/** A call that its gate has admitted, with a slot of a scarce model; its gate and its dispatcher write down what they hear. */
function reservedCall(model: string) {
  const heard: unknown[] = [];
  const held: Promise<unknown>[] = [];
  const gate = { finish: async (request: object) => void heard.push(request) };
  const ports = { gate: () => gate, catalogue: CATALOGUE, leases: new LeaseBook(0) } as unknown as PipelinePorts;
  const admission = { admitted: true, outputTokens: 1, queuedMs: 0, rates: [], policyVersion: 1, lease: null } as const;
  const call = callOf(chatRequest({ model }), ports, {
    ...{ opened: { admission, askedAtMs: 0 }, waitUntil: (promise) => void held.push(promise) },
  });
  call.reservation = { outputTokens: 1, promptTokens: 1, rates: [], leaseId: null };
  call.slot = { release: async (used: object) => void heard.push(used) } as unknown as NonNullable<ModelCall["slot"]>;
  return { call, heard, held };
}

describe("a call that fails on its way to its model", () => {
  it("frees its slot, gives back what was reserved, and is over", async () => {
    const { call, heard, held } = reservedCall("of nobody");
    await expect(runStages(call, INFERENCE_STAGES)).rejects.toMatchObject({ code: "model_not_found" });
    expect(heard).toEqual([
      { requestId: "req_1", inputTokens: 0, outputTokens: 0, outcome: "ended" },
      { requestId: "req_1", draw: null, end: null },
    ]);
    expect(call.slot).toBeUndefined();
    expect(held).toHaveLength(1);
    await Promise.all(held); // the request's work is kept alive until then, and no longer
  });

  it("gives back nothing where nothing was reserved", async () => {
    const heard: unknown[] = [];
    const gate = { finish: async (request: object) => void heard.push(request) };
    const ports = { gate: () => gate } as unknown as PipelinePorts;
    await expect(runStages(callOf(chatRequest({ model: "of nobody" }), ports), INFERENCE_STAGES)).rejects.toThrow();
    expect(heard).toEqual([]);
  });
});
