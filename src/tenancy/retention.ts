import type { DataRetention, PolicySnapshot } from "../core/policy";
import type { TenantContext } from "./context";
import { askGate, changeTenant } from "./gates";
import type { TenancyPorts } from "./ports";
import { enterProject, projectNotFound } from "./projects";

/** How long things of a tenant stay, in days. */
export interface Retention {
  /** What is deleted can be restored so long, the tenant itself included; then it is purged. */
  readonly retentionDays: number;
  /** Stored completions and responses are forgotten so long after they were made. */
  readonly artifactDays: number;
}

export async function retrieveRetention(ports: TenancyPorts, operator: TenantContext, id: string): Promise<Retention> {
  return policyOf(ports, operator, id);
}

/**
 * Changes it: of what is deleted for what is deleted already too, of artifacts for those that are made from now on.
 * @throws ApiError 403 when the project is archived
 */
export async function setRetention(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  days: { readonly [K in keyof Retention]?: number | undefined },
): Promise<Retention> {
  const tenant = await enterProject(ports, operator, id);
  const changed = await changeTenant(ports.gate(tenant), tenant, { type: "set_retention", ...days });
  return changed.policy;
}

/** What may be kept of the project's content. */
export async function retrieveDataRetention(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
): Promise<DataRetention> {
  return (await policyOf(ports, operator, id)).dataRetention;
}

/** Holds for what comes from now on; what is stored stays until it is deleted. */
export async function setDataRetention(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  dataRetention: DataRetention,
): Promise<DataRetention> {
  const tenant = await enterProject(ports, operator, id);
  const changed = await changeTenant(ports.gate(tenant), tenant, { type: "set_data_retention", dataRetention });
  return changed.policy.dataRetention;
}

async function policyOf(ports: TenancyPorts, operator: TenantContext, id: string): Promise<PolicySnapshot> {
  const gate = ports.gate(await enterProject(ports, operator, id));
  const policy = await askGate(() => gate.policy(), "storage_unavailable");
  if (!policy) throw projectNotFound(id);
  return policy;
}
