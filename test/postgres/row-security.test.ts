import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asTenant, closeAll, connect, newTenantId } from "./connect";

/** Hand-written SQL as the role that the platform connects as: what nobody's code could stop, the database does. */
const app = connect("app");
const owner = connect("owner");
const [ada, bob] = [newTenantId(), newTenantId()];
afterAll(closeAll);

const TABLES = ["api_key", "service_account", "journal_segment", "project", "audit_log", "usage_rollup"] as const;
/** One row in every table. */
const rowsOf = (tenant: string): Record<(typeof TABLES)[number], Record<string, unknown>> => {
  const own = { tenant_id: tenant, created_at: 1, updated_at: 1 };
  return {
    service_account: { ...own, id: "svc_1", name: `canary ${tenant}`, role: "member" },
    api_key: {
      ...{ ...own, id: "key_1", service_account_id: "svc_1", name: `canary ${tenant}` },
      ...{ redacted_value: "sk-…", scopes: "[]" },
    },
    journal_segment: {
      ...{
        ...own,
        gate: "g",
        first_seq: 1,
        last_seq: 2,
        object_key: `canary ${tenant}`,
        size_bytes: 1,
        from: 1,
        to: 2,
      },
      last_hash: "h",
    },
    project: { ...own, id: tenant, name: `canary ${tenant}`, region: "global", residency: "GLOBAL", status: "active" },
    audit_log: { ...own, id: "a1", effective_at: 1, type: "x", project_id: tenant, details: "{}" },
    usage_rollup: {
      ...{ ...own, project_id: tenant, hour: 0, gate: "g", kind: "completions", model: "m", key_id: "key_1" },
      ...{ service_tier: "default", batch: false, requests: 1, input_tokens: 1, cached_tokens: 0, output_tokens: 1 },
      ...{ price_microdollars: 0, cost_microdollars: 0, minutes: "{}" },
    },
  };
};
const inOrder = ["service_account", "api_key", "journal_segment", "project", "audit_log", "usage_rollup"] as const;

beforeAll(async () => {
  for (const tenant of [ada, bob]) {
    await asTenant(app, tenant, async (tx) => {
      for (const table of inOrder) await tx`insert into ${tx(table)} ${tx([rowsOf(tenant)[table] as never])}`;
    });
  }
});

/** Everything that a tenant has. */
async function everythingOf(tenant: string): Promise<string> {
  return asTenant(app, tenant, async (tx) => {
    const all = [];
    for (const table of TABLES) all.push(await tx`select * from ${tx(table)} order by 1, 2`);
    return JSON.stringify(all);
  });
}

describe("the application's role", () => {
  it("is neither owner, nor superuser, nor exempt, and may neither make roles nor tables", async () => {
    const [role] =
      await app`select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user`;
    expect(role).toEqual({ rolsuper: false, rolbypassrls: false, rolcreaterole: false, rolcreatedb: false });
    const owned =
      await app`select relname from pg_class where relowner = (select oid from pg_roles where rolname = current_user)`;
    expect(owned).toHaveLength(0);
    for (const statement of [
      "create table tenantry.x (a int)",
      "create schema x",
      "alter table tenantry.api_key disable row level security",
      "alter table tenantry.api_key no force row level security",
      "drop policy own_select on tenantry.api_key",
      "create policy mine on tenantry.api_key using (true)",
      "truncate tenantry.api_key",
      "alter role tenantry_app bypassrls",
      "set role tenantry_owner",
      "set session authorization tenantry_owner",
      "select * from tenantry.migration",
      "update tenantry.migration set body = 'grant all on all tables in schema tenantry to public'",
      "insert into tenantry.migration values ('9999', true, 'select 1', '')",
      "copy tenantry.api_key to program 'cat'",
      "create extension dblink",
    ]) {
      await expect(app.unsafe(statement), statement).rejects.toThrow(/permission denied|must be owner|must be|denied/i);
    }
  });

  it("cannot switch row security off: it gets an error, not rows", async () => {
    await expect(
      asTenant(app, ada, async (tx) => {
        await tx`set local row_security = off`;
        return tx`select * from api_key`;
      }),
    ).rejects.toThrow(/row-level security/);
  });
});

