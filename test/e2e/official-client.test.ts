import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { streamFindings } from "../contract/contract";
import { type Platform, startPlatform } from "../isolates";
import { clientOf, Operator, type TestTenant } from "../operator";

/** The unmodified official client with default settings; each reply is checked against the contract on its way. */
let platform: Platform;
let operator: Operator;
let tenant: TestTenant;

beforeAll(async () => {
  platform = await startPlatform();
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

const messages = [{ role: "user" as const, content: "How do I cancel my order?" }];

describe("chat completions through the official client", () => {
  it("answers from the embedded model, the same for the same seed", async () => {
    const ask = () =>
      tenant.client.chat.completions.create({
        model: "gpt-4o-mini",
        messages,
        seed: 7,
        temperature: 1,
        max_completion_tokens: 24,
      });
    const [first, again] = [await ask(), await ask()];
    expect(first.choices[0]?.message.content?.length).toBeGreaterThan(10);
    expect(again.choices[0]?.message.content).toBe(first.choices[0]?.message.content);
    expect(first.choices[0]?.finish_reason).toBe("length");
    expect(first.usage).toMatchObject({ prompt_tokens: 12, completion_tokens: 24, total_tokens: 36 });
    expect(first.model).toBe("tiny-support-lm");
  });

  it("streams token by token and ends with the usage it bills", async () => {
    const stream = await tenant.client.chat.completions.create({
      model: "tiny-support-lm",
      messages,
      stream: true,
      stream_options: { include_usage: true },
      max_completion_tokens: 20,
      temperature: 0,
    });
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks.length).toBeGreaterThan(15);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 12, completion_tokens: 20 } });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe("length");
    expect(streamFindings).toEqual([]);
  });

  it("works with the client's own streaming helper", async () => {
    const runner = tenant.client.chat.completions.stream({
      model: "tiny-support-lm",
      messages,
      max_completion_tokens: 12,
    });
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]?.message.content?.length).toBeGreaterThan(5);
  });

  it("answers with n choices that differ, and counts the prompt once", async () => {
    const reply = await tenant.client.chat.completions.create({
      model: "tiny-support-lm",
      messages,
      n: 3,
      seed: 1,
      temperature: 1.5,
      max_completion_tokens: 16,
    });
    const texts = reply.choices.map((choice) => choice.message.content);
    expect(new Set(texts).size).toBe(3);
    expect(reply.usage?.prompt_tokens).toBe(12);
    expect(reply.usage?.completion_tokens).toBeGreaterThan(16); // more than one choice can take
    expect(reply.usage?.completion_tokens).toBeLessThanOrEqual(48);
  });

  it("stops at a stop string", async () => {
    const ask = { model: "tiny-support-lm", messages, temperature: 0, max_completion_tokens: 40 };
    const whole = await tenant.client.chat.completions.create(ask);
    const text = whole.choices[0]?.message.content ?? "";
    const stop = text.slice(12, 18);
    const cut = await tenant.client.chat.completions.create({ ...ask, stop });
    expect(cut.choices[0]).toMatchObject({
      finish_reason: "stop",
      message: { content: text.slice(0, text.indexOf(stop)) },
    });
  });

  it("names the parameter that a model cannot take", async () => {
    const tools = [{ type: "function" as const, function: { name: "look_up" } }];
    await expect(
      tenant.client.chat.completions.create({ model: "tiny-support-lm", messages, tools }),
    ).rejects.toMatchObject({
      status: 400,
      code: "unsupported_parameter",
      param: "tools",
    });
  });
});

describe("embeddings and models through the official client", () => {
  it("embeds texts as floats, however the client asks for them", async () => {
    const byDefault = await tenant.client.embeddings.create({
      model: "text-embedding-3-small",
      input: ["late parcel", "refund"],
    });
    const asFloats = await tenant.client.embeddings.create({
      model: "tiny-support-embed",
      input: "late parcel",
      encoding_format: "float",
    });
    expect(byDefault.data).toHaveLength(2);
    expect(byDefault.data[0]?.embedding).toHaveLength(192);
    asFloats.data[0]?.embedding.forEach((value, index) => {
      expect(byDefault.data[0]?.embedding[index]).toBeCloseTo(value, 6);
    });
  });

  it("lists public names only, and retrieves each of them", async () => {
    const names: string[] = [];
    for await (const model of tenant.client.models.list()) names.push(model.id);
    expect(names).toEqual([
      ...["tiny-support-lm", "gpt-4o-mini", "tenantry-rules", "omni-moderation-latest"],
      ...["tiny-support-embed", "text-embedding-3-small"],
    ]);
    for (const name of names) expect((await tenant.client.models.retrieve(name)).id).toBe(name);
    await expect(tenant.client.models.retrieve("@local/tiny-support-lm")).rejects.toMatchObject({ status: 404 });
  });
});

