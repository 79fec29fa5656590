import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { configFrom } from "../../src/config";
import { storeRegistry } from "../../src/stores";
import { enterAsJob } from "../../src/tenancy/jobs";
import wrangler from "../../wrangler.toml?raw";
import { freshGate } from "./gate";
import { PLACES, rowOf, tenantIn } from "./tenants";

/** A model that is scarce, so that a dispatcher knows its tenants. */
const scarce = {
  ...{
    name: "scarce",
    task: "chat",
    owned_by: "tests",
    created: 0,
    provider: "openai-compatible",
    provider_model: "x",
  },
  ...{ context_tokens: 1_000, default_max_output_tokens: 10, max_in_flight: 1, regions: ["global"] },
};
const registry = storeRegistry({ ...env, MODEL_CATALOGUE: { version: "tests", models: [scarce] } });
const names = registry.map(({ name }) => name);
/** What there is, as the databases, the configuration and the code of object storage say it, never as the registry does. */
const production = wrangler.slice(wrangler.indexOf("\n[env.production]"));
const declared = (pattern: RegExp) => [...production.matchAll(pattern)].map(([, name]) => name ?? "");
const tablesIn = async (database: D1Database) => {
  const { results } = await database
    .prepare("select name from sqlite_master where type = 'table'")
    .all<{ name: string }>();
  return results.map(({ name }) => name).filter((name) => !/^(_cf_|sqlite_|d1_migrations$)/.test(name));
};
const storageCode = import.meta.glob<string>("../../src/**/*.ts", { query: "?raw", import: "default", eager: true });
/** Every place in the code where an object's name is put together. */
const prefixes = Object.entries(storageCode).flatMap(([path, text]) =>
  [...text.matchAll(/objectName\((\w+)\)\}\/([^`]*)/g)].map(([, , rest = ""]) => ({
    path,
    prefix: rest.split("/")[0] ?? "",
  })),
);
/** Kinds of bindings in which nothing of a tenant lies, and those whose contents the tests below derive. */
const WITHOUT_CONTENT = ["ai", "vars", "secrets", "observability"];
const DERIVED = ["durable_objects", "d1_databases", "r2_buckets", "exports", "hyperdrive"];

/** A tenant that has left something everywhere: accounts, keys, usage, a sealed segment, answers, a file. */
async function busyTenant(isolation: "pool" | "silo") {
  const fresh = await freshGate({}, isolation);
  await fresh.admit("r1");
  await fresh.finish("r1");
  const slot = { requestId: fresh.tenantId, tenantId: fresh.tenantId, keyId: "key", weight: 1, inputTokens: 5 };
  await env.MODEL_DISPATCHER.getByName("global/scarce").acquire({ ...slot, patienceMs: 0, slots: 100 });
  await runInDurableObject(fresh.stub, async (_, state) => {
    state.storage.sql.exec("update journal set at_ms = at_ms - 90000000");
    state.storage.sql.exec("update due set due_at = 1");
  });
  const tenant = enterAsJob({ tenantId: fresh.tenantId, region: "global", isolation }, "test");
  const data = configFrom(env).databases.of(tenant);
  await data.batch([data.insert(data.tables.artifact, rowOf("artifact", "a stored answer", "x") as never)]);
  await data.batch([data.insert(data.tables.file, rowOf("file", "file-1", "x") as never)]);
  await data.batch([data.insert(data.tables.storageUse, rowOf("storageUse", "file", "x") as never)]);
  await env.ARTIFACTS.put(`global/${fresh.tenantId}/files/v1/file-1`, "x");
  const digests = { key: "a".repeat(64), body: "b".repeat(64) };
  const store = env.IDEMPOTENCY_STORE.getByName(`global/${fresh.tenantId}`);
  await store.claim({ ...digests, requestId: "r1", patienceMs: 0, holdMs: 60_000 });
  return { ...fresh, tenant };
}

describe("the store registry", () => {
  it("names every table that the migrations make", async () => {
    const [own, directory] = [await tablesIn(env.DB), await tablesIn(env.DIRECTORY)];
    expect(own.length).toBeGreaterThan(5);
    expect(directory.length).toBeGreaterThan(1);
    const stores = [...own.map((table) => `table:${table}`), ...directory.map((table) => `directory:${table}`)];
    expect(names.filter((name) => /^(table|directory):/.test(name)).sort(), "add it in src/stores.ts").toEqual(
      stores.sort(),
    );
  });

  it("names every class of objects that is declared, and no other", () => {
    const classes = new Set([
      ...declared(/class_name = "(\w+)"/g),
      ...declared(/\[env\.production\.exports\.(\w+)\]/g),
    ]);
    expect(classes.size).toBeGreaterThan(4);
    const stores = [...classes].map((name) => `object:${name}`);
    expect(names.filter((name) => name.startsWith("object:")).sort(), "add it in src/stores.ts").toEqual(stores.sort());
  });

  it("names every prefix that the code of object storage makes, in every bucket that is bound", () => {
    const buckets = declared(/r2_buckets\]\]\s+binding = "(\w+)"/g);
    expect(buckets).toHaveLength(1);
    expect(prefixes.length).toBeGreaterThan(1);
    for (const { path } of prefixes) expect(path, "object names are made in src/storage").toContain("/src/storage/");
    const stores = buckets.flatMap((bucket) => prefixes.map(({ prefix }) => `r2:${bucket}/${prefix}`));
    expect(names.filter((name) => name.startsWith("r2:")).sort(), "add it in src/stores.ts").toEqual(stores.sort());
  });

  it("knows every kind of binding that there is: one that could hold something needs a store, and a test here", () => {
    const kinds = new Set(declared(/\[\[?env\.production\.(\w+)/g));
    expect([...kinds].filter((kind) => !WITHOUT_CONTENT.includes(kind) && !DERIVED.includes(kind))).toEqual([]);
  });

  it("finds every object that really lies in the bucket of a tenant", async () => {
    const { tenantId, tenant, stub } = await busyTenant("pool");
    await evictDurableObject(stub);
    await runDurableObjectAlarm(stub);
    const { objects } = await env.ARTIFACTS.list({ prefix: `global/${tenantId}/` });
    const stores = registry.filter(({ name }) => name.startsWith("r2:"));
    const listed = (await Promise.all(stores.map((store) => store.list(tenant, 1_000)))).flat();
    expect(objects.length).toBeGreaterThan(1);
    expect([...listed].sort()).toEqual(objects.map(({ key }) => key).sort());
  });

  it.each(["pool", "silo"] as const)(
    "counts, lists and erases all of a tenant in a %s, and nothing of another",
    async (isolation) => {
      const [ada, bob] = [await busyTenant(isolation), await busyTenant("pool")];
      const mine = registry.filter(({ name }) => isolation === "silo" || name !== "object:TenantDatabase");
      for (const { stub } of [ada, bob]) {
        await evictDurableObject(stub);
        await runDurableObjectAlarm(stub);
      }
      // Not by its door: it would be done and gone before it is counted.
      await runInDurableObject(env.BACKGROUND_RUNS.getByName(`global/${ada.tenantId}`), (_, state) => {
        state.storage.sql.exec(
          "insert into run (id, created_at, task, begun, begin_at) values ('resp_1', 0, '{}', 0, 9e15)",
        );
      });
      const counts = (tenant: typeof ada.tenant) => Promise.all(registry.map((store) => store.count(tenant)));
      const before = await counts(bob.tenant);
      for (const store of mine) expect(await store.count(ada.tenant), store.name).toBeGreaterThan(0);
      for (const store of mine) expect((await store.list(ada.tenant, 100)).length, store.name).toBeGreaterThan(0);
      expect((await tracesOf(ada.tenant.tenantId)).length).toBeGreaterThan(5);
      for (const store of registry) await store.erase(ada.tenant);
      for (const store of registry) expect(await store.count(ada.tenant), store.name).toBe(0);
      expect(await tracesOf(ada.tenant.tenantId), "add where it lies in src/stores.ts").toEqual([]);
      expect(await counts(bob.tenant)).toEqual(before);
    },
    30_000,
  );
});

describe("the store registry of a deployment on Postgres", () => {
  it("counts, lists and erases a tenant's own schema with all that is in it", async () => {
    const stores = storeRegistry({ ...env, DATABASE: "postgres" });
    const [ada, bob] = [await tenantIn(PLACES[3]), await tenantIn(PLACES[3])];
    for (const { data } of [ada, bob]) {
      await data.batch([data.insert(data.tables.serviceAccount, rowOf("serviceAccount", "svc", "x") as never)]);
    }
    const counts = async ({ context }: typeof ada) => {
      const own = stores.filter(({ name }) => name === "schema:bridge" || name === "table:service_account");
      return Object.fromEntries(await Promise.all(own.map(async (store) => [store.name, await store.count(context)])));
    };
    expect(await counts(ada)).toEqual({ "schema:bridge": 1, "table:service_account": 1 });
    for (const store of stores) if (store.name !== "object:TenantGate") await store.erase(ada.context);
    const schema = stores.find(({ name }) => name === "schema:bridge");
    expect(await schema?.count(ada.context)).toBe(0);
    expect(await schema?.list(ada.context, 10)).toEqual([]);
    expect(await counts(bob)).toEqual({ "schema:bridge": 1, "table:service_account": 1 });
  }, 30_000);
});

/** Where something of a tenant still lies, registered or not: a key of the bucket, or a row that names it. */
async function tracesOf(tenantId: string): Promise<string[]> {
  const traces: string[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await env.ARTIFACTS.list(cursor === undefined ? {} : { cursor });
    traces.push(...page.objects.map(({ key }) => key).filter((key) => key.includes(tenantId)));
    if (!page.truncated) break;
    cursor = page.cursor;
  }
  for (const database of [env.DB, env.DIRECTORY]) {
    const { results } = await database
      .prepare(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\' and name not like '\\_cf\\_%' escape '\\'",
      )
      .all<{ name: string }>();
    for (const { name } of results) {
      const rows = await database.prepare(`select * from "${name}"`).all();
      if (JSON.stringify(rows.results).includes(tenantId)) traces.push(name);
    }
  }
  return traces;
}