describe.each(TABLES)("%s", (table) => {
  const read = (tx: { unsafe: (text: string) => Promise<unknown[]> }, condition = "") =>
    tx.unsafe(`select * from tenantry.${table} ${condition}`);

  it("shows a bound tenant its rows, all of them, and nothing else, whatever is asked", async () => {
    for (const condition of [
      "",
      "where true",
      "where 1 = 1 or tenant_id is not null",
      `where tenant_id = '${bob}' or true`,
    ]) {
      const rows = (await asTenant(app, ada, (tx) => read(tx, condition))) as { tenant_id: string }[];
      expect(
        rows.map((row) => row.tenant_id),
        condition,
      ).toEqual([ada]);
    }
  });

  it("shows zero rows without a tenant: in no transaction, in one, and after one that was bound", async () => {
    const one = connect("app", 1); // one connection, so that the third case meets the one that was bound
    expect(await read(one)).toHaveLength(0);
    expect(await one.begin((tx) => read(tx))).toHaveLength(0);
    await asTenant(one, ada, (tx) => read(tx));
    expect(await read(one)).toHaveLength(0);
    expect((await one`select current_setting('app.tenant_id', true) as left`)[0]?.left).toBe("");
  });

  it("shows zero rows when bound to nothing, to an empty tenant, or to a pattern", async () => {
    for (const tenant of ["", " ", "%", "*", `${ada}' or '1'='1`, `${ada},${bob}`, ada.toUpperCase(), `${ada}\n`]) {
      expect(await asTenant(app, tenant, (tx) => read(tx)), JSON.stringify(tenant)).toHaveLength(0);
    }
  });

  it("changes nothing of another tenant, and takes no row in its name", async () => {
    const before = await everythingOf(bob);
    const column = table === "project" || table === "service_account" || table === "api_key" ? "name" : "created_at";
    const value = column === "name" ? "'stolen'" : "666";
    for (const statement of [
      `update tenantry.${table} set ${column} = ${value} where tenant_id = '${bob}'`,
      `delete from tenantry.${table} where tenant_id = '${bob}'`,
      `with gone as (delete from tenantry.${table} where tenant_id = '${bob}' returning 1) select * from gone`,
    ]) {
      const result = await asTenant(app, ada, (tx) => tx.unsafe(statement));
      expect(result.count, statement).toBe(0);
    }
    const row: Record<string, unknown> = {
      ...rowsOf(ada)[table],
      ...(table === "api_key" ? { service_account_id: null } : {}),
    };
    const forged = { ...row, tenant_id: bob, ...("id" in row ? { id: "forged" } : { created_at: 2, gate: "forged" }) };
    await expect(
      asTenant(app, ada, (tx) => tx`insert into ${tx(`tenantry.${table}`)} ${tx([forged as never])}`),
    ).rejects.toThrow(/row-level security/);
    await expect(
      asTenant(app, ada, (tx) => tx.unsafe(`update tenantry.${table} set tenant_id = '${bob}'`)),
    ).rejects.toThrow(/row-level security|duplicate key|foreign key/);
    expect(await everythingOf(bob)).toBe(before);
  });
});

describe("a reference to another tenant's row", () => {
  it("is an error of the schema, however it is written", async () => {
    const account = { ...rowsOf(bob).service_account, id: "svc_only_bobs" };
    await asTenant(app, bob, (tx) => tx`insert into service_account ${tx([account as never])}`);
    const key = { ...rowsOf(ada).api_key, id: "key_stray", service_account_id: "svc_only_bobs" };
    await expect(asTenant(app, ada, (tx) => tx`insert into api_key ${tx([key as never])}`)).rejects.toThrow(
      /foreign key/,
    );
    await expect(
      asTenant(app, ada, (tx) => tx`update api_key set service_account_id = 'svc_only_bobs'`),
    ).rejects.toThrow(/foreign key/);
    // The very same statement with an account of one's own.
    await asTenant(app, ada, (tx) => tx`insert into api_key ${tx([{ ...key, service_account_id: "svc_1" } as never])}`);
  });
});

describe("user input", () => {
  it("stays a value: text that looks like a setting binds nobody", async () => {
    const hostile = `x'); select set_config('app.tenant_id', '${bob}', true); --`;
    const rows = await asTenant(app, ada, async (tx) => {
      await tx`update service_account set name = ${hostile}`;
      return tx`select tenant_id, name from service_account where name = ${hostile}`;
    });
    expect(rows).toEqual([{ tenant_id: ada, name: hostile }]);
  });

  it("in the place of the tenant is compared, not run", async () => {
    const rows = await asTenant(
      app,
      `' || (select min(tenant_id) from tenantry.project) || '`,
      (tx) => tx`select * from project`,
    );
    expect(rows).toHaveLength(0);
  });
});

describe("the owner of the tables", () => {
  it("is subject to row level security too, so a leaked migration password reads no rows by accident", async () => {
    for (const table of TABLES) expect(await owner.unsafe(`select * from tenantry.${table}`), table).toHaveLength(0);
  });
});
