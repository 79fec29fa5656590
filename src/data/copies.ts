import type { Copy, CopySink, ObjectHome } from "../../durable-objects/ports";
import type { ObjectAddress } from "../core/object-name";
import { PLATFORM_TENANT, type Region } from "../tenancy/context";
import type { Directory } from "./directory";
import type { BoundStatement, TenantData } from "./tenant-data";

/**
 * Writes the copies of a gate's facts: the tenant's own rows into its database, the operator's into the platform's,
 * and who is where into the directory. Upserts only, so that a copy may arrive twice.
 */
export function copySink(stores: {
  readonly directory: Directory;
  readonly data: (tenant: ObjectHome) => TenantData;
  readonly platformData: () => TenantData;
}): CopySink {
  return {
    async apply(tenant, copies) {
      const own = stores.data(tenant);
      await own.batch(copies.flatMap((copy) => ownRow(own, copy)));
      const platform = stores.platformData();
      await platform.batch(copies.flatMap((copy) => platformRow(platform, tenant, copy)));
      for (const copy of copies) await directoryRow(stores.directory, tenant, copy);
    },
  };
}

function ownRow(data: TenantData, copy: Copy): BoundStatement[] {
  const { apiKey, serviceAccount } = data.tables;
  switch (copy.of) {
    case "service_account": {
      const { of: _, ...row } = copy;
      return [data.upsert(serviceAccount, [serviceAccount.id], row)];
    }
    case "api_key": {
      const { of: _, hash: __, scopes, ...row } = copy;
      return [data.upsert(apiKey, [apiKey.id], { ...row, scopes: [...scopes] })];
    }
    case "project":
    case "audit_event":
      return [];
  }
}

function platformRow(platform: TenantData, tenant: ObjectAddress, copy: Copy): BoundStatement[] {
  const { auditLog, project } = platform.tables;
  switch (copy.of) {
    case "project": {
      if (tenant.tenantId === PLATFORM_TENANT) return []; // the operator is nobody's project
      const { of: _, ...row } = copy;
      return [platform.upsert(project, [project.id], { ...row, id: tenant.tenantId, region: tenant.region })];
    }
    case "audit_event": {
      const { of: _, ...row } = copy;
      const projectId = tenant.tenantId === PLATFORM_TENANT ? null : tenant.tenantId;
      const times = { createdAtMs: copy.effectiveAtMs, updatedAtMs: copy.effectiveAtMs };
      return [platform.upsert(auditLog, [auditLog.id], { ...row, ...times, details: { ...copy.details }, projectId })];
    }
    case "service_account":
    case "api_key":
      return [];
  }
}

async function directoryRow(directory: Directory, tenant: ObjectAddress, copy: Copy): Promise<void> {
  const at = { tenantId: tenant.tenantId, region: tenant.region as Region };
  if (copy.of === "api_key") {
    await directory.putKey(copy.hash, { ...at, status: copy.deletedAtMs === null ? "active" : "gone" });
  } else if (copy.of === "project") {
    // An archived tenant keeps its entry: its operator can still read it.
    await directory.putTenant({ ...at, status: "active" });
  }
}
