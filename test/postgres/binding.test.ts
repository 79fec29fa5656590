import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { postgresDatabase, TenantSchema } from "../../src/data/postgres-database";
import { asTenant, closeAll, connect, newTenantId } from "./connect";
import { type Pooler, startPooler } from "./pooler";

const bindingTo = (connectionString: string) => ({ connectionString }) as Hyperdrive;
const app = connect("app");
afterAll(closeAll);

const ACCOUNT = (tenant: string) => ({
  sql: "insert into service_account (tenant_id, id, name, role, created_at, updated_at) values ($1, $2, $3, $4, $5, $6)",
  params: [tenant, "svc", "canary", "member", 1, 1],
});
const IDS = { sql: "select id from service_account", params: [] };

describe("a pool of one connection, which tenants use in turn", () => {
  let pooler: Pooler;
  beforeAll(async () => {
    pooler = await startPooler(inject("postgres").app);
  });
  afterAll(() => pooler.stop());

  /** What a client finds that binds nobody. */
  async function unbound() {
    const sql = postgres(pooler.url, { max: 1, onnotice: () => {}, fetch_types: false });
    const [setting] =
      await sql`select current_setting('app.tenant_id', true) as tenant, current_schemas(false) as schemas`;
    const seen = await sql`select id from tenantry.service_account`;
    await sql.begin(async (tx) => {
      expect(await tx`select id from tenantry.service_account`).toHaveLength(0);
    });
    await sql.end();
    return { tenant: setting?.tenant || null, schemas: setting?.schemas, seen: [...seen] };
  }

  it("binds each transaction and nothing else: the next one, and a statement outside of any, is bound to nobody", async () => {
    const before = await unbound();
    expect(before).toMatchObject({ tenant: null, seen: [] });
    for (const schema of ["tenantry", "own"] as const) {
      const tenant = newTenantId();
      const own = schema === "own" ? tenant : schema;
      if (schema === "own") await new TenantSchema(bindingTo(pooler.url), tenant).create();
      expect(await unbound()).toEqual(before);
      const database = postgresDatabase(bindingTo(pooler.url), tenant, own);
      expect(await database.write([ACCOUNT(tenant)])).toEqual([1]);
      expect(await database.read(IDS)).toEqual([["svc"]]);
      expect(await unbound()).toEqual(before);
      await expect(database.read({ sql: "select nothing from nowhere", params: [] })).rejects.toThrow(/nowhere/);
      expect(await unbound()).toEqual(before);
    }
    expect(pooler.served()).toBeGreaterThan(6);
  });

  it("shows the next tenant its own rows", async () => {
    const [ada, bob] = [newTenantId(), newTenantId()];
    await postgresDatabase(bindingTo(pooler.url), ada, "tenantry").write([ACCOUNT(ada)]);
    const bobs = postgresDatabase(bindingTo(pooler.url), bob, "tenantry");
    expect(await bobs.read(IDS)).toEqual([]);
    await expect(bobs.write([ACCOUNT(ada)])).rejects.toThrow(/row-level security/);
  });
});

describe("a tenant on Postgres", () => {
  it("has all statements of a write, or none", async () => {
    const tenant = newTenantId();
    const database = postgresDatabase(bindingTo(inject("postgres").app), tenant, "tenantry");
    await expect(database.write([ACCOUNT(tenant), ACCOUNT(tenant)])).rejects.toThrow(/duplicate key/);
    expect(await database.read(IDS)).toEqual([]);
    await expect(
      database.write([ACCOUNT(tenant), { sql: "select nothing from nowhere", params: [] }]),
    ).rejects.toThrow();
    expect(await database.read(IDS)).toEqual([]);
  });

  it("writes into its own schema, where it has one, and into the pool's else", async () => {
    const [ada, bob] = [newTenantId(), newTenantId()];
    const binding = bindingTo(inject("postgres").app);
    await new TenantSchema(binding, ada).create();
    await postgresDatabase(binding, ada, ada).write([ACCOUNT(ada)]);
    await postgresDatabase(binding, bob, "tenantry").write([ACCOUNT(bob)]);
    expect(await asTenant(app, ada, (tx) => tx`select id from service_account`, ada)).toHaveLength(1);
    expect(await asTenant(app, ada, (tx) => tx`select id from service_account`)).toHaveLength(0);
    expect(await asTenant(app, bob, (tx) => tx`select id from service_account`)).toHaveLength(1);
  });

  it("whose schema was dropped under it no longer exists: 404, not a failure", async () => {
    const [ada, bob] = [newTenantId(), newTenantId()];
    const binding = bindingTo(inject("postgres").app);
    for (const tenant of [ada, bob]) await new TenantSchema(binding, tenant).create();
    const database = postgresDatabase(binding, ada, ada);
    expect(await database.read(IDS)).toEqual([]);
    await new TenantSchema(binding, ada).drop();
    expect(await new TenantSchema(binding, ada).exists()).toBe(false);
    await expect(database.read(IDS)).rejects.toMatchObject({ code: "not_found" });
    await expect(database.write([ACCOUNT(ada)])).rejects.toMatchObject({ code: "not_found" });
    const wrong = { sql: "select nothing from nowhere", params: [] };
    await expect(postgresDatabase(binding, bob, bob).read(wrong)).rejects.toMatchObject({ code: "42P01" });
    await expect(postgresDatabase(binding, bob, "tenantry").read(wrong)).rejects.toMatchObject({ code: "42P01" });
  });

  it("is served by no role that row level security does not hold", async () => {
    const tenant = newTenantId();
    const { app: url, superuser: super_ } = inject("postgres");
    const exempt = new URL(super_);
    exempt.pathname = new URL(url).pathname;
    const superuser = postgres(exempt.href, { max: 1, onnotice: () => {} });
    const refuses = async (connectionString: string) => {
      const database = postgresDatabase(bindingTo(connectionString), tenant, "tenantry");
      await expect(database.read({ sql: "select 1", params: [] })).rejects.toThrow(/exempt from row level security/);
      await expect(database.write([ACCOUNT(tenant)])).rejects.toThrow(/exempt from row level security/);
    };
    try {
      await refuses(exempt.href);
      await superuser.unsafe("alter role tenantry_app bypassrls");
      await refuses(url);
      expect(await superuser`select id from tenantry.service_account where tenant_id = ${tenant}`).toHaveLength(0);
    } finally {
      await superuser.unsafe("alter role tenantry_app nobypassrls");
      await superuser.end();
    }
  });

  it("that cannot be reached is 503, with advice to come back", async () => {
    const database = postgresDatabase(bindingTo("postgres://nobody@127.0.0.1:1/none"), newTenantId(), "tenantry");
    await expect(database.read(IDS)).rejects.toMatchObject({
      ...{ code: "storage_unavailable", options: { headers: { "retry-after": "1" } } },
    });
  });
});
