import { env } from "cloudflare:workers";
import { getTableColumns } from "drizzle-orm";
import { Databases } from "../../src/data/databases";
import { sqliteDialect, type Tables, type TenantTable } from "../../src/data/dialect";
import type { RowOf, TenantData } from "../../src/data/tenant-data";
import type { Isolation, TenantContext } from "../../src/tenancy/context";
import { objectsOf } from "../../src/tenancy/gates";
import { newId } from "../../src/tenancy/ids";
import { enterAsJob } from "../../src/tenancy/jobs";

/** The ways in which a deployment keeps tenants apart. */
export const PLACES = [
  { place: "the D1 pool", kind: "d1", isolation: "pool" },
  { place: "a silo", kind: "d1", isolation: "silo" },
  { place: "the Postgres pool", kind: "postgres", isolation: "pool" },
  { place: "a Postgres bridge", kind: "postgres", isolation: "bridge" },
] as const satisfies readonly { place: string; kind: "d1" | "postgres"; isolation: Isolation }[];
export type Place = (typeof PLACES)[number];

export const databasesOf = ({ kind }: Pick<Place, "kind">): Databases =>
  new Databases(
    { kind, d1: { global: env.DB }, postgres: { global: env.HYPERDRIVE }, silo: objectsOf(env.TENANT_DATABASE, "off") },
    ["global"],
  );

export interface PlacedTenant {
  readonly context: TenantContext;
  readonly data: TenantData;
}

/** A new tenant in that place; nobody else uses it. */
export async function tenantIn(place: Place): Promise<PlacedTenant> {
  const tenantId = newId("project"); // capitals and dashes: Postgres folds what is not quoted
  const context = enterAsJob({ tenantId, region: "global", isolation: place.isolation }, "test");
  const databases = databasesOf(place);
  if (place.isolation === "bridge") await databases.schemaOf(context)?.create();
  return { context, data: databases.of(context) };
}

export type TableKey = keyof Tables;
export const TABLE_KEYS = Object.keys(sqliteDialect.tables) as TableKey[];

/** Property names of a table's primary key, but for the tenant. */
export const KEY_OF: Readonly<Record<TableKey, readonly string[]>> = {
  project: ["id"],
  serviceAccount: ["id"],
  apiKey: ["id"],
  auditLog: ["id"],
  usageRollup: ["hourMs", "projectId", "gate", "kind", "model", "keyId", "serviceTier", "batch", "endUser"],
  journalSegment: ["gate", "firstSeq"],
  artifact: ["id"],
  file: ["id"],
  storageUse: ["kind", "endUser"],
};

/** A row with something of its own in every text column; `name` makes its key. References are left out. */
export function rowOf(key: TableKey, name: string, canary: string): RowOf<TenantTable> {
  const row: Record<string, unknown> = {};
  for (const [property, column] of Object.entries(getTableColumns(sqliteDialect.tables[key]))) {
    if (property === "tenantId" || property === "serviceAccountId" || property === "deletedAtMs") continue;
    const isKey = KEY_OF[key].includes(property);
    const text = isKey ? name : canary;
    const of: Record<string, unknown> = { string: text, number: 1, boolean: false, json: { canary } };
    row[property] = of[column.dataType];
  }
  return row as RowOf<TenantTable>;
}
