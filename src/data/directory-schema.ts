import { sqliteTable, text } from "drizzle-orm/sqlite-core";

/**
 * The directory: the only global data, and the one table that cannot lead with a tenant, because it is asked who
 * the tenant is. It holds where a key's or a tenant's home is, nothing else.
 */
export const directoryKey = sqliteTable("directory_key", {
  keyHash: text("key_hash").primaryKey(),
  tenantId: text("tenant_id").notNull(),
  region: text("region").notNull(),
  status: text("status").notNull(),
});

export const directoryTenant = sqliteTable("directory_tenant", {
  tenantId: text("tenant_id").primaryKey(),
  region: text("region").notNull(),
  status: text("status").notNull(),
});
