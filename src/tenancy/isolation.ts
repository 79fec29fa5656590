import type { Isolation } from "../core/policy";
import { ApiError } from "../errors";
import type { TenantContext } from "./context";
import { askGate, changeTenant } from "./gates";
import type { TenancyPorts } from "./ports";
import { enterProject } from "./projects";

/** Where a tenant's rows lie, and where this deployment could put those of an empty one. */
export interface ProjectIsolation {
  readonly isolation: Isolation;
  readonly offered: readonly Isolation[];
}

export async function retrieveIsolation(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
): Promise<ProjectIsolation> {
  const { isolation } = await enterProject(ports, operator, id);
  return { isolation, offered: ports.homes.offered };
}

/**
 * Decides where a tenant's rows will lie, while it has none. May be repeated.
 * @throws ApiError 400 where the deployment has no such place, 409 where the tenant is no longer empty
 */
export async function setIsolation(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  isolation: Isolation,
): Promise<ProjectIsolation> {
  const { offered } = ports.homes;
  const tenant = await enterProject(ports, operator, id);
  if (!offered.includes(isolation)) {
    const message = `This deployment has no isolation '${isolation}'. It offers ${offered.join(", ")}.`;
    throw new ApiError("invalid_value", message, { param: "isolation" });
  }
  const gate = ports.gate(tenant);
  // The place first: a tenant whose gate names one always has it. A full tenant gets none; its gate refuses below.
  if (await askGate(() => gate.isEmpty(), "storage_unavailable")) await ports.homes.prepare(tenant, isolation);
  await changeTenant(gate, tenant, { type: "set_isolation", isolation });
  return { isolation, offered };
}
