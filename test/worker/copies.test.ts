import { env } from "cloudflare:workers";
import { eq } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import type { Copy, ObjectHome } from "../../durable-objects/ports";
import { copySink } from "../../src/data/copies";
import { Directory } from "../../src/data/directory";
import { PLATFORM_TENANT, type Region } from "../../src/tenancy/context";
import { enterAsJob, enterPlatformAsJob } from "../../src/tenancy/jobs";
import { databasesOf } from "./tenants";

const directory = new Directory(env.DIRECTORY);
const databases = databasesOf({ kind: "d1" });
const dataOf = (home: ObjectHome) => databases.of(enterAsJob({ ...home, region: home.region as Region }, "test"));
const platformData = () => databases.of(enterPlatformAsJob("test"));
const sink = copySink({ directory, data: dataOf, platformData });
const newHome = (): ObjectHome => ({ tenantId: `proj_${crypto.randomUUID()}`, region: "global", isolation: "pool" });
const newHash = () => crypto.randomUUID().replaceAll("-", "").repeat(2);

const times = { createdAtMs: 1, updatedAtMs: 1, deletedAtMs: null };
const accountCopy: Copy = { of: "service_account", id: "svc", name: "a", role: "member", ...times };
const keyCopy = (hash: string, more: object = {}): Copy => ({
  ...{ of: "api_key", id: "key", hash, serviceAccountId: "svc", name: "k", redactedValue: "…", scopes: ["data"] },
  ...{ expiresAtMs: null, ...times, ...more },
});
const projectCopy = (more: object = {}): Copy => ({
  ...{ of: "project", name: "p", residency: "GLOBAL", externalKeyId: null, status: "active" },
  ...{ createdAtMs: 1, updatedAtMs: 1, archivedAtMs: null, ...more },
});
const eventCopy = (id: string): Copy => ({
  ...{
    of: "audit_event",
    id,
    type: "project.created",
    effectiveAtMs: 1,
    actorKeyId: "k",
    resourceId: null,
    details: {},
  },
});

describe("the copies of a gate's facts", () => {
  it("are the tenant's own rows, the operator's rows and the directory's entries, each where it belongs", async () => {
    const [home, hash, event] = [newHome(), newHash(), crypto.randomUUID()];
    const copies = [projectCopy(), accountCopy, keyCopy(hash), eventCopy(event)];
    await sink.apply(home, copies);
    await sink.apply(home, copies); // they may arrive twice
    const own = dataOf(home);
    expect(await own.list(own.tables.serviceAccount, { limit: 10 })).toMatchObject([{ id: "svc", name: "a" }]);
    expect(await own.list(own.tables.apiKey, { limit: 10 })).toMatchObject([{ id: "key", scopes: ["data"] }]);
    expect(JSON.stringify(await own.list(own.tables.apiKey, { limit: 10 }))).not.toContain(hash);
    expect([await own.count(own.tables.project), await own.count(own.tables.auditLog)]).toEqual([0, 0]);
    const platform = platformData();
    const { project, auditLog } = platform.tables;
    expect(await platform.first(project, eq(project.id, home.tenantId))).toMatchObject({ status: "active" });
    expect(await platform.list(auditLog, { where: eq(auditLog.id, event), limit: 10 })).toMatchObject([
      { projectId: home.tenantId, actorKeyId: "k", type: "project.created" },
    ]);
    expect(await directory.locateKey(hash)).toEqual({ tenantId: home.tenantId, region: "global" });
    expect(await directory.locateTenant(home.tenantId)).toEqual({ tenantId: home.tenantId, region: "global" });
  });

  it("of a deleted key take it out of what is found, and of a restored one bring it back", async () => {
    const [home, hash] = [newHome(), newHash()];
    await sink.apply(home, [accountCopy, keyCopy(hash)]);
    await sink.apply(home, [keyCopy(hash, { deletedAtMs: 5, updatedAtMs: 5 })]);
    expect(await directory.locateKey(hash)).toBeUndefined();
    expect(await dataOf(home).count(dataOf(home).tables.apiKey)).toBe(0);
    await sink.apply(home, [keyCopy(hash)]);
    expect(await directory.locateKey(hash)).toBeDefined();
    expect(await dataOf(home).count(dataOf(home).tables.apiKey)).toBe(1);
  });

  it("of an archived project leave it to its operator; of a purged one nothing is listed any more", async () => {
    const home = newHome();
    const { project } = platformData().tables;
    await sink.apply(home, [projectCopy({ status: "archived", archivedAtMs: 2 })]);
    expect(await directory.locateTenant(home.tenantId)).toBeDefined();
    await sink.apply(home, [projectCopy({ status: "purged", archivedAtMs: 2, deletedAtMs: 3 })]);
    expect(await platformData().first(project, eq(project.id, home.tenantId))).toBeUndefined();
  });

  it("of the operator's own gate make no project of it", async () => {
    const home = { ...newHome(), tenantId: PLATFORM_TENANT };
    const event = crypto.randomUUID();
    await sink.apply(home, [projectCopy(), eventCopy(event)]);
    const { project, auditLog } = platformData().tables;
    expect(await platformData().first(project, eq(project.id, PLATFORM_TENANT))).toBeUndefined();
    expect(await platformData().first(auditLog, eq(auditLog.id, event))).toMatchObject({ projectId: null });
  });
});

describe("the directory", () => {
  const at = (tenantId: string) => ({ tenantId, region: "global", status: "active" }) as const;

  it("forgets the keys that were purged, and the entries of one tenant, and no others", async () => {
    const [ada, bob] = [newHome().tenantId, newHome().tenantId];
    const [one, two, bobs] = [newHash(), newHash(), newHash()];
    for (const [hash, tenant] of [
      [one, ada],
      [two, ada],
      [bobs, bob],
    ] as const) {
      await directory.putKey(hash, at(tenant));
      await directory.putTenant(at(tenant));
    }
    expect((await directory.entriesOf("directory_key", ada)).sort()).toEqual([one, two].sort());
    await directory.removeKeys([one]);
    expect(await directory.locateKey(one)).toBeUndefined();
    expect(await directory.locateKey(two)).toEqual({ tenantId: ada, region: "global" });
    for (const table of ["directory_key", "directory_tenant"] as const) await directory.eraseEntriesOf(table, ada);
    expect([await directory.locateKey(two), await directory.locateTenant(ada)]).toEqual([undefined, undefined]);
    expect(await directory.locateKey(bobs)).toEqual({ tenantId: bob, region: "global" });
    expect(await directory.locateTenant(bob)).toEqual({ tenantId: bob, region: "global" });
  });

  it("shows nothing of what is gone", async () => {
    const [hash, tenant] = [newHash(), newHome().tenantId];
    await directory.putKey(hash, { ...at(tenant), status: "gone" });
    await directory.putTenant({ ...at(tenant), status: "gone" });
    expect([await directory.locateKey(hash), await directory.locateTenant(tenant)]).toEqual([undefined, undefined]);
  });
});
