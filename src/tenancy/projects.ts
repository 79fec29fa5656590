import type { Page, PageRequest } from "../data/page";
import { findProject, type ProjectRow, pageOfProjects } from "../data/projects";
import { ApiError } from "../errors";
import type { TenantContext } from "./context";
import { changeTenant } from "./gates";
import { newId } from "./ids";
import type { TenancyPorts } from "./ports";
import { regionOf } from "./regions";

export type { ProjectRow } from "../data/projects";

/** The operator's context inside one of its tenants; a foreign or unknown id is the same "no such project". */
export async function enterProject(ports: TenancyPorts, operator: TenantContext, id: string): Promise<TenantContext> {
  const tenant = await ports.authenticator.enterTenant(operator, id);
  if (!tenant) throw projectNotFound(id);
  return tenant;
}

export const projectNotFound = (id: string) =>
  new ApiError("not_found", `No project found with id '${id}'.`, { param: "project_id" });

export async function createProject(
  ports: TenancyPorts,
  operator: TenantContext,
  asked: { readonly name: string; readonly residency: string; readonly externalKeyId: string | null },
): Promise<ProjectRow> {
  const region = regionOf(asked.residency, ports.regions);
  if (!region) {
    const message = `Residency '${asked.residency}' is not configured on this platform.`;
    throw new ApiError("invalid_value", message, { param: "residency" });
  }
  const tenant = ports.authenticator.foundTenant(operator, { tenantId: newId("project"), region });
  await changeTenant(ports.gate(tenant), tenant, { type: "create_tenant", ...asked });
  return retrieveProject(ports, operator, tenant.tenantId);
}

export async function retrieveProject(ports: TenancyPorts, operator: TenantContext, id: string): Promise<ProjectRow> {
  const row = await findProject(ports.data(operator), id);
  if (!row) throw projectNotFound(id);
  return row;
}

export async function listProjects(
  ports: TenancyPorts,
  operator: TenantContext,
  page: PageRequest & { readonly includeArchived: boolean },
): Promise<Page<ProjectRow>> {
  return (await pageOfProjects(ports.data(operator), page)) ?? unknownCursor();
}

export async function modifyProject(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  changes: { readonly name?: string | undefined; readonly externalKeyId?: string | null | undefined },
): Promise<ProjectRow> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "modify_tenant", ...changes });
  return retrieveProject(ports, operator, id);
}

export async function archiveProject(ports: TenancyPorts, operator: TenantContext, id: string): Promise<ProjectRow> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "archive_tenant" });
  return retrieveProject(ports, operator, id);
}

/** Brings back an archived tenant with everything it had. @throws ApiError 404 once its retention window has ended */
export async function restoreProject(ports: TenancyPorts, operator: TenantContext, id: string): Promise<ProjectRow> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "restore_tenant" });
  return retrieveProject(ports, operator, id);
}

/** What every list says of an `after` that names nothing of this tenant. */
export function unknownCursor(): never {
  throw new ApiError("invalid_value", "'after' names nothing in this list.", { param: "after" });
}
