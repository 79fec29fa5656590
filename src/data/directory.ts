import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/d1";
import type { TenantLocation } from "../tenancy/context";
import { directoryKey, directoryTenant } from "./directory-schema";

export type DirectoryStatus = "active" | "gone";
type Located = TenantLocation & { readonly status: DirectoryStatus };

/** Finds the tenant behind a key's hash, and the home of a tenant. Global, and it knows nothing more. */
export class Directory {
  readonly #db;

  constructor(database: D1Database) {
    this.#db = drizzle(database);
  }

  /** @param keyHash SHA-256 of the whole key, hex */
  async locateKey(keyHash: string): Promise<TenantLocation | undefined> {
    const rows = await this.#db.select().from(directoryKey).where(eq(directoryKey.keyHash, keyHash)).limit(1);
    return located(rows.at(0));
  }

  async locateTenant(tenantId: string): Promise<TenantLocation | undefined> {
    const rows = await this.#db.select().from(directoryTenant).where(eq(directoryTenant.tenantId, tenantId)).limit(1);
    return located(rows.at(0));
  }

  /** Keys of the directory's own entries about a tenant. */
  async entriesOf(table: "directory_key" | "directory_tenant", tenantId: string): Promise<string[]> {
    if (table === "directory_tenant") {
      const rows = await this.#db.select().from(directoryTenant).where(eq(directoryTenant.tenantId, tenantId));
      return rows.map((row) => row.tenantId);
    }
    const rows = await this.#db.select().from(directoryKey).where(eq(directoryKey.tenantId, tenantId));
    return rows.map((row) => row.keyHash);
  }

  async eraseEntriesOf(table: "directory_key" | "directory_tenant", tenantId: string): Promise<void> {
    const of = table === "directory_key" ? directoryKey : directoryTenant;
    await this.#db.delete(of).where(eq(of.tenantId, tenantId));
  }

  /** Forgets keys that were purged. */
  async removeKeys(keyHashes: readonly string[]): Promise<void> {
    const hashes = JSON.stringify(keyHashes);
    await this.#db.delete(directoryKey).where(sql`${directoryKey.keyHash} in (select value from json_each(${hashes}))`);
  }

  async putKey(keyHash: string, { tenantId, region, status }: Located): Promise<void> {
    await this.#db
      .insert(directoryKey)
      .values({ keyHash, tenantId, region, status })
      .onConflictDoUpdate({ target: directoryKey.keyHash, set: { region, status } });
  }

  async putTenant({ tenantId, region, status }: Located): Promise<void> {
    await this.#db
      .insert(directoryTenant)
      .values({ tenantId, region, status })
      .onConflictDoUpdate({ target: directoryTenant.tenantId, set: { region, status } });
  }
}

function located(row: { tenantId: string; region: string; status: string } | undefined): TenantLocation | undefined {
  if (row?.status !== "active") return undefined;
  return { tenantId: row.tenantId, region: row.region as TenantLocation["region"] };
}
