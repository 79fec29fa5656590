import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let mock: MockUpstream;
let operator: Operator;
let tenant: TestTenant;

beforeAll(async () => {
  mock = await MockUpstream.start();
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "keys", models: [upstreamModel("mock")] } };
  platform = await startPlatform({ bundle: "production", vars, isolates: 4 });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(async () => {
  tenant = await operator.createTenant();
  mock.script({});
});

const CHAT = { model: "mock", messages: [{ role: "user", content: "count to ten" }] };
const post = (
  path: string,
  key: string,
  body: object,
  more: { token?: string; isolate?: number; signal?: AbortSignal } = {},
) =>
  fetch(`${platform.urls[more.isolate ?? 0]}/v1${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${more.token ?? tenant.key}`, "idempotency-key": key },
    body: JSON.stringify(body),
    signal: more.signal ?? null,
  });
const codeOf = async (reply: Response) => ((await reply.json()) as { error: { code: string } }).error.code;
const calls = () => mock.counters.calls;

describe("an Idempotency-Key", () => {
  it.each([
    ["a completion", "/chat/completions", CHAT],
    ["a stream", "/chat/completions", { ...CHAT, stream: true }],
    ["a response", "/responses", { model: "mock", input: "hi" }],
    ["a streamed response", "/responses", { model: "mock", input: "hi", stream: true }],
  ])("gives %s again, byte for byte, without asking the model", async (_, path, body) => {
    const before = calls();
    const first = await post(path, "k1", body);
    const text = await first.text();
    const again = await post(path, "k1", body, { isolate: 1 });
    expect([again.status, await again.text()]).toEqual([200, text]);
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(again.headers.get("content-type")).toBe(first.headers.get("content-type"));
    expect(first.headers.get("idempotent-replayed")).toBeNull();
    expect(calls() - before).toBe(1);
    expect(await operator.usage(tenant.projectId)).toMatchObject({ requests: 1 });
  });

  it("lets one of many at the same time through, in whatever isolate, and all get its reply", async () => {
    mock.script({ firstByteMs: 300 });
    const before = calls();
    const replies = await Promise.all(
      Array.from({ length: 40 }, (_, at) => post("/chat/completions", "storm", CHAT, { isolate: at % 4 })),
    );
    const texts = await Promise.all(replies.map((reply) => reply.text()));
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(texts).size).toBe(1);
    expect(calls() - before).toBe(1);
    // The control: without a key each of them asks the model.
    await Promise.all(
      Array.from({ length: 4 }, async (_, at) => (await post("/chat/completions", `own-${at}`, CHAT)).text()),
    );
    expect(calls() - before).toBe(5);
  });

  it("is refused for another body, and for another path", async () => {
    await (await post("/chat/completions", "k", CHAT)).text();
    const other = await post("/chat/completions", "k", { ...CHAT, temperature: 0 });
    expect([other.status, await codeOf(other)]).toEqual([422, "idempotency_key_reused"]);
    const path = await post("/responses", "k", { model: "mock", input: "hi" });
    expect(path.status).toBe(422);
  });

  it("keeps no failure: the next request with it does the work", async () => {
    mock.once({ status: 500 });
    expect((await post("/chat/completions", "k", CHAT)).status).toBe(502);
    expect((await post("/chat/completions", "k", { ...CHAT, model: "nothing" })).status).toBe(404);
    expect((await post("/chat/completions", "k", CHAT)).status).toBe(200);
    mock.once({ tokens: 10, cutAfter: 2 });
    const broken = await (await post("/chat/completions", "s", { ...CHAT, stream: true })).text();
    expect(broken).not.toContain("[DONE]");
    const whole = await post("/chat/completions", "s", { ...CHAT, stream: true });
    expect(whole.headers.get("idempotent-replayed")).toBeNull();
    expect(await whole.text()).toContain("[DONE]");
  });

  it("is free again when its client left in the middle", async () => {
    mock.once({ tokens: 500, tokenMs: 10 });
    const abort = new AbortController();
    const left = await post("/chat/completions", "k", { ...CHAT, stream: true }, { signal: abort.signal });
    await left.body?.getReader().read();
    abort.abort();
    const next = await post("/chat/completions", "k", { ...CHAT, stream: true });
    expect(next.headers.get("idempotent-replayed")).toBeNull();
    expect(await next.text()).toContain("[DONE]");
  });

  it("belongs to its tenant, and an end user's to that end user", async () => {
    const before = calls();
    await (await post("/chat/completions", "same", CHAT)).text();
    const other = await operator.createTenant();
    await (await post("/chat/completions", "same", CHAT, { token: other.key })).text();
    for (const subject of ["ann", "ben"]) {
      const minted = await tenant.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } });
      const reply = await post("/chat/completions", "same", CHAT, { token: minted.value });
      expect(reply.headers.get("idempotent-replayed")).toBeNull();
      await reply.text();
    }
    expect(calls() - before).toBe(4);
  });

  it("keeps no content of a project that keeps no data, and still does nothing twice", async () => {
    await operator.client.admin.organization.projects.dataRetention.update(tenant.projectId, {
      retention_type: "zero_data_retention",
    });
    const before = calls();
    await (await post("/chat/completions", "k", CHAT)).text();
    const again = await post("/chat/completions", "k", CHAT);
    expect([again.status, await codeOf(again)]).toEqual([409, "idempotency_not_kept"]);
    expect(calls() - before).toBe(1);
  });

  it("makes administrative requests safe to repeat", async () => {
    const create = () => post("/organization/projects", "make-it", { name: "Once" }, { token: platform.adminKey });
    const [first, again] = [await create(), await create()];
    expect(((await again.json()) as { id: string }).id).toBe(((await first.json()) as { id: string }).id);
  });

  it.each(["", "with space", "x".repeat(256)])("is refused when it is no key: %j", async (key) => {
    const reply = await post("/chat/completions", key, CHAT);
    expect([reply.status, await codeOf(reply)]).toEqual([400, "invalid_value"]);
  });

  it("makes uploads safe to repeat, and tells two of them apart by what is in them", async () => {
    const send = (file: string, name = "a.txt", purpose = "user_data") => {
      const form = new FormData();
      form.set("purpose", purpose);
      form.set("file", new Blob([file]), name);
      const headers = { authorization: `Bearer ${tenant.key}`, "idempotency-key": "upload" };
      return fetch(`${platform.url}/v1/files`, { method: "POST", headers, body: form });
    };
    const first = (await (await send("hello")).json()) as { id: string };
    const again = await send("hello"); // another boundary, the same form
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(await again.json()).toEqual(first);
    for (const other of [send("hallo"), send("hello", "b.txt"), send("hello", "a.txt", "assistants")])
      expect([(await other).status, await codeOf(await other)]).toEqual([422, "idempotency_key_reused"]);
    expect((await tenant.client.files.list()).data).toHaveLength(1);
  });

  it("closes nothing that is open without it: who may not call is refused first", async () => {
    expect((await post("/chat/completions", "k", CHAT, { token: "sk-wrong" })).status).toBe(401);
  });
});
