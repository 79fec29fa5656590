import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, inject, it } from "vitest";
import { migratePostgres, migrations } from "../../scripts/postgres-migrations.mjs";
import { postgresCatalogue } from "../catalogue/postgres";
import { violations } from "../catalogue/rules";
import { asTenant, closeAll, connect, newTenantId } from "./connect";

const app = connect("app");
const owner = connect("owner");
afterAll(closeAll);

const createSchema = (tenant: string) => asTenant(app, tenant, (tx) => tx`select tenantry.create_tenant_schema()`);
/** The catalogue of a schema without the books of the migrations. */
const shapeOf = async (schema: string) =>
  (await postgresCatalogue(owner, schema))
    .filter(({ name }) => !name.startsWith("migration"))
    .map((table) => JSON.stringify(table))
    .sort();

describe("the schema of the pool", () => {
  it("keeps every rule: tenant_id first, soft deletion, references within the tenant, row level security", async () => {
    const tables = await postgresCatalogue(owner, "tenantry");
    expect(tables.length).toBeGreaterThan(6);
    expect(violations(tables)).toEqual([]);
  });

  it("is all there is: nothing lies in public", async () => {
    expect(await owner`select relname from pg_class where relnamespace = 'public'::regnamespace`).toHaveLength(0);
  });

  it("comes from files that name no schema, so that they make a tenant's own as well", () => {
    const folder = join(import.meta.dirname, "../../migrations/postgres");
    for (const file of readdirSync(folder).filter((name) => /^\d{4}_.*\.sql$/.test(name))) {
      expect(readFileSync(join(folder, file), "utf8"), `npm run generate takes "public". out of ${file}`).not.toContain(
        '"public"',
      );
    }
  });
});

describe("a table that forgets a rule", () => {
  afterEach(async () => void (await owner.unsafe("drop schema if exists scratch cascade")));
  const wrongWith = async (...statements: string[]) => {
    await owner.unsafe(["create schema scratch", "set local search_path = scratch", ...statements].join(";"));
    return violations(await postgresCatalogue(owner, "scratch"));
  };
  const columns = "created_at bigint not null, updated_at bigint not null, deleted_at bigint";
  const protect = readFileSync(
    join(import.meta.dirname, "../../migrations/postgres/every-time/1-row-security.sql"),
    "utf8",
  );
  const good = `create table good (tenant_id text not null, id text not null, ${columns}, primary key (tenant_id, id))`;

  it("none is found in one that keeps them all", async () => {
    expect(await wrongWith(good, protect)).toEqual([]);
  });

  it.each([
    ["tenant_id", `create table bad (id text primary key, ${columns})`, /add tenant_id/],
    [
      "tenant_id first in its key",
      `create table bad (tenant_id text not null, id text, ${columns}, primary key (id, tenant_id))`,
      /first in the primary key/,
    ],
    ["tenant_id first in an index", `${good}; create index bad on good (id, tenant_id)`, /first in the index/],
    ["a lookup table", "create table country (code text primary key, name text)", /country: add tenant_id/],
    [
      "soft deletion",
      "create table bad (tenant_id text not null, id text, created_at bigint not null, updated_at bigint not null, primary key (tenant_id, id))",
      /deleted_at/,
    ],
    [
      "the timestamps",
      "create table bad (tenant_id text not null, id text, deleted_at bigint, primary key (tenant_id, id))",
      /created_at/,
    ],
    ["deleted rows in a unique index", `${good}; create unique index bad on good (tenant_id, created_at)`, /partial/],
    [
      "the tenant in a reference",
      `${good}; create unique index u on good (id); create table bad (tenant_id text not null, id text references good (id), ${columns}, primary key (tenant_id, id))`,
      /begin with tenant_id/,
    ],
  ])("%s is named, with what to do", async (_, statement, advice) => {
    expect((await wrongWith(statement)).join("\n")).toMatch(advice);
  });

  it.each([
    ["row level security", "alter table good disable row level security"],
    ["force", "alter table good no force row level security"],
    ["the policy for delete", "drop policy own_delete on good"],
    [
      "the check of an update",
      "drop policy own_update on good; create policy own_update on good for update using (tenant_id = current_setting('app.tenant_id', true))",
    ],
    ["that policies add up", "create policy also on good for select using (true)"],
    ["that one for all commands opens all", "create policy also on good using (true)"],
  ])("%s is named, with what to do", async (_, mistake) => {
    expect((await wrongWith(good, protect, mistake)).join("\n")).toMatch(/row level security|policy/);
  });

  it("a unique index that leaves deleted rows out is fine", async () => {
    expect(
      await wrongWith(
        good,
        "create unique index name on good (tenant_id, created_at) where deleted_at is null",
        protect,
      ),
    ).toEqual([]);
  });
});

