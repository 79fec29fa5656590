import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { describe, expect, inject, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator } from "../operator";

const DAY_MS = 86_400_000;

/** The tenant's gate finds, when it wakes, that it was archived so many days ago and that its purge is due. */
async function archivedLongAgo({ miniflare }: Platform, projectId: string, days: number): Promise<void> {
  const name = `global/${projectId}`;
  const storage = await miniflare.unsafeGetDurableObjectStorage("isolate-0", "TenantGate", { name });
  await storage.exec(
    `update meta set value = json_set(value, '$.archivedAtMs', json_extract(value, '$.archivedAtMs') - ${days * DAY_MS}) where key = 'profile'`,
  );
  await storage.exec("update due set due_at = 1 where kind = 'purge'");
}

describe.each([
  { kind: "d1", isolation: "silo" },
  { kind: "d1", isolation: "pool" },
  { kind: "postgres", isolation: "bridge" },
  { kind: "postgres", isolation: "pool" },
] as const)("an archived tenant on $kind in its $isolation", ({ kind, isolation }) => {
  it("is gone when its window has ended, and its neighbour is as it was", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-purge-"));
    const { app, owner } = inject("postgres");
    const options = {
      bundle: "production",
      persistTo: folder,
      ...(kind === "postgres" ? { postgres: app } : {}),
    } as const;
    let platform = await startPlatform(options);
    const { adminKey } = platform;
    let operator = new Operator(platform.url, adminKey);
    const { projects } = operator.client.admin.organization;
    const call = (method: string, path: string, body?: object) =>
      fetch(`${platform.url}${path}`, {
        method,
        headers: { authorization: `Bearer ${adminKey}` },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
    const { id } = await projects.create({ name: "leaves" });
    const set = await call("POST", `/v1/tenantry/projects/${id}/isolation`, { isolation });
    expect(set.status).toBe(200);
    const tenant = await operator.furnish(id);
    const neighbour = await operator.createTenant();
    await projects.archive(id);
    await archivedLongAgo(platform, id, 31);
    await platform.stop();

    platform = await startPlatform({ ...options, adminKey }); // the alarm is overdue
    operator = new Operator(platform.url, adminKey);
    const retrieve = () => call("GET", `/v1/organization/projects/${id}`).then(({ status }) => status);
    await call("POST", `/v1/tenantry/projects/${id}/restore`); // too late, and it wakes the gate
    await expect.poll(retrieve, { timeout: 15_000 }).toBe(404);
    expect((await call("POST", `/v1/tenantry/projects/${id}/restore`)).status).toBe(404);
    const models = (key: string) => fetch(`${platform.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
    await expect.poll(async () => (await models(tenant.key)).status, { timeout: 15_000 }).toBe(401);
    expect((await models(neighbour.key)).status).toBe(200);
    expect((await operator.client.admin.organization.projects.apiKeys.list(neighbour.projectId)).data).toHaveLength(1);
    const listed = await operator.client.admin.organization.projects.list({ include_archived: true });
    expect(listed.data.map((project) => project.id)).not.toContain(id);
    const log = await operator.client.admin.organization.auditLogs.list({ project_ids: [id] });
    expect(log.data.map(({ type }) => type)).toContain("project.deleted");
    if (kind === "postgres") {
      const sql = postgres(owner, { max: 1, onnotice: () => {} });
      expect(await sql`select nspname from pg_namespace where nspname = ${id}`).toHaveLength(0);
      await sql.end();
    }
    await platform.stop();
    rmSync(folder, { recursive: true, force: true });
  });
});