describe("the control plane through the official client", () => {
  it("creates, lists, renames and archives a project; an archived one is closed to its keys and to changes", async () => {
    const { projects } = operator.client.admin.organization;
    const doomed = await operator.createTenant();
    const renamed = await projects.update(doomed.projectId, { name: "Renamed" });
    expect(renamed).toMatchObject({ id: doomed.projectId, name: "Renamed", status: "active", archived_at: null });
    const archived = await projects.archive(doomed.projectId);
    expect(archived.status).toBe("archived");
    expect(archived.archived_at).toBeGreaterThan(0);
    const listed: string[] = [];
    for await (const project of projects.list({ limit: 2 })) listed.push(project.id);
    expect(listed).toContain(tenant.projectId);
    expect(listed).not.toContain(doomed.projectId);
    const all: string[] = [];
    for await (const project of projects.list({ include_archived: true })) all.push(project.id);
    expect(all).toContain(doomed.projectId);
    await expect
      .poll(() =>
        doomed.client.models.list().then(
          () => 200,
          (e: { status: number }) => e.status,
        ),
      )
      .toBe(403);
    await expect(projects.update(doomed.projectId, { name: "Back" })).rejects.toMatchObject({
      status: 403,
      code: "project_archived",
    });
  });

  it("issues keys once, lists them without their secret, and revokes them", async () => {
    const { projects } = operator.client.admin.organization;
    const account = await projects.serviceAccounts.create(tenant.projectId, { name: "second" });
    const key = account.api_key;
    const client = clientOf(platform.url, { apiKey: key?.value ?? "" });
    await expect(client.models.list()).resolves.toBeDefined();
    const keys: { id: string; redacted_value: string }[] = [];
    for await (const listed of projects.apiKeys.list(tenant.projectId, { limit: 1 })) keys.push(listed);
    expect(JSON.stringify(keys)).not.toContain(key?.value);
    expect(keys.map(({ id }) => id)).toEqual([tenant.keyId, key?.id]);
    await projects.apiKeys.retrieve(key?.id ?? "", { project_id: tenant.projectId });
    await projects.apiKeys.delete(key?.id ?? "", { project_id: tenant.projectId });
    await expect
      .poll(
        () =>
          client.models.list().then(
            () => 200,
            (e: { status: number }) => e.status,
          ),
        { timeout: 1_500 },
      )
      .toBe(401);
    await expect(projects.apiKeys.retrieve(key?.id ?? "", { project_id: tenant.projectId })).rejects.toMatchObject({
      status: 404,
    });
  });

  it("gives a new key the data scope alone when no scope is named", async () => {
    const { serviceAccounts } = operator.client.admin.organization.projects;
    const issued = await serviceAccounts.apiKeys.create(tenant.serviceAccountId, { project_id: tenant.projectId });
    const reply = await fetch(`${platform.url}/v1/tenantry/decisions`, {
      headers: { authorization: `Bearer ${issued.value}` },
    });
    expect(reply.status).toBe(403);
  });

  it("updates and deletes service accounts, whose keys go with them", async () => {
    const { serviceAccounts } = operator.client.admin.organization.projects;
    const account = await serviceAccounts.create(tenant.projectId, { name: "third" });
    const client = clientOf(platform.url, { apiKey: account.api_key?.value ?? "" });
    const at = { project_id: tenant.projectId };
    expect(await serviceAccounts.update(account.id, { ...at, name: "renamed", role: "owner" })).toMatchObject({
      name: "renamed",
      role: "owner",
    });
    const listed: string[] = [];
    for await (const one of serviceAccounts.list(tenant.projectId)) listed.push(one.id);
    expect(listed).toContain(account.id);
    await serviceAccounts.delete(account.id, at);
    await expect(serviceAccounts.retrieve(account.id, at)).rejects.toMatchObject({ status: 404 });
    await expect(client.models.list()).rejects.toMatchObject({ status: 401 });
  });

  it("lists and modifies rate limits, which then bind", async () => {
    const other = await operator.createTenant();
    const { rateLimits } = operator.client.admin.organization.projects;
    const limits: { id: string }[] = [];
    for await (const limit of rateLimits.listRateLimits(other.projectId)) limits.push(limit);
    expect(limits.map(({ id }) => id)).toEqual(["rl-tiny-support-lm", "rl-tenantry-rules", "rl-tiny-support-embed"]);
    await rateLimits.updateRateLimit("rl-tiny-support-lm", {
      project_id: other.projectId,
      max_requests_per_1_minute: 1,
    });
    const ask = { model: "gpt-4o-mini", messages, max_completion_tokens: 1 };
    const first = await other.client.chat.completions.create(ask).withResponse();
    expect(first.response.headers.get("x-ratelimit-limit-requests")).toBe("1");
    expect(first.response.headers.get("x-ratelimit-remaining-requests")).toBe("0");
    const refused = other.client.chat.completions.create(ask, { maxRetries: 0 });
    await expect(refused).rejects.toMatchObject({ status: 429, code: "rate_limit_exceeded", type: "rate_limit_error" });
  });

  it("issues, lists and deletes admin keys", async () => {
    const { adminAPIKeys } = operator.client.admin.organization;
    const issued = await adminAPIKeys.create({ name: "second operator", expires_in_seconds: 3_600 });
    const second = clientOf(platform.url, { apiKey: null, adminAPIKey: issued.value });
    await expect(second.admin.organization.projects.retrieve(tenant.projectId)).resolves.toBeDefined();
    expect((await adminAPIKeys.retrieve(issued.id)).redacted_value).not.toContain(issued.value);
    await adminAPIKeys.delete(issued.id);
    await expect
      .poll(
        () =>
          second.admin.organization.projects.list().then(
            () => 200,
            (e: { status: number }) => e.status,
          ),
        { timeout: 1_500 },
      )
      .toBe(401);
  });

  it("keeps every administrative act in the audit log, with its actor", async () => {
    const { auditLogs } = operator.client.admin.organization;
    const types: string[] = [];
    const filter = { project_ids: [tenant.projectId], limit: 3 };
    for await (const event of auditLogs.list(filter)) {
      types.push(event.type);
      expect(event.project?.id).toBe(tenant.projectId);
      expect(event.actor).toMatchObject({ type: "api_key", api_key: { id: "key_bootstrap" } });
    }
    expect(types.at(-1)).toBe("project.created");
    expect(new Set(types)).toEqual(
      new Set([
        "project.created",
        "service_account.created",
        "service_account.updated",
        "service_account.deleted",
        "api_key.created",
        "api_key.deleted",
      ]),
    );
    const created: string[] = [];
    for await (const event of auditLogs.list({ event_types: ["project.created"], effective_at: { gt: 0 } }))
      created.push(event.type);
    expect(new Set(created)).toEqual(new Set(["project.created"]));
  });
});

describe("usage and decisions", () => {
  it("leave exactly one usage event and one decision for each call, with the same numbers as its reply", async () => {
    const own = await operator.createTenant();
    const ask = { model: "tiny-support-lm", messages, max_completion_tokens: 9, temperature: 0 };
    const { data: reply, response } = await own.client.chat.completions.create(ask).withResponse();
    const stream = await own.client.chat.completions.create({ ...ask, stream: true });
    for await (const _ of stream);
    const usage = await operator.usage(own.projectId);
    expect(usage).toEqual({ requests: 2, inputTokens: 24, outputTokens: 18 });
    const page = (await own.client.get("/tenantry/decisions")) as {
      data: { id: string; hash: string; usage: unknown; stream: boolean; outcome: string }[];
    };
    expect(page.data.map(({ stream, outcome }) => [stream, outcome])).toEqual([
      [true, "completed"],
      [false, "completed"],
    ]);
    const first = page.data[1];
    expect(first?.usage).toEqual({
      prompt_tokens: reply.usage?.prompt_tokens,
      completion_tokens: reply.usage?.completion_tokens,
    });
    expect(response.headers.get("x-audit")).toBe(`1.${first?.hash.slice(0, 16)}`);
  });
});
