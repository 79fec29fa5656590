import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const PRICES = {
  price_version: "1",
  cost_version: "1",
  models: { mock: { price: { input: 100, output: 100 }, cost: { input: 1, output: 1 } } },
};
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;
beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 2 });
  platform = await startPlatform({
    bundle: "production",
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models: [upstreamModel("mock")] }, PRICES },
  });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

const database = () => platform.miniflare.getD1Database("DB", "isolate-0");
const background = (tenant: TestTenant, input = "x") =>
  tenant.client.responses.create({ model: "mock", input, background: true }, { maxRetries: 0 });
const stored = async (tenant: TestTenant) => {
  const query = (await database()).prepare("select count(*) as n from artifact where tenant_id = ?");
  return (await query.bind(tenant.projectId).first<{ n: number }>())?.n;
};
const failure = async (call: Promise<unknown>) => {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown as { status: number; code: string },
  );
  return error && [error.status, error.code];
};
/** The counter of what a tenant, or one of its end users, stores. */
const putCounter = async (tenant: TestTenant, kind: string, endUser: string, objects: number, bytes = 0) =>
  (await database())
    .prepare("insert or replace into storage_use values (?, ?, ?, ?, ?, 1, 0, 0, null)")
    .bind(tenant.projectId, kind, endUser, objects, bytes)
    .run();
const endUserOf = async (tenant: TestTenant, subject: string) => {
  const minted = await tenant.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } });
  return new OpenAI({ baseURL: `${platform.url}/v1`, apiKey: minted.value, maxRetries: 0 });
};

