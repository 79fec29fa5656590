import type { Model } from "../inference/catalogue";
import type { Region } from "../tenancy/context";
import type { ModelCall } from "./model-call";
import { modelNotFound } from "./resolve-model";

/** A model that makes no promise for the tenant's region does not exist for that tenant. */
export async function checkResidency(call: ModelCall): Promise<void> {
  if (!isServed(call.model, call.caller.context.region)) throw modelNotFound(call.request.model);
}

export const isServed = (model: Model, region: Region) => model.regions.includes(region);
