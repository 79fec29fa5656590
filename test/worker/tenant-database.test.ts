import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { MIGRATIONS } from "../../src/data/migrations";
import { violations } from "../catalogue/rules";
import { sqliteCatalogue } from "../catalogue/sqlite";
import { PLACES, rowOf, tenantIn } from "./tenants";

// What Vite puts in the place of this call is a record of texts.
const files = (import.meta as unknown as { glob(pattern: string, options: object): Record<string, string> }).glob(
  "../../migrations/d1/*.sql",
  { query: "?raw", import: "default", eager: true },
);
const SILO = PLACES[1];
const objectOf = (tenantId: string) => env.TENANT_DATABASE.getByName(`global/${tenantId}`);
type Rows = Record<string, unknown>[];
const rowsOf = (stub: DurableObjectStub, sql: string) =>
  runInDurableObject(stub, (_, state) => state.storage.sql.exec(sql).toArray() as Rows);

const columns = "created_at integer not null, updated_at integer not null, deleted_at integer";
const good = `create table good (tenant_id text not null, id text not null, ${columns}, primary key (tenant_id, id))`;

describe("the shared SQLite schema", () => {
  it("keeps every rule in D1, as its own catalogue tells it", async () => {
    const tables = await sqliteCatalogue(async (sql) => (await env.DB.prepare(sql).all()).results);
    expect(tables.length).toBeGreaterThan(6);
    expect(violations(tables)).toEqual([]);
  });

  it.each([
    ["tenant_id", `create table scratch (id text primary key, ${columns})`, /add tenant_id/],
    ["a lookup table", "create table scratch (code text primary key, name text)", /scratch: add tenant_id/],
    [
      "the order of its key",
      `create table scratch (tenant_id text not null, id text not null, ${columns}, primary key (id, tenant_id))`,
      /first in the primary key/,
    ],
    ["the order of an index", `${good}; create index scratch on good (id, tenant_id)`, /first in the index/],
    [
      "soft deletion",
      "create table scratch (tenant_id text not null, id text, created_at integer not null, updated_at integer not null, primary key (tenant_id, id))",
      /deleted_at/,
    ],
    [
      "deleted rows in a unique index",
      `${good}; create unique index scratch on good (tenant_id, created_at)`,
      /partial/,
    ],
    [
      "the tenant in a reference",
      `${good}; create table scratch (tenant_id text not null, id text, other text references good (id), ${columns}, primary key (tenant_id, id))`,
      /begin with tenant_id/,
    ],
  ])("says what to do about a table that forgets %s", async (_, statements, advice) => {
    const stub = objectOf(`proj_${crypto.randomUUID()}`);
    await runInDurableObject(stub, (_instance, state) => void state.storage.sql.exec(statements));
    const found = violations(await sqliteCatalogue((sql) => rowsOf(stub, sql)));
    expect(found.join("\n")).toMatch(advice);
  });

  it("lists the migrations that there are", () => {
    const names = Object.keys(files).map((path) => path.split("/").at(-1));
    expect(
      MIGRATIONS.map(({ name }) => name),
      "add it to src/data/migrations.ts",
    ).toEqual(names.sort());
    for (const { name, sql } of MIGRATIONS) expect(sql).toBe(files[`../../migrations/d1/${name}`]);
  });
});

describe("a tenant's own database", () => {
  it("has the tables of the pool, keeps the same rules, and holds one tenant alone", async () => {
    const [ada, bob] = [await tenantIn(SILO), await tenantIn(SILO)];
    for (const { data } of [ada, bob]) {
      await data.batch([data.insert(data.tables.project, rowOf("project", "p", "x") as never)]);
    }
    const stub = objectOf(ada.context.tenantId);
    const tables = await sqliteCatalogue((sql) => rowsOf(stub, sql));
    expect(violations(tables)).toEqual([]);
    const pool = await sqliteCatalogue(async (sql) => (await env.DB.prepare(sql).all()).results);
    const names = (of: typeof tables) =>
      of
        .map(({ name }) => name)
        .filter((name) => !/migration|sqlite/.test(name))
        .sort();
    expect(names(tables)).toEqual(names(pool));
    expect(await rowsOf(stub, "select distinct tenant_id from project")).toEqual([{ tenant_id: ada.context.tenantId }]);
    const inPool = await env.DB.prepare("select * from project where tenant_id = ?").bind(ada.context.tenantId).all();
    expect(inPool.results).toEqual([]);
  });

  it("brings itself up to date, also when it was made long ago", async () => {
    const { context, data } = await tenantIn(SILO);
    await data.batch([data.insert(data.tables.project, rowOf("project", "old", "x") as never)]);
    const stub = objectOf(context.tenantId);
    // As an earlier version left it: without the latest table, and without its entry in the books.
    await runInDurableObject(stub, (_, state) => {
      state.storage.sql.exec("drop table api_key");
      state.storage.sql.exec("alter table project rename to kept");
      for (const { name } of MIGRATIONS) state.storage.sql.exec("delete from migration where name = ?", name);
      for (const table of [
        "service_account",
        "audit_log",
        "usage_rollup",
        "journal_segment",
        "artifact",
        "file",
        "storage_use",
      ]) {
        state.storage.sql.exec(`drop table ${table}`);
      }
      state.storage.sql.exec("drop index project_by_creation");
    });
    await evictDurableObject(stub);
    expect(await data.count(data.tables.apiKey)).toBe(0);
    expect(await rowsOf(stub, "select id from kept")).toEqual([{ id: "old" }]);
    expect(await rowsOf(stub, "select name from migration")).toEqual(MIGRATIONS.map(({ name }) => ({ name })));
  });

  it("keeps its rows when its memory is gone, and forgets all of them when it is erased", async () => {
    const { context, data } = await tenantIn(SILO);
    const { project } = data.tables;
    await data.batch([data.insert(project, rowOf("project", "p", "x") as never)]);
    await evictDurableObject(objectOf(context.tenantId));
    expect(await data.count(project)).toBe(1);
    await objectOf(context.tenantId).erase();
    expect(await data.count(project)).toBe(0);
  });

  it("takes statements and nothing else", async () => {
    const stub = objectOf(`proj_${crypto.randomUUID()}`);
    for (const wrong of [
      undefined,
      "select 1",
      { sql: 1, params: [] },
      { sql: "select 1" },
      { sql: "select 1", params: [{}] },
    ]) {
      await expect((async () => await stub.read(wrong))()).rejects.toThrow();
      await expect((async () => await stub.write([wrong]))()).rejects.toThrow();
    }
  });
});
