import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { storeRegistry } from "../../src/stores";
import { enterAsJob, enterPlatformAsJob } from "../../src/tenancy/jobs";
import { freshGate } from "./gate";
import { databasesOf } from "./tenants";

const DAY_MS = 86_400_000;
type Fresh = Awaited<ReturnType<typeof freshGate>>;
/** A stub knows that its object was reset; a new one finds the new object. */
const anew = ({ tenantId }: Fresh) => env.TENANT_GATE.getByName(`global/${tenantId}`);

/** The gate finds itself so many days later: what was deleted lies so much further back. */
async function daysLater({ stub }: Fresh, days: number): Promise<void> {
  await runInDurableObject(stub, (_, { storage: { sql } }) => {
    for (const table of ["service_account", "api_key"]) {
      sql.exec(`update ${table} set deleted_at = deleted_at - ? where deleted_at is not null`, days * DAY_MS);
    }
    sql.exec(
      "update meta set value = json_set(value, '$.archivedAtMs', json_extract(value, '$.archivedAtMs') - ?) where key = 'profile' and json_extract(value, '$.archivedAtMs') is not null",
      days * DAY_MS,
    );
    sql.exec("update due set due_at = 1 where kind = 'purge'");
  });
  await evictDurableObject(stub);
  await runDurableObjectAlarm(stub);
}
/** The database's copies lie as far back as the gate's. */
const copiesLater = (tenantId: string, days: number) =>
  env.DB.batch(
    ["service_account", "api_key"].map((table) =>
      env.DB.prepare(
        `update ${table} set deleted_at = deleted_at - ? where tenant_id = ? and deleted_at is not null`,
      ).bind(days * DAY_MS, tenantId),
    ),
  );

const tenantOf = ({ tenantId }: Fresh) => enterAsJob({ tenantId, region: "global", isolation: "pool" }, "test");
const dataOf = (fresh: Fresh) => databasesOf({ kind: "d1" }).of(tenantOf(fresh));
const platform = () => databasesOf({ kind: "d1" }).of(enterPlatformAsJob("test"));
const bind = ({ gate, keyHash }: Fresh) => gate.bind({ credential: { keyHash }, knownPolicyVersion: null });
const inDirectory = async (hash: string) =>
  (
    await env.DIRECTORY.prepare("select status from directory_key where key_hash = ?")
      .bind(hash)
      .first<{ status: string }>()
  )?.status;

