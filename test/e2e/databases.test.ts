import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** Titles stand only where they apply, so that nothing counts as skipped. */
const itIf = (applies: boolean) => (applies ? it : (_title: string, _test: () => Promise<void>) => {});

/** The whole platform on each kind of database, and in it a tenant of each isolation that is offered there. */
describe.each([
  { kind: "d1", offered: ["pool", "silo"], missing: "bridge" },
  { kind: "postgres", offered: ["pool", "bridge", "silo"], missing: null },
] as const)("on $kind", ({ kind, offered, missing }) => {
  let platform: Platform;
  let operator: Operator;
  let mock: MockUpstream;

  beforeAll(async () => {
    mock = await MockUpstream.start();
    platform = await startPlatform({
      bundle: "production",
      isolates: 2,
      ...(kind === "postgres" ? { postgres: inject("postgres").app } : {}),
      vars: {
        BINDING_MS: 0,
        UPSTREAM_URL: mock.url,
        MODEL_CATALOGUE: { version: "1", models: [upstreamModel("mock")] },
      },
    });
    operator = new Operator(platform.url, platform.adminKey);
  });
  afterAll(async () => {
    await platform.stop();
    await mock.stop();
  });

  const admin = async (method: string, path: string, body?: object) => {
    const reply = await fetch(`${platform.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${platform.adminKey}`, "content-type": "application/json" },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    return {
      status: reply.status,
      body: (await reply.json()) as Record<string, unknown> & { error?: { code: string; param: string | null } },
    };
  };
  const settings = (id: string) => `/v1/tenantry/projects/${id}`;
  const newProject = async () => (await operator.client.admin.organization.projects.create({ name: "x" })).id;
  const chat = (tenant: TestTenant) =>
    tenant.client.chat.completions.create(
      { model: "mock", messages: [{ role: "user", content: "hi" }] },
      { maxRetries: 0 },
    );

  describe.each(offered)("a tenant in its %s", (isolation) => {
    let tenant: TestTenant;
    let other: TestTenant;
    beforeAll(async () => {
      const id = await newProject();
      const set = await admin("POST", `${settings(id)}/isolation`, { isolation });
      expect(set).toMatchObject({
        status: 200,
        body: { object: "tenantry.project.isolation", isolation, project_id: id },
      });
      tenant = await operator.furnish(id);
      other = await operator.createTenant();
    });

    it("is created, lists its own keys and accounts, and is called", async () => {
      expect((await chat(tenant)).choices[0]?.message.content).toBeTruthy();
      const { projects } = operator.client.admin.organization;
      const keys = (await projects.apiKeys.list(tenant.projectId)).data;
      expect(keys.map(({ id, owner }) => [id, owner.service_account?.id])).toEqual([
        [tenant.keyId, tenant.serviceAccountId],
      ]);
      expect((await projects.serviceAccounts.list(tenant.projectId)).data.map(({ id }) => id)).toEqual([
        tenant.serviceAccountId,
      ]);
      expect((await operator.usage(tenant.projectId)).requests).toBe(1);
      expect((await admin("GET", `${settings(tenant.projectId)}/isolation`)).body).toMatchObject({
        isolation,
        offered: [...offered],
      });
    });

    it("answers ids of another tenant as unknown ones", async () => {
      const { projects } = operator.client.admin.organization;
      for (const id of [other.serviceAccountId, "svc_AAAAAAAAAAAAAAAAAAAAAAAA"]) {
        await expect(projects.serviceAccounts.retrieve(id, { project_id: tenant.projectId })).rejects.toMatchObject({
          status: 404,
        });
        await expect(projects.serviceAccounts.delete(id, { project_id: tenant.projectId })).rejects.toMatchObject({
          status: 404,
        });
      }
      expect((await projects.serviceAccounts.list(other.projectId)).data).toHaveLength(1);
    });

    it("cannot be moved any more once it has an account", async () => {
      for (const another of offered.filter((each) => each !== isolation)) {
        const refused = await admin("POST", `${settings(tenant.projectId)}/isolation`, { isolation: another });
        expect(refused).toMatchObject({ status: 409, body: { error: { code: "conflict" } } });
      }
      expect((await admin("POST", `${settings(tenant.projectId)}/isolation`, { isolation })).status).toBe(200);
    });

    it("is archived, and restored with everything it had", async () => {
      const { projects } = operator.client.admin.organization;
      await projects.archive(tenant.projectId);
      await expect(chat(tenant)).rejects.toMatchObject({ status: 403, code: "project_archived" });
      const restored = await admin("POST", `${settings(tenant.projectId)}/restore`);
      expect(restored).toMatchObject({
        status: 200,
        body: { status: "active", archived_at: null, id: tenant.projectId },
      });
      expect((await chat(tenant)).choices).toHaveLength(1);
      expect((await projects.apiKeys.list(tenant.projectId)).data).toHaveLength(1);
      expect(await admin("POST", `${settings(tenant.projectId)}/restore`)).toMatchObject({
        status: 409,
        body: { error: { code: "conflict" } },
      });
    });

    it("keeps what is deleted for as many days as the operator says", async () => {
      const path = `${settings(tenant.projectId)}/retention`;
      expect((await admin("GET", path)).body).toMatchObject({ object: "tenantry.project.retention", days: 30 });
      expect((await admin("POST", path, { days: 7 })).body).toMatchObject({ days: 7 });
      expect((await admin("GET", path)).body).toMatchObject({ days: 7 });
      for (const days of [0, -1, 1.5, 100_000, "7", null]) {
        expect(await admin("POST", path, { days })).toMatchObject({ status: 400, body: { error: { param: "days" } } });
      }
    });
  });

  itIf(missing !== null)("says which isolations there are when one is asked for that is not", async () => {
    const id = await newProject();
    const refused = await admin("POST", `${settings(id)}/isolation`, { isolation: missing });
    expect(refused).toMatchObject({ status: 400, body: { error: { code: "invalid_value", param: "isolation" } } });
    expect(JSON.stringify(refused.body)).toContain("pool, silo");
  });

  it("may set the isolation of an empty tenant as often as it likes", async () => {
    const id = await newProject();
    for (const isolation of [...offered, ...offered]) {
      expect((await admin("POST", `${settings(id)}/isolation`, { isolation })).status).toBe(200);
    }
  });

  it("leaves exactly one isolation when several are asked for at once, and the tenant works in it", async () => {
    const id = await newProject();
    const replies = await Promise.all(
      [...offered, ...offered].map((isolation) => admin("POST", `${settings(id)}/isolation`, { isolation })),
    );
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200));
    const tenant = await operator.furnish(id);
    expect((await operator.client.admin.organization.projects.apiKeys.list(id)).data).toHaveLength(1);
    expect((await chat(tenant)).choices).toHaveLength(1);
  });
});