describe("a tenant's own schema", () => {
  it("is a schema of the catalogue, equal to the pool's, and as well protected", async () => {
    const tenant = newTenantId();
    await createSchema(tenant);
    expect(await shapeOf(tenant)).toEqual(await shapeOf("tenantry"));
    expect(violations(await postgresCatalogue(owner, tenant))).toEqual([]);
  });

  it("can be asked for again, and by many at once", async () => {
    const tenant = newTenantId();
    await Promise.all(Array.from({ length: 4 }, () => createSchema(tenant)));
    await createSchema(tenant);
    const [found] = await owner`select count(*)::int as n from pg_namespace where nspname = ${tenant}`;
    expect(found?.n).toBe(1);
  });

  it("shows nothing to another tenant that finds its way into it", async () => {
    const [ada, bob] = [newTenantId(), newTenantId()];
    await createSchema(ada);
    const row = { tenant_id: ada, id: "svc_1", name: "canary", role: "member", created_at: 1, updated_at: 1 };
    await asTenant(app, ada, (tx) => tx`insert into service_account ${tx([row])}`, ada);
    expect(await asTenant(app, ada, (tx) => tx`select * from service_account`, ada)).toHaveLength(1);
    expect(await asTenant(app, bob, (tx) => tx`select * from service_account`, ada)).toHaveLength(0);
    expect(await asTenant(app, ada, (tx) => tx`select * from service_account`)).toHaveLength(0); // the pool has none of it
    await expect(asTenant(app, bob, (tx) => tx`insert into service_account ${tx([row])}`, ada)).rejects.toThrow(
      /row-level security/,
    );
    await expect(asTenant(app, bob, (tx) => tx`delete from service_account`, ada)).resolves.toHaveProperty("count", 0);
  });

  it("is made for tenants alone, and only for the one that is bound", async () => {
    for (const tenant of [
      "",
      "platform",
      "public",
      "tenantry",
      "pg_x",
      'proj_x"; drop schema tenantry',
      `proj_${"x".repeat(60)}`,
    ]) {
      await expect(createSchema(tenant), tenant).rejects.toThrow(/no tenant is bound/);
    }
  });

  it("goes with its tenant, and no other goes with it", async () => {
    const [ada, bob] = [newTenantId(), newTenantId()];
    for (const tenant of [ada, bob]) await createSchema(tenant);
    await asTenant(app, ada, (tx) => tx`select tenantry.drop_tenant_schema()`);
    const left = await owner`select nspname from pg_namespace where nspname in ${owner([ada, bob])}`;
    expect(left.map(({ nspname }) => nspname)).toEqual([bob]);
  });
});

describe("a migration", () => {
  const urls = inject("postgres");

  it("reaches the pool and every schema, those made before it and those made after", async () => {
    const [before, after] = [newTenantId(), newTenantId()];
    await createSchema(before);
    const body =
      'create table "later" (tenant_id text not null, id text not null, created_at bigint not null, updated_at bigint not null, deleted_at bigint, primary key (tenant_id, id))';
    const later = { name: "9000_later.sql", everyTime: false, body, digest: "later" };
    const texts = [
      ...migrations().filter(({ everyTime }) => !everyTime),
      later,
      ...migrations().filter(({ everyTime }) => everyTime),
    ];
    try {
      await migratePostgres({ url: urls.owner, texts });
      await createSchema(after);
      for (const schema of ["tenantry", before, after]) {
        const tables = await postgresCatalogue(owner, schema);
        expect(
          tables.map(({ name }) => name),
          schema,
        ).toContain("later");
        expect(violations(tables), schema).toEqual([]);
      }
      expect(await shapeOf(before)).toEqual(await shapeOf(after));
    } finally {
      for (const schema of ["tenantry", before, after]) await owner.unsafe(`drop table if exists "${schema}"."later"`);
      await owner`delete from tenantry.migration where name = ${later.name}`;
      await owner`delete from tenantry.migration_applied where name = ${later.name}`;
    }
  });

  it("may be run again, and by two at once, and changes nothing then", async () => {
    const before = await shapeOf("tenantry");
    expect(await migratePostgres({ url: urls.owner })).toEqual([]);
    await Promise.all([migratePostgres({ url: urls.owner }), migratePostgres({ url: urls.owner })]);
    expect(await shapeOf("tenantry")).toEqual(before);
  });

  it("that has changed since it was applied is refused", async () => {
    const texts = migrations().map((text) => ({ ...text, digest: `${text.digest}x` }));
    await expect(migratePostgres({ url: urls.owner, texts })).rejects.toThrow(/0000_init.sql has changed/);
  });

  it("refuses a role for the application that row level security would not hold", async () => {
    const superuser = connect("superuser");
    await superuser.unsafe("alter role tenantry_app bypassrls");
    try {
      await expect(migratePostgres({ url: urls.owner })).rejects.toThrow(/BYPASSRLS/);
    } finally {
      await superuser.unsafe("alter role tenantry_app nobypassrls");
    }
  });
});
