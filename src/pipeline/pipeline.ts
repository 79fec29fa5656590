import { dispatch, freeSlot } from "./dispatch";
import { meter } from "./meter";
import type { ModelCall } from "./model-call";
import { reserve } from "./reserve";
import { checkResidency } from "./residency";
import { resolveModel } from "./resolve-model";
import { runProvider } from "./run-provider";
import { release, settle } from "./settle";
import type { Stage } from "./stages";

/** Stages that the door and the routes do themselves, before a model call exists. */
type DoorStage = "authenticate" | "bind" | "validate";
/** Stages with a place in the order and no work yet. */
type LaterStage = "cache_lookup" | "guard_input" | "guard_output";

const STAGES: Record<Exclude<Stage, DoorStage | LaterStage>, (call: ModelCall) => Promise<void>> = {
  resolve_model: resolveModel,
  residency: checkResidency,
  reserve,
  dispatch,
  run: runProvider,
  meter,
  settle,
};

/** Gives back what was reserved for a call that does not reach its model, by the door too. */
export async function abandon(call: ModelCall): Promise<void> {
  if (call.isReserved) await release(call);
}

/**
 * Takes a call through its route's stages. Afterwards `call.output` is there to be read; reading it to its end, or
 * leaving it, settles the call.
 * The request's work is kept alive until the call is settled, even when its caller has gone.
 */
export async function runStages(call: ModelCall, stages: readonly Stage[]): Promise<void> {
  call.waitUntil(call.finished.promise);
  try {
    for (const stage of stages) {
      if (stage in STAGES) await STAGES[stage as keyof typeof STAGES](call);
    }
  } catch (error) {
    await freeSlot(call);
    await abandon(call);
    call.finished.resolve();
    throw error;
  }
}
