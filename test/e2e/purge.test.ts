import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { describe, expect, inject, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
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

/** Everything that an operator or a tenant may ask while the purge is under way. */
const ASKED = [
  ["POST", "/v1/tenantry/projects/:id/restore", "operator"],
  ["GET", "/v1/organization/projects/:id", "operator"],
  ["GET", "/v1/tenantry/projects/:id/limits", "operator"],
  ["POST", "/v1/tenantry/projects/:id/plan", "operator"],
  ["GET", "/v1/tenantry/projects/:id/isolation", "operator"],
  ["GET", "/v1/organization/projects/:id/api_keys", "operator"],
  ["GET", "/v1/organization/usage/completions?start_time=1&bucket_width=1d&limit=1&project_ids=:id", "operator"],
  ["GET", "/v1/models", "tenant"],
  ["GET", "/v1/tenantry/decisions", "tenant"],
  ["GET", "/v1/files", "tenant"],
  ["POST", "/v1/chat/completions", "tenant"],
] as const;
const BODIES: Readonly<Record<string, object>> = {
  "/v1/tenantry/projects/:id/plan": { plan: "free" },
  "/v1/chat/completions": { model: "mock-chat", messages: [{ role: "user", content: "hello" }] },
};
/** Tenants that are purged at once; each is one race. */
const TENANTS = Number(process.env.PURGE_RACES ?? (process.env.PROVE ? 12 : 3));

describe.each([
  { kind: "d1", isolation: "silo" },
  { kind: "d1", isolation: "pool" },
  { kind: "postgres", isolation: "bridge" },
  { kind: "postgres", isolation: "silo" },
  { kind: "postgres", isolation: "pool" },
] as const)("whatever is asked while tenants on $kind in their $isolation are purged", ({ kind, isolation }) => {
  it("is answered as by one that is there, or as by one that never was: no call fails", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-purge-"));
    const options = {
      bundle: "production",
      persistTo: folder,
      ...(kind === "postgres" ? { postgres: inject("postgres").app } : {}),
      vars: { MODEL_CATALOGUE: { version: "tests", models: [upstreamModel("mock-chat")] } },
    } as const;
    let platform = await startPlatform(options);
    const { adminKey } = platform;
    const operator = new Operator(platform.url, adminKey);
    const { projects } = operator.client.admin.organization;
    const call = async (method: string, path: string, key: string, body?: object) => {
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const init = { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) };
      const response = await fetch(`${platform.url}${path}`, init);
      return { status: response.status, text: await response.text() };
    };
    const tenants: { readonly id: string; readonly key: string }[] = [];
    for (let index = 0; index < TENANTS; index++) {
      const { id } = await projects.create({ name: "leaves" });
      await call("POST", `/v1/tenantry/projects/${id}/isolation`, adminKey, { isolation });
      tenants.push({ id, key: (await operator.furnish(id, { model: "mock-chat" })).key });
      await projects.archive(id);
      await archivedLongAgo(platform, id, 31);
    }
    await platform.stop();

    platform = await startPlatform({ ...options, adminKey }); // every alarm is overdue
    const failures: string[] = [];
    const ask = async ({ id, key }: { id: string; key: string }, [method, path, as]: (typeof ASKED)[number]) => {
      const isOperator = as === "operator";
      const body = method === "POST" ? (BODIES[path] ?? {}) : undefined;
      const reply = await call(method, path.replace(":id", id), isOperator ? adminKey : key, body);
      if (reply.status >= 500) failures.push(`${method} ${path}: ${reply.status} ${reply.text}`);
      return reply.status;
    };
    const answers = await Promise.all(
      tenants.map(async (tenant) => {
        let isGone = false;
        const until404 = async () => {
          await expect.poll(() => ask(tenant, ASKED[1]), { timeout: 30_000, interval: 1 }).toBe(404);
          const { TENANT_GATE } = await platform.miniflare.getBindings<{ TENANT_GATE: DurableObjectNamespace }>();
          const gate = () => TENANT_GATE.getByName(`global/${tenant.id}`) as unknown as { policy(): Promise<unknown> };
          // Purged is what it answers first; at its end there is no such gate.
          await expect
            .poll(
              () =>
                gate()
                  .policy()
                  .catch(() => "reset"),
              { timeout: 30_000 },
            )
            .toBeNull();
          isGone = true;
        };
        const meanwhile = async (asked: (typeof ASKED)[number]) => {
          while (!isGone) await ask(tenant, asked);
          return ask(tenant, asked);
        };
        const [, ...last] = await Promise.all([until404(), ...ASKED.map(meanwhile)]);
        return last;
      }),
    );
    expect(failures).toEqual([]);
    for (const last of answers) expect(last).toEqual([404, 404, 404, 404, 404, 404, 200, 401, 401, 401, 401]);
    await platform.stop();
    rmSync(folder, { recursive: true, force: true });
  });
});
