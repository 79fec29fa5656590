import { type ModelLimits, modelLimits, type PolicySnapshot } from "../core/policy";
import { ApiError } from "../errors";
import type { ModelCatalogue } from "../inference/catalogue";
import type { TenantContext } from "./context";
import { askGate, changeTenant } from "./gates";
import type { TenancyPorts } from "./ports";

export interface RateLimit extends ModelLimits {
  readonly id: string;
  /** Public model name. */
  readonly model: string;
}

/** A tenant's limits for every model of the catalogue; aliases share their model's. */
export async function listRateLimits(
  ports: TenancyPorts,
  tenant: TenantContext,
  catalogue: ModelCatalogue,
): Promise<RateLimit[]> {
  const policy = await askGate(() => ports.gate(tenant).policy(), "storage_unavailable");
  if (!policy) throw new ApiError("not_found", "No such project.");
  return catalogue.models.map((model) => rateLimitOf(policy, model.name));
}

export async function modifyRateLimit(
  ports: TenancyPorts,
  tenant: TenantContext,
  catalogue: ModelCatalogue,
  id: string,
  changes: { readonly requestsPerMinute?: number | undefined; readonly tokensPerMinute?: number | undefined },
): Promise<RateLimit> {
  const model = catalogue.models.find((known) => idOf(known.name) === id);
  if (!model) throw new ApiError("not_found", `No rate limit found with id '${id}'.`, { param: "rate_limit_id" });
  const command = { type: "set_model_limits", model: model.name, ...changes } as const;
  const { policy } = await changeTenant(ports.gate(tenant), tenant, command);
  return rateLimitOf(policy, model.name);
}

/** Slashes would end a path segment. */
const idOf = (model: string) => `rl-${model.replaceAll("/", ".")}`;
const rateLimitOf = (policy: PolicySnapshot, model: string): RateLimit => ({
  id: idOf(model),
  model,
  ...modelLimits(policy, model),
});
