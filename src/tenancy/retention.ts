import type { DataRetention, PolicySnapshot } from "../core/policy";
import type { TenantContext } from "./context";
import { askGate, changeTenant } from "./gates";
import type { TenancyPorts } from "./ports";
import { enterProject, projectNotFound } from "./projects";

/** For how many days what is deleted can be restored, the tenant itself included; then it is purged. */
export async function retrieveRetention(ports: TenancyPorts, operator: TenantContext, id: string): Promise<number> {
  return (await policyOf(ports, operator, id)).retentionDays;
}

/** Changes it, for what is deleted already too. @throws ApiError 403 when the project is archived */
export async function setRetention(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  retentionDays: number,
): Promise<number> {
  const tenant = await enterProject(ports, operator, id);
  const changed = await changeTenant(ports.gate(tenant), tenant, { type: "set_retention", retentionDays });
  return changed.policy.retentionDays;
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