describe("a deleted service account", () => {
  it("comes back with the keys that went with it, and without those that were revoked before", async () => {
    const fresh = await freshGate();
    const key = {
      hash: "f".repeat(64 - 8) + fresh.tenantId.slice(5, 13),
      redactedValue: "…",
      name: "k",
      expiresAtMs: null,
    };
    await fresh.change({ type: "create_key", id: "revoked", ...key, serviceAccountId: "svc", scopes: ["data"] });
    await fresh.change({ type: "delete_key", id: "revoked" });
    await new Promise((settle) => setTimeout(settle, 2)); // another millisecond
    await fresh.change({ type: "delete_service_account", id: "svc" });
    expect(await bind(fresh)).toEqual({ bound: false, reason: "unknown_key" });
    expect(await dataOf(fresh).count(dataOf(fresh).tables.apiKey)).toBe(0);
    expect(await fresh.change({ type: "restore_key", id: "key" })).toMatchObject({ reason: "parent_deleted" });
    await fresh.change({ type: "restore_service_account", id: "svc" });
    expect(await bind(fresh)).toMatchObject({ bound: true });
    const data = dataOf(fresh);
    expect(await data.count(data.tables.serviceAccount)).toBe(1);
    expect(await data.names(data.tables.apiKey, data.tables.apiKey.id, 10)).toEqual(["key"]);
    expect(await inDirectory(fresh.keyHash)).toBe("active");
  });

  it("does not come back once its time is over, whether the purge has been there yet or not", async () => {
    const fresh = await freshGate();
    await fresh.change({ type: "delete_service_account", id: "svc" });
    await runInDurableObject(fresh.stub, (_, { storage: { sql } }) => {
      sql.exec("update service_account set deleted_at = deleted_at - ?", 31 * DAY_MS);
    });
    await evictDurableObject(fresh.stub);
    expect(await fresh.change({ type: "restore_service_account", id: "svc" })).toMatchObject({ reason: "not_found" });
  });

  it("is purged by the alarm: gate, database and directory forget it, and nothing else", async () => {
    const fresh = await freshGate();
    await fresh.change({ type: "create_service_account", id: "stays", name: "stays" });
    await fresh.change({ type: "delete_service_account", id: "svc" });
    await daysLater(fresh, 29);
    const { tables } = dataOf(fresh);
    expect(await dataOf(fresh).withDeleted().count(tables.serviceAccount)).toBe(2);
    await copiesLater(fresh.tenantId, 31);
    await daysLater(fresh, 2);
    expect(await dataOf(fresh).withDeleted().names(tables.serviceAccount, tables.serviceAccount.id, 10)).toEqual([
      "stays",
    ]);
    expect(await dataOf(fresh).withDeleted().count(tables.apiKey)).toBe(0);
    expect(await inDirectory(fresh.keyHash)).toBeUndefined();
    const left = await runInDurableObject(fresh.stub, (_, { storage: { sql } }) =>
      sql.exec("select id from service_account union all select id from api_key").toArray(),
    );
    expect(left).toEqual([{ id: "stays" }]);
  });

  it("is kept as long as the tenant says", async () => {
    const fresh = await freshGate();
    await fresh.change({ type: "delete_service_account", id: "svc" });
    await fresh.change({ type: "set_retention", retentionDays: 90 });
    await daysLater(fresh, 89);
    expect(await fresh.change({ type: "restore_service_account", id: "svc" })).toMatchObject({ changed: true });
    await fresh.change({ type: "delete_service_account", id: "svc" });
    await fresh.change({ type: "set_retention", retentionDays: 1 });
    await daysLater(fresh, 2);
    expect(await fresh.change({ type: "restore_service_account", id: "svc" })).toMatchObject({ reason: "not_found" });
  });
});

describe("what a tenant stores", () => {
  it("is kept for 30 days, or as long as the operator says, whatever the retention of what is deleted is", async () => {
    const fresh = await freshGate();
    expect(await fresh.gate.policy()).toMatchObject({ retentionDays: 30, artifactDays: 30 });
    await fresh.change({ type: "set_retention", artifactDays: 7 });
    expect(await fresh.gate.policy()).toMatchObject({ retentionDays: 30, artifactDays: 7 });
    await fresh.change({ type: "set_retention", retentionDays: 90 });
    expect(await fresh.gate.policy()).toMatchObject({ retentionDays: 90, artifactDays: 7 });
  });
});

