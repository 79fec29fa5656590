import { and, eq, type SQL, sql } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import { beforeAll, describe, expect, it } from "vitest";
import type { RowOf, TenantData, TenantTable } from "../../src/data/tenant-data";
import { KEY_OF, PLACES, type PlacedTenant, rowOf, TABLE_KEYS, type TableKey, tenantIn } from "./tenants";

const NOW = 1_000_000;
const column = (table: TenantTable, property: string) =>
  (table as unknown as Record<string, SQLiteColumn>)[property] as SQLiteColumn;

/** The key of a row as a condition on a handle's own tables. */
function keyIs(data: TenantData, key: TableKey, row: RowOf<TenantTable>): SQL {
  const table = data.tables[key];
  const values = row as Record<string, unknown>;
  return and(...KEY_OF[key].map((property) => eq(column(table, property), values[property]))) as SQL;
}
const keyColumns = (data: TenantData, key: TableKey) =>
  KEY_OF[key].map((property) => column(data.tables[key], property));

/** Everything a tenant has, deleted rows included, as text that can be compared. */
async function everything({ data }: PlacedTenant): Promise<string> {
  const all: unknown[] = [];
  for (const key of TABLE_KEYS) {
    const rows = await data.withDeleted().list(data.tables[key] as TenantTable, { limit: 1_000 });
    all.push(rows.map((row) => JSON.stringify(row)).sort());
  }
  return JSON.stringify(all);
}

const OPERATIONS = [
  "list",
  "list with deleted",
  "first",
  "count",
  "names",
  "join",
  "insert",
  "upsert",
  "update",
  "remove",
  "restore",
  "purge",
  "erase",
] as const;
type Operation = (typeof OPERATIONS)[number];

/** What an operation aimed at one row gives: how many rows it saw, or changed. */
async function aim(data: TenantData, operation: Operation, key: TableKey, row: RowOf<TenantTable>): Promise<number> {
  const table = data.tables[key] as TenantTable;
  const where = keyIs(data, key, row);
  const write = async (statement: Parameters<TenantData["batch"]>[0][number]) =>
    (await data.batch([statement]))[0] ?? 0;
  switch (operation) {
    case "list":
      return (await data.list(table, { where, limit: 10 })).length;
    case "list with deleted":
      return (await data.withDeleted().list(table, { where, limit: 10 })).length;
    case "first":
      return (await data.first(table, where)) === undefined ? 0 : 1;
    case "count":
      return data.count(table, where);
    case "names":
      return (await data.names(table, column(table, KEY_OF[key][0] ?? ""), 10, where)).length;
    case "join": {
      const parent = key === "project" ? data.tables.journalSegment : data.tables.project;
      return (await data.listWith(table, parent, sql`1 = 0`, { where, limit: 10 })).length;
    }
    case "insert":
      return write(data.insert(table, row));
    case "upsert":
      return write(data.upsert(table, keyColumns(data, key), { ...row, updatedAtMs: 2 }));
    case "update":
      return write(data.update(table, { updatedAtMs: 3 }, where));
    case "remove":
      return write(data.remove(table, where, NOW));
    case "restore":
      return write(data.restore(table, where, NOW));
    case "purge":
      return write(data.purge(table, NOW));
    case "erase":
      return write(data.erase(table, where));
  }
}

/** Operations on one's own row, in an order in which each finds what it needs: the number of rows is always one. */
const OWN_STORY: readonly Operation[] = [
  ...([
    "insert",
    "list",
    "first",
    "count",
    "names",
    "join",
    "upsert",
    "update",
    "remove",
    "list with deleted",
  ] as const),
  ...(["restore", "list", "remove", "purge", "insert", "erase"] as const),
];
/** Those make a row of one's own even when they are aimed at another's key. */
const MAKES_OWN: readonly Operation[] = ["insert", "upsert"];

