import type { Page, PageRequest } from "../data/page";
import { findServiceAccount, pageOfServiceAccounts, type ServiceAccountRow } from "../data/service-accounts";
import { ApiError } from "../errors";
import type { TenantContext } from "./context";
import { changeTenant } from "./gates";
import { newId } from "./ids";
import type { TenancyPorts } from "./ports";
import { unknownCursor } from "./projects";

export type { ServiceAccountRow } from "../data/service-accounts";

/** @param tenant the operator inside the tenant */
export async function createServiceAccount(
  ports: TenancyPorts,
  tenant: TenantContext,
  name: string,
): Promise<ServiceAccountRow> {
  const id = newId("serviceAccount");
  await changeTenant(ports.gate(tenant), tenant, { type: "create_service_account", id, name });
  return retrieveServiceAccount(ports, tenant, id);
}

export async function retrieveServiceAccount(
  ports: TenancyPorts,
  tenant: TenantContext,
  id: string,
): Promise<ServiceAccountRow> {
  const row = await findServiceAccount(ports.data(tenant), id);
  if (!row)
    throw new ApiError("not_found", `No service account found with id '${id}'.`, { param: "service_account_id" });
  return row;
}

export async function listServiceAccounts(
  ports: TenancyPorts,
  tenant: TenantContext,
  page: PageRequest,
): Promise<Page<ServiceAccountRow>> {
  return (await pageOfServiceAccounts(ports.data(tenant), page)) ?? unknownCursor();
}

export async function modifyServiceAccount(
  ports: TenancyPorts,
  tenant: TenantContext,
  id: string,
  changes: { readonly name?: string | undefined; readonly role?: "member" | "owner" | undefined },
): Promise<ServiceAccountRow> {
  await retrieveServiceAccount(ports, tenant, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "modify_service_account", id, ...changes });
  return retrieveServiceAccount(ports, tenant, id);
}

/** Brings back a deleted account, and the keys that were deleted with it. */
export async function restoreServiceAccount(
  ports: TenancyPorts,
  tenant: TenantContext,
  id: string,
): Promise<ServiceAccountRow> {
  await changeTenant(ports.gate(tenant), tenant, { type: "restore_service_account", id });
  return retrieveServiceAccount(ports, tenant, id);
}

/** Deletes the account and revokes its keys. */
export async function deleteServiceAccount(ports: TenancyPorts, tenant: TenantContext, id: string): Promise<void> {
  await retrieveServiceAccount(ports, tenant, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "delete_service_account", id });
}
