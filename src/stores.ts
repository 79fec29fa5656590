import type { ModelDispatcherRpc } from "../durable-objects/model-dispatcher.messages";
import { bucketOf, type Config, configFrom } from "./config";
import { objectName } from "./core/object-name";
import { tableStores } from "./data/table-stores";
import { filePrefix } from "./storage/files";
import { erasePrefix, listPrefix } from "./storage/prefix";
import { journalPrefix } from "./storage/segments";
import type { TenantContext } from "./tenancy/context";
import { type GateAt, objectsOf, sharedObjectsOf } from "./tenancy/gates";
import { enterPlatformAsJob } from "./tenancy/jobs";

export const STORE_REGISTRY_VERSION = 2;

/** A place where something of a tenant lies. Whoever adds a place adds it here, or a test fails. */
export interface Store {
  /** `table:…`, `directory:…`, `schema:…`, `r2:<binding>/…` or `object:<class>`. */
  readonly name: string;
  /** What is the operator's (its log, its ledger) tells of the tenant and outlives it until it is erased on demand. */
  readonly owner: "tenant" | "operator";
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
  const platform = () => enterPlatformAsJob("store registry");
  return [
    ...tableStores(config.databases, platform).map(({ table, ...store }) => ({ name: `table:${table}`, ...store })),
    ...(config.databases.offered.includes("bridge") ? [tenantSchema(config)] : []),
    databaseObject(config),
    ...directoryEntries(config),
    objectsUnder(config, "journal", journalPrefix),
    objectsUnder(config, "files", filePrefix),
    dispatcherRows(config),
    rowsOfObject("IdempotencyStore", objectsOf<RowsRpc>(config.IDEMPOTENCY_STORE, config.JURISDICTIONS)),
    rowsOfObject("BackgroundRuns", objectsOf<RowsRpc>(config.BACKGROUND_RUNS, config.JURISDICTIONS)),
    gateObject(config),
  ];
}

/** The schema of a tenant that has its own. */
function tenantSchema({ databases }: Config): Store {
  const names = async (tenant: TenantContext) =>
    (await databases.schemaOf(tenant)?.exists()) ? [tenant.tenantId] : [];
  return {
    name: "schema:bridge",
    owner: "tenant",
    count: async (tenant) => (await names(tenant)).length,
    list: names,
    erase: async (tenant) => void (await databases.schemaOf(tenant)?.drop()),
  };
}

/** The database of a tenant that has its own; of the others no object is made by asking. */
function databaseObject({ databases }: Config): Store {
  const count = async (tenant: TenantContext) =>
    tenant.isolation === "silo" ? databases.objectOf(tenant).countRows() : 0;
  return {
    name: "object:TenantDatabase",
    owner: "tenant",
    count,
    list: async (tenant) => ((await count(tenant)) > 0 ? [objectName(tenant)] : []),
    erase: async (tenant) => {
      if (tenant.isolation === "silo") await databases.objectOf(tenant).erase();
    },
  };
}

function directoryEntries({ directory }: Config): Store[] {
  return (["directory_key", "directory_tenant"] as const).map((table) => ({
    name: `directory:${table}`,
    owner: "tenant",
    count: async ({ tenantId }) => (await directory.entriesOf(table, tenantId)).length,
    list: async ({ tenantId }, limit) => (await directory.entriesOf(table, tenantId)).slice(0, limit),
    erase: ({ tenantId }) => directory.eraseEntriesOf(table, tenantId),
  }));
}

/** What lies in object storage under a prefix of the tenant's own. */
function objectsUnder(config: Config, name: string, prefixOf: (tenant: TenantContext) => string): Store {
  const bucket = (tenant: TenantContext) => bucketOf(config, tenant.region);
  return {
    name: `r2:ARTIFACTS/${name}`,
    owner: "tenant",
    count: async (tenant) => (await listPrefix(bucket(tenant), prefixOf(tenant))).length,
    list: async (tenant, limit) => (await listPrefix(bucket(tenant), prefixOf(tenant))).slice(0, limit),
    erase: (tenant) => erasePrefix(bucket(tenant), prefixOf(tenant)),
  };
}

/** A tenant's counters in the dispatchers of scarce models. */
function dispatcherRows(config: Config): Store {
  const at = sharedObjectsOf<ModelDispatcherRpc>(config.MODEL_DISPATCHER, config.JURISDICTIONS);
  const scarce = config.catalogue.models.filter(({ maxInFlight }) => maxInFlight !== null);
  const named = ({ region, tenantId }: TenantContext) =>
    Promise.all(scarce.map(async ({ name }) => ({ name, rows: await at(region, name).countRows(tenantId) })));
  return {
    name: "object:ModelDispatcher",
    owner: "tenant",
    count: async (tenant) => (await named(tenant)).reduce((sum, { rows }) => sum + rows, 0),
    list: async (tenant, limit) =>
      (await named(tenant)).flatMap(({ name, rows }) => (rows > 0 ? [name] : [])).slice(0, limit),
    erase: async ({ region, tenantId }) => {
      for (const { name } of scarce) await at(region, name).eraseTenant(tenantId);
    },
  };
}

/** What a tenant's own object of some class holds. */
interface RowsRpc {
  countRows(): Promise<number>;
  erase(): Promise<void>;
}

function rowsOfObject(className: string, at: (tenant: TenantContext) => RowsRpc): Store {
  return {
    name: `object:${className}`,
    owner: "tenant",
    count: (tenant) => at(tenant).countRows(),
    list: async (tenant) => ((await at(tenant).countRows()) > 0 ? [objectName(tenant)] : []),
    erase: (tenant) => at(tenant).erase(),
  };
}

function gateObject(config: Config): Store {
  const gateAt: GateAt = objectsOf(config.TENANT_GATE, config.JURISDICTIONS);
  return {
    name: GATE_STORE,
    owner: "tenant",
    count: (tenant) => gateAt(tenant).countRows(),
    list: async (tenant) => ((await gateAt(tenant).countRows()) > 0 ? [objectName(tenant)] : []),
    erase: (tenant) => gateAt(tenant).erase(),
  };
}

const GATE_STORE = "object:TenantGate";

/** Removes for good what is the tenant's, but for its gate, which asks for this and goes last. */
export async function purgeTenant(env: object, tenant: TenantContext): Promise<void> {
  for (const store of storeRegistry(env)) {
    if (store.owner === "tenant" && store.name !== GATE_STORE) await store.erase(tenant);
  }
}
