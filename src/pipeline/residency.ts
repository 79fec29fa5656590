import type { ModelCall } from "./model-call";
import { modelNotFound } from "./resolve-model";

/** A model that makes no promise for the tenant's region does not exist for that tenant. */
export async function checkResidency(call: ModelCall): Promise<void> {
  const { region } = call.caller.context;
  if (!call.model.regions.includes(region)) throw modelNotFound(call.request.model);
}
