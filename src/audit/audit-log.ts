import { type AuditFilter, type AuditRow, readAuditLog } from "../data/audit-log";
import type { Page } from "../data/page";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { unknownCursor } from "../tenancy/projects";

export type { AuditRow } from "../data/audit-log";

/** Administrative events of the organization, newest first. */
export async function listAuditEvents(
  ports: TenancyPorts,
  operator: TenantContext,
  filter: AuditFilter,
): Promise<Page<AuditRow>> {
  return (await readAuditLog(ports.data(operator), filter)) ?? unknownCursor();
}
