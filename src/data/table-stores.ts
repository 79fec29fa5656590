import { eq, getTableName } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import type { TenantContext } from "../tenancy/context";
import type { Databases } from "./databases";
import { sqliteDialect, type Tables, type TenantTable } from "./dialect";
import { OPERATOR_TABLES, TENANT_TABLES, tenantTables } from "./ownership";
import type { TenantData } from "./tenant-data";

/** Rows of one table, as the store registry counts, lists and erases them; deleted ones included. */
export interface TableStore {
  readonly table: string;
  readonly owner: "tenant" | "operator";
  count(tenant: TenantContext): Promise<number>;
  list(tenant: TenantContext, limit: number): Promise<readonly string[]>;
  erase(tenant: TenantContext): Promise<void>;
}

/** @param platform the operator's own context */
export function tableStores(databases: Databases, platform: () => TenantContext): TableStore[] {
  const own = Object.entries(TENANT_TABLES).map(([key, { name }]) =>
    storeOf(key as keyof Tables, "tenant", name, (tenant) => databases.of(tenant)),
  );
  const operators = Object.entries(OPERATOR_TABLES).map(([key, { name, about }]) =>
    storeOf(key as keyof Tables, "operator", name, () => databases.of(platform()), about),
  );
  return [...own, ...operators];
}

/** @param about the column that names the tenant, where the rows are not its own */
function storeOf(
  key: keyof Tables,
  owner: TableStore["owner"],
  name: string,
  dataOf: (tenant: TenantContext) => TenantData,
  about?: string,
): TableStore {
  const bind = (tenant: TenantContext) => {
    const data = dataOf(tenant).withDeleted();
    const table: TenantTable = data.tables[key];
    return { data, table, where: about === undefined ? undefined : eq(columnOf(table, about), tenant.tenantId) };
  };
  return {
    table: getTableName(sqliteDialect.tables[key]),
    owner,
    async count(tenant) {
      const { data, table, where } = bind(tenant);
      return data.count(table, where);
    },
    async list(tenant, limit) {
      const { data, table, where } = bind(tenant);
      return data.names(table, columnOf(table, name), limit, where);
    },
    async erase(tenant) {
      const { data, table, where } = bind(tenant);
      await data.batch([data.erase(table, where)]);
    },
  };
}

/**
 * Removes for good what a tenant's tables still hold of rows that were deleted at or before that time. Files and
 * artifacts, of which there may be many, are swept in batches, and a file's row only behind its bytes.
 */
export async function purgeDeleted(data: TenantData, deletedUntilMs: number): Promise<void> {
  const swept: readonly TenantTable[] = [data.tables.file, data.tables.artifact];
  const tables = tenantTables(data.tables).filter((table) => !swept.includes(table));
  await data.batch(tables.map((table) => data.purge(table, deletedUntilMs)));
}

const columnOf = (table: TenantTable, name: string): SQLiteColumn =>
  (table as unknown as Record<string, SQLiteColumn>)[name] as SQLiteColumn;