describe.each(PLACES)("in $place", (place) => {
  let ada: PlacedTenant;
  let bob: PlacedTenant;
  const bobs = (key: TableKey) => rowOf(key, "bobs", "canary of bob");
  const both = (key: TableKey) => rowOf(key, "both", "canary of bob");

  beforeAll(async () => {
    [ada, bob] = [await tenantIn(place), await tenantIn(place)];
    for (const key of TABLE_KEYS) {
      const table = bob.data.tables[key] as TenantTable;
      const gone = { ...rowOf(key, "bobs-gone", "canary of bob"), deletedAtMs: 5 };
      await bob.data.batch([bobs(key), both(key), gone].map((row) => bob.data.insert(table, row)));
      // The same key under the other tenant: two rows that know nothing of each other.
      await ada.data.batch([ada.data.insert(ada.data.tables[key] as TenantTable, rowOf(key, "both", "ada"))]);
    }
  });

  describe.each(TABLE_KEYS)("%s", (key) => {
    it("does each operation on an own row", async () => {
      const mine = rowOf(key, "mine", "ada");
      for (const operation of OWN_STORY) {
        expect(await aim(ada.data, operation, key, mine), operation).toBe(1);
      }
    });

    it.each(OPERATIONS)("%s, aimed at a foreign row, yields nothing and changes nothing", async (operation) => {
      const before = await everything(bob);
      const changed = await aim(ada.data, operation, key, bobs(key));
      if (MAKES_OWN.includes(operation)) {
        expect(changed).toBe(1); // its own row of that key
        await aim(ada.data, "erase", key, bobs(key));
      } else if (operation !== "purge") expect(changed).toBe(0);
      expect(await everything(bob)).toBe(before);
    });

    it.each(OPERATIONS)("%s, aimed at a key that both have, reaches the own row alone", async (operation) => {
      const before = await everything(bob);
      if (operation === "insert") await expect(aim(ada.data, operation, key, both(key))).rejects.toThrow();
      else await aim(ada.data, operation, key, rowOf(key, "both", "ada"));
      expect(await everything(bob)).toBe(before);
      await aim(ada.data, "upsert", key, { ...rowOf(key, "both", "ada"), deletedAtMs: null });
    });

    it.each(OPERATIONS)("%s does not exist without a tenant", async (operation) => {
      const before = await everything(bob);
      for (const nobody of [undefined, null, {}, { ...bob.context }, Object.create(bob.context)]) {
        await expect(
          (async () => {
            const { databasesOf } = await import("./tenants");
            return aim(databasesOf(place).of(nobody as never), operation, key, bobs(key));
          })(),
        ).rejects.toThrow(/tenant context/);
      }
      expect(await everything(bob)).toBe(before);
    });

    it("shows no foreign row to a condition that tries to widen what it is under", async () => {
      const table = ada.data.tables[key] as TenantTable;
      const widened = [
        sql`1 = 1 or 1 = 1`,
        sql`1 = 0) or (1 = 1`,
        sql`1 = 1 or ${table.tenantId} is not null`,
        sql`1 = 1 -- `,
        sql`1 = 0 union select * from ${table}`,
        sql`exists (select 1 from ${table})`,
        sql`${table.tenantId} in (select tenant_id from ${table})`,
        sql`(select count(*) from ${table}) > 0`,
        sql.raw("1 = 1; delete from project"),
      ];
      for (const where of widened) {
        const seen = await ada.data.list(table, { where, limit: 100 }).catch((error: Error) => error);
        const text = JSON.stringify(seen instanceof Error ? seen.message : seen);
        expect(text).not.toContain("canary of bob");
        for (const make of [
          () => ada.data.update(table, { updatedAtMs: 666 }, where),
          () => ada.data.erase(table, where),
        ]) {
          await (async () => ada.data.batch([make()]))().catch(() => {});
        }
      }
      const left = JSON.stringify(await bob.data.list(bob.data.tables[key] as TenantTable, { limit: 10 }));
      expect(left).not.toContain("666");
      expect(JSON.parse(left)).toHaveLength(2);
      await aim(ada.data, "upsert", key, { ...rowOf(key, "both", "ada"), deletedAtMs: null });
    });

    it("takes no row in a foreign name, whatever stands in it", async () => {
      const before = await everything(bob);
      const table = ada.data.tables[key] as TenantTable;
      const forged = { ...rowOf(key, "forged", "ada"), tenantId: bob.context.tenantId };
      await ada.data.batch([ada.data.insert(table, forged)]);
      const [row] = await ada.data.list(table, { where: keyIs(ada.data, key, forged), limit: 1 });
      expect((row as { tenantId: string }).tenantId).toBe(ada.context.tenantId);
      const set = { tenantId: bob.context.tenantId } as never;
      expect(() => ada.data.update(table, set, sql`1 = 1`)).toThrow(/tenant_id/);
      expect(() => ada.data.upsert(table, keyColumns(ada.data, key), forged)).toThrow(/tenant_id/);
      await aim(ada.data, "erase", key, forged);
      expect(await everything(bob)).toBe(before);
    });
  });

  it("lets no statement of one tenant run on the handle of another", async () => {
    const { project } = bob.data.tables;
    const stolen = bob.data.erase(project);
    await expect(ada.data.batch([stolen])).rejects.toThrow(/another tenant/);
    await expect(
      ada.data.batch([{ owner: ada.context.tenantId, sql: "delete from project", params: [] } as never]),
    ).rejects.toThrow();
  });

  it("refuses a reference to a foreign row, and takes the same one to an own row", async () => {
    const { apiKey, serviceAccount } = ada.data.tables;
    const bobsAccount = rowOf("serviceAccount", "svc-of-bob", "canary of bob");
    await bob.data.batch([bob.data.insert(bob.data.tables.serviceAccount as TenantTable, bobsAccount)]);
    const key = { ...rowOf("apiKey", "stray", "ada"), serviceAccountId: "svc-of-bob" } as never;
    await expect((async () => ada.data.batch([ada.data.insert(apiKey, key)]))()).rejects.toThrow(/foreign key|23503/i);
    await ada.data.batch([ada.data.insert(serviceAccount, rowOf("serviceAccount", "svc-of-bob", "ada") as never)]);
    await ada.data.batch([ada.data.insert(apiKey, key)]);
    await ada.data.batch([ada.data.erase(apiKey, eq(apiKey.id, "stray"))]);
  });

  it("writes all of a batch or none of it", async () => {
    const { project } = ada.data.tables;
    const row = rowOf("project", "batch", "ada") as never;
    await expect(ada.data.batch([ada.data.insert(project, row), ada.data.insert(project, row)])).rejects.toThrow();
    expect(await ada.data.count(project, eq(project.id, "batch"))).toBe(0);
  });
});
