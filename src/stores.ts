import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import { type Config, configFrom, regionBindings } from "./config";
import { objectName } from "./core/object-name";
import { Directory } from "./data/directory";
import { apiKey, auditLog, journalSegment, project, serviceAccount, usageRollup } from "./data/schema";
import { columnIs, TenantData, type TenantTable } from "./data/tenant-data";
import { erasePrefix, listPrefix } from "./storage/prefix";
import { journalPrefix } from "./storage/segments";
import type { TenantContext } from "./tenancy/context";
import { gatesOf } from "./tenancy/gates";
import { enterPlatformAsJob } from "./tenancy/jobs";

export const STORE_REGISTRY_VERSION = 1;

/** A place where something of a tenant lies. Whoever adds a place adds it here, or a test fails. */
export interface Store {
  /** `table:…`, `directory:…`, `r2:<binding>/…` or `object:<class>`. */
  readonly name: string;
  /** How many things of the tenant lie there, deleted ones included. */
  count(tenant: TenantContext): Promise<number>;
  /** Their names, at most `limit` of them. */
  list(tenant: TenantContext, limit: number): Promise<readonly string[]>;
  /** Removes them for good. */
  erase(tenant: TenantContext): Promise<void>;
}

/**
 * Every store of a deployment, in the order in which it may be erased: dependants before what they refer to, and the
 * gate last, because the data key that opens the others lies there.
 */
export function storeRegistry(env: object): readonly Store[] {
  const config = configFrom(env);
  return [
    ownRows(config, "api_key", apiKey, apiKey.id),
    ownRows(config, "service_account", serviceAccount, serviceAccount.id),
    ownRows(config, "journal_segment", journalSegment, journalSegment.objectKey),
    rowsAbout(config, "project", project, project.id, project.id),
    rowsAbout(config, "audit_log", auditLog, auditLog.projectId, auditLog.id),
    rowsAbout(config, "usage_rollup", usageRollup, usageRollup.projectId, usageRollup.hourMs),
    ...directoryEntries(config),
    journalObjects(config),
    gateObject(config),
  ];
}

/** Rows that belong to the tenant itself. */
function ownRows(config: Config, table: string, of: TenantTable, id: SQLiteColumn): Store {
  const data = (tenant: TenantContext) =>
    new TenantData(tenant, regionBindings(config, tenant.region).database).withDeleted();
  return {
    name: `table:${table}`,
    count: (tenant) => data(tenant).count(of),
    list: (tenant, limit) => data(tenant).names(of, id, limit),
    erase: (tenant) => data(tenant).erase(of),
  };
}

/** Rows of the operator that are about the tenant. */
function rowsAbout(config: Config, table: string, of: TenantTable, about: SQLiteColumn, id: SQLiteColumn): Store {
  const platform = () => new TenantData(enterPlatformAsJob("store registry"), config.DB).withDeleted();
  const where = (tenant: TenantContext) => columnIs(about, tenant.tenantId);
  return {
    name: `table:${table}`,
    count: (tenant) => platform().count(of, where(tenant)),
    list: (tenant, limit) => platform().names(of, id, limit, where(tenant)),
    erase: (tenant) => platform().erase(of, where(tenant)),
  };
}

function directoryEntries(config: Config): Store[] {
  const directory = new Directory(config.DIRECTORY);
  return (["directory_key", "directory_tenant"] as const).map((table) => ({
    name: `directory:${table}`,
    count: async ({ tenantId }) => (await directory.entriesOf(table, tenantId)).length,
    list: async ({ tenantId }, limit) => (await directory.entriesOf(table, tenantId)).slice(0, limit),
    erase: ({ tenantId }) => directory.eraseEntriesOf(table, tenantId),
  }));
}

function journalObjects(config: Config): Store {
  const bucket = (tenant: TenantContext) => regionBindings(config, tenant.region).bucket;
  return {
    name: "r2:ARTIFACTS/journal",
    count: async (tenant) => (await listPrefix(bucket(tenant), journalPrefix(tenant))).length,
    list: async (tenant, limit) => (await listPrefix(bucket(tenant), journalPrefix(tenant))).slice(0, limit),
    erase: (tenant) => erasePrefix(bucket(tenant), journalPrefix(tenant)),
  };
}

function gateObject(config: Config): Store {
  const gateAt = gatesOf(config.TENANT_GATE, config.JURISDICTIONS);
  return {
    name: "object:TenantGate",
    count: (tenant) => gateAt(tenant).countRows(),
    list: async (tenant) => ((await gateAt(tenant).countRows()) > 0 ? [objectName(tenant)] : []),
    erase: (tenant) => gateAt(tenant).erase(),
  };
}