describe("a response in the background", () => {
  it("is refused by the rate limit at its request, and what is refused stores nothing", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 2, model: "mock" });
    const answers = await Promise.all(Array.from({ length: 30 }, () => failure(background(tenant))));
    expect(answers.filter((answer) => answer === undefined)).toHaveLength(2);
    expect(new Set(answers.filter((answer) => answer).map(String))).toEqual(new Set(["429,rate_limit_exceeded"]));
    expect(await stored(tenant)).toBe(2);
  });

  it("is refused by the budget at its request", async () => {
    const tenant = await operator.createTenant();
    const set = await fetch(`${platform.url}/v1/organization/projects/${tenant.projectId}/spend_limit`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.adminKey}` },
      body: '{"currency":"USD","interval":"month","threshold_amount":1}',
    });
    expect(set.status).toBe(200);
    const costly = { model: "mock", input: "x", background: true, max_output_tokens: 256 };
    expect(await failure(tenant.client.responses.create(costly))).toEqual([429, "insufficient_quota"]);
    expect(await stored(tenant)).toBe(0);
  });

  it("counts once against its limits, though it is admitted before it runs, and is billed as one call", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 1, model: "mock" });
    const { id } = await background(tenant);
    await expect.poll(async () => (await tenant.client.responses.retrieve(id)).status).toBe("completed");
    const { data } = await tenant.client.get<{ data: { outcome: string }[] }>("/tenantry/decisions");
    expect(data.filter(({ outcome }) => outcome === "completed")).toHaveLength(1);
  });

  it("takes room before it is accepted, and its own room once it has ended", async () => {
    const tenant = await operator.createTenant();
    const { id } = await background(tenant);
    await expect.poll(async () => (await tenant.client.responses.retrieve(id)).status).toBe("completed");
    const read = async () =>
      (await database())
        .prepare("select objects, bytes from storage_use where tenant_id = ? and kind = 'artifact'")
        .bind(tenant.projectId)
        .first<{ objects: number; bytes: number }>();
    const used = await read();
    expect(used?.objects).toBe(1);
    expect(used?.bytes).toBeGreaterThan(100);
    expect(used?.bytes).toBeLessThan(10_000);
    await tenant.client.responses.delete(id);
    expect(await read()).toEqual({ objects: 0, bytes: 0 });
    const full = await operator.createTenant();
    await putCounter(full, "artifact", "", 1_000_000);
    expect(await failure(background(full))).toEqual([403, "storage_quota_exceeded"]);
    expect(await stored(full)).toBe(0);
  });
});

describe("what is to be stored", () => {
  const asks = {
    "a completion": (client: OpenAI) =>
      client.chat.completions.create({ model: "mock", store: true, messages: [{ role: "user", content: "x" }] }),
    "a response": (client: OpenAI) => client.responses.create({ model: "mock", input: "x" }),
    "a response in the background": (client: OpenAI) =>
      client.responses.create({ model: "mock", input: "x", background: true }),
  };

  it.each(Object.entries(asks))("%s, is refused beyond the quota before its model is paid for", async (_, ask) => {
    const tenant = await operator.createTenant();
    await putCounter(tenant, "artifact", "", 1_000_000);
    const before = mock.counters.calls;
    expect(await failure(ask(tenant.client))).toEqual([403, "storage_quota_exceeded"]);
    expect(mock.counters.calls).toBe(before);
    expect(await stored(tenant)).toBe(0);
    await tenant.client.responses.create({ model: "mock", input: "x", store: false }); // which needs no room
  });

  it.each(Object.entries(asks))("%s, of one end user leaves room for the others", async (_, ask) => {
    const tenant = await operator.createTenant();
    const [ann, ben] = [await endUserOf(tenant, "ann"), await endUserOf(tenant, "ben")];
    await putCounter(tenant, "artifact", "", 20_000);
    await putCounter(tenant, "artifact", "ann", 20_000);
    expect(await failure(ask(ann))).toEqual([403, "storage_quota_exceeded"]);
    expect(await failure(ask(ben))).toBeUndefined();
  });

  it("a file of one end user leaves room for the others", async () => {
    const tenant = await operator.createTenant();
    const [ann, ben] = [await endUserOf(tenant, "ann"), await endUserOf(tenant, "ben")];
    await putCounter(tenant, "file", "", 500);
    await putCounter(tenant, "file", "ann", 500);
    const upload = async (client: OpenAI) =>
      client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "user_data" });
    expect(await failure(upload(ann))).toEqual([403, "storage_quota_exceeded"]);
    expect(await failure(upload(ben))).toBeUndefined();
  });
});

/** Every way in which one end user could reach what another has stored. */
async function attempts(client: OpenAI, of: { response: string; completion: string; file: string; item: string }) {
  const { responses, chat, files } = client;
  const ask = (more: object) => responses.create({ model: "mock", input: "and?", ...more });
  const tries: Record<string, () => Promise<unknown>> = {
    "retrieve a response": () => responses.retrieve(of.response),
    "list its input": () => responses.inputItems.list(of.response).then(({ data }) => data),
    "cancel it": () => responses.cancel(of.response),
    "go on from it": () => ask({ previous_response_id: of.response }),
    "go on from it in the background": () => ask({ previous_response_id: of.response, background: true }),
    "refer to its item": () => ask({ input: [{ type: "item_reference", id: of.item }] }),
    "delete it": () => responses.delete(of.response),
    "retrieve a completion": () => chat.completions.retrieve(of.completion),
    "list its messages": () => chat.completions.messages.list(of.completion),
    "label it": () => chat.completions.update(of.completion, { metadata: { a: "b" } }),
    "delete a completion": () => chat.completions.delete(of.completion),
    "retrieve a file": () => files.retrieve(of.file),
    "read a file": () => files.content(of.file),
    "delete a file": () => files.delete(of.file),
  };
  const answers: Record<string, unknown> = {};
  for (const [name, attempt] of Object.entries(tries)) answers[name] = await failure(attempt());
  return answers;
}

async function leave(client: OpenAI) {
  const response = await client.responses.create({ model: "mock", input: "my secret" });
  const completion = await client.chat.completions.create({
    ...{ model: "mock", store: true, messages: [{ role: "user", content: "my secret" }] },
  } as const);
  const file = await client.files.create({ file: await toFile(Buffer.from("my secret"), "s"), purpose: "user_data" });
  const item = (response.output[0] as { id: string }).id;
  return { response: response.id, completion: completion.id, file: file.id, item };
}

describe("what an end user has stored", () => {
  it("is to another end user of the same tenant as if it did not exist, whatever is tried", async () => {
    const tenant = await operator.createTenant();
    const [ann, ben] = [await endUserOf(tenant, "ann"), await endUserOf(tenant, "ben")];
    const anns = await leave(ann);
    const unknown = Object.fromEntries(
      Object.entries(anns).map(([kind, id]) => [kind, id.replace(/[A-Za-z0-9_-]{20}/, "A".repeat(20))]),
    ) as typeof anns;
    const [foreign, nothing] = [await attempts(ben, anns), await attempts(ben, unknown)];
    expect(foreign).toEqual(nothing);
    for (const [name, answer] of Object.entries(foreign)) expect([400, 404], name).toContain((answer as number[])[0]);
    expect((await ben.chat.completions.list()).data).toEqual([]);
    expect((await ben.files.list()).data).toEqual([]);
    // Nothing of it was changed, and its owner goes on from it.
    expect((await ann.chat.completions.retrieve(anns.completion)).metadata).toEqual({});
    const next = await ann.responses.create({ model: "mock", input: "and?", previous_response_id: anns.response });
    expect(next.previous_response_id).toBe(anns.response);
    expect(await (await ann.files.content(anns.file)).text()).toBe("my secret");
  });

  it("is to nobody anything once it has expired, though nobody has swept it yet", async () => {
    const tenant = await operator.createTenant();
    const left = await leave(tenant.client);
    const month = 30 * 24 * 60 * 60 * 1000;
    const rows = await (await database())
      .prepare("select created_at, expires_at from artifact where tenant_id = ?")
      .bind(tenant.projectId)
      .all<{ created_at: number; expires_at: number }>();
    for (const { created_at, expires_at } of rows.results) expect(expires_at - created_at).toBe(month);
    for (const table of ["artifact", "file"])
      await (await database())
        .prepare(`update ${table} set expires_at = 1 where tenant_id = ?`)
        .bind(tenant.projectId)
        .run();
    for (const [name, answer] of Object.entries(await attempts(tenant.client, left)))
      expect([400, 404], name).toContain((answer as number[])[0]);
    expect((await tenant.client.chat.completions.list()).data).toEqual([]);
  });
});