describe("an archived tenant", () => {
  it("comes back with everything it had until its window ends", async () => {
    const fresh = await freshGate();
    await fresh.change({ type: "archive_tenant" });
    expect(await bind(fresh)).toEqual({ bound: false, reason: "archived" });
    await daysLater(fresh, 29);
    expect(await fresh.change({ type: "restore_tenant" })).toMatchObject({ changed: true });
    expect(await bind(fresh)).toMatchObject({ bound: true });
    expect(await fresh.change({ type: "restore_tenant" })).toMatchObject({ reason: "not_deleted" });
    await daysLater(fresh, 40);
    expect(await bind(fresh)).toMatchObject({ bound: true }); // an alarm that was promised to the archived one does no harm
  });

  it("is purged when its window ends: every store of its own is empty, the operator's records stay", async () => {
    const fresh = await freshGate();
    await fresh.admit("r1");
    await fresh.finish("r1");
    await fresh.change({ type: "archive_tenant" });
    const bystander = await freshGate();
    const objectsOf = async ({ tenantId }: Fresh) => {
      const page = await env.ARTIFACTS.list({ prefix: `global/${tenantId}/` });
      return page.objects.map(({ key }) => key);
    };
    for (const { tenantId } of [fresh, bystander])
      for (const key of ["files/v1/file-1", "files/v1/file-2", "journal/v1/1"])
        await env.ARTIFACTS.put(`global/${tenantId}/${key}`, "x");
    await daysLater(fresh, 31);
    expect(await objectsOf(fresh)).toEqual([]);
    expect(await objectsOf(bystander)).toHaveLength(3);
    for (const store of storeRegistry(env)) {
      const count = await store.count(tenantOf(fresh));
      if (store.owner === "tenant") expect(count, store.name).toBe(0);
      else if (store.name !== "table:project") expect(count, store.name).toBeGreaterThan(0);
    }
    const { project, usageRollup } = platform().tables;
    const { eq } = await import("drizzle-orm");
    expect(await platform().first(project, eq(project.id, fresh.tenantId))).toBeUndefined();
    expect(await platform().withDeleted().first(project, eq(project.id, fresh.tenantId))).toMatchObject({
      status: "purged",
    });
    expect(await platform().count(usageRollup, eq(usageRollup.projectId, fresh.tenantId))).toBe(1);
    expect(await anew(fresh).policy()).toBeNull();
    expect(await inDirectory(fresh.keyHash)).toBeUndefined();
    expect(await bind(bystander)).toMatchObject({ bound: true });
  });

  it("stays purged when the purge was cut off in the middle, and is finished later", async () => {
    const fresh = await freshGate();
    await fresh.change({ type: "archive_tenant" });
    // As a crash leaves it: decided, and nothing removed yet.
    await runInDurableObject(fresh.stub, (_, { storage: { sql } }) => {
      sql.exec("update meta set value = json_set(value, '$.status', 'purged') where key = 'policy'");
    });
    await evictDurableObject(fresh.stub);
    expect(await fresh.change({ type: "restore_tenant" })).toMatchObject({ reason: "not_found" });
    expect(await bind(fresh)).toEqual({ bound: false, reason: "archived" });
    await runInDurableObject(fresh.stub, (_, { storage: { sql } }) => void sql.exec("update due set due_at = 1"));
    await evictDurableObject(fresh.stub);
    await runDurableObjectAlarm(fresh.stub);
    await vi.waitFor(async () => expect(await anew(fresh).policy()).toBeNull());
  });
});

describe("isolation", () => {
  it("can be set while the tenant is empty, any number of times, and not afterwards", async () => {
    const tenantId = `proj_${crypto.randomUUID()}`;
    const stub = env.TENANT_GATE.getByName(`global/${tenantId}`);
    const change = (command: object) =>
      stub.change({ command, actorKeyId: null, auditId: crypto.randomUUID() } as never) as Promise<object>;
    await change({ type: "create_tenant", name: "x", residency: "GLOBAL", externalKeyId: null });
    expect(await stub.isEmpty()).toBe(true);
    for (const isolation of ["silo", "pool", "silo", "silo"]) {
      expect(await change({ type: "set_isolation", isolation })).toMatchObject({
        changed: true,
        policy: { isolation },
      });
    }
    await change({ type: "create_service_account", id: "svc", name: "x" });
    expect(await stub.isEmpty()).toBe(false);
    expect(await change({ type: "set_isolation", isolation: "pool" })).toMatchObject({ reason: "not_empty" });
    expect(await change({ type: "set_isolation", isolation: "silo" })).toMatchObject({ changed: true }); // it is so already
    await change({ type: "delete_service_account", id: "svc" });
    expect(await change({ type: "set_isolation", isolation: "pool" })).toMatchObject({ reason: "not_empty" });
  });
});
