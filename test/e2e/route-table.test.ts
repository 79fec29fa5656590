import { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createApp } from "../../src/app";
import type { Route } from "../../src/http/route";
import { ROUTES } from "../../src/http/routes";
import { STAGE_ORDER } from "../../src/pipeline/stages";
import { assertReply } from "../contract/contract";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

/** Walks every route of the table with everything that must not open it. */
let platform: Platform;
let operator: Operator;
let ada: TestTenant;
let bob: TestTenant;
let archived: TestTenant;
let endUserToken: string;
/** What bob has stored. */
let stored: Readonly<Record<string, string>>;

beforeAll(async () => {
  platform = await startPlatform({ vars: { BINDING_MS: 0 } });
  operator = new Operator(platform.url, platform.adminKey);
  [ada, bob, archived] = [await operator.createTenant(), await operator.createTenant(), await operator.createTenant()];
  await operator.client.admin.organization.projects.archive(archived.projectId);
  const minted = await call(ada.key, "POST", "/v1/tenantry/end_user_tokens", '{"subject":"u1"}');
  endUserToken = ((await minted.json()) as { value: string }).value;
  const short = { model: "tiny-support-lm", max_completion_tokens: 1 };
  const messages = [{ role: "user" as const, content: "hi" }];
  stored = {
    completion_id: (await bob.client.chat.completions.create({ ...short, messages, store: true })).id,
    file_id: (await bob.client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "user_data" })).id,
    response_id: (await bob.client.responses.create({ model: short.model, input: "hi", max_output_tokens: 16 })).id,
  };
});
afterAll(() => platform.stop());

const call = (credential: string | undefined, method: string, path: string, body?: string) =>
  fetch(platform.url + path, {
    method,
    headers: { "content-type": "application/json", ...(credential ? { authorization: `Bearer ${credential}` } : {}) },
    ...(body === undefined ? {} : { body }),
  });

/** An error in the contract's shape; anything else fails. */
async function errorOf(reply: Response, route: Route): Promise<{ status: number; code: string }> {
  const body = (await reply.json()) as { error: { code: string } };
  assertReply(route.method, new URL(reply.url).pathname, reply.status, body);
  expect(reply.headers.get("x-request-id")).toMatch(/^req_/);
  expect(JSON.stringify(body)).not.toMatch(/at .*\.(ts|js):\d+/); // no stack
  return { status: reply.status, code: body.error.code };
}

const UNKNOWN: Readonly<Record<string, string>> = {
  project_id: "proj_AAAAAAAAAAAAAAAAAAAAAAAA",
  service_account_id: "svc_AAAAAAAAAAAAAAAAAAAAAAAA",
  api_key_id: "key_AAAAAAAAAAAAAAAAAAAAAAAA",
  key_id: "key_AAAAAAAAAAAAAAAAAAAAAAAA",
  rate_limit_id: "rl-nothing",
  model: "nothing",
  endpoint_id: "ep_AAAAAAAAAAAAAAAAAAAAAAAA",
  completion_id: "chatcmpl-AAAAAAAAAAAAAAAAAAAAAAAA",
  response_id: "resp_AAAAAAAAAAAAAAAAAAAAAAAA",
  file_id: "file-AAAAAAAAAAAAAAAAAAAAAAAA",
};
const parameters = (route: Route) => [...route.path.matchAll(/:([a-z_]+)/g)].map(([, name]) => name ?? "");
const fill = (route: Route, ids: Readonly<Record<string, string>>) =>
  route.path.replace(/:([a-z_]+)(\{[^}]*\})?/g, (_, name: string) => ids[name] ?? "");

/** A body that a route would accept, so that what is refused is what the test means. */
const BODIES: Readonly<Record<string, string>> = {
  "/v1/chat/completions": '{"model":"tiny-support-lm","messages":[{"role":"user","content":"hi"}]}',
  "/v1/embeddings": '{"model":"tiny-support-embed","input":"hi"}',
  "/v1/tenantry/classifications": '{"model":"tiny-support-lm","input":"hi","labels":["a","b"]}',
  "/v1/moderations": '{"model":"tenantry-rules","input":"hi"}',
  "/v1/responses": '{"model":"tiny-support-lm","input":"hi"}',
  "/v1/chat/completions/:completion_id": '{"metadata":{}}',
  "/v1/organization/projects/:project_id/data_retention": '{"retention_type":"none"}',
  "/v1/tenantry/end_user_tokens": '{"subject":"u"}',
  "/v1/organization/projects": '{"name":"x"}',
  "/v1/organization/admin_api_keys": '{"name":"x"}',
  "/v1/tenantry/projects/:project_id/isolation": '{"isolation":"pool"}',
  "/v1/tenantry/projects/:project_id/retention": '{"days":30}',
  "/v1/tenantry/projects/:project_id/plan": '{"plan":"standard"}',
  "/v1/tenantry/reconciliations": '{"start_time":1}',
  "/v1/tenantry/cost_allocations": '{"start_time":1}',
  "/v1/tenantry/models/:model/endpoints": '{"url":"http://localhost:9/v1","max_in_flight":1}',
  "/v1/organization/projects/:project_id/spend_limit": '{"threshold_amount":100,"currency":"USD","interval":"month"}',
};
const bodyOf = (route: Route) =>
  route.method === "POST"
    ? (BODIES[route.path] ?? (route.path.endsWith("service_accounts") ? '{"name":"x"}' : "{}"))
    : undefined;
const takesBody = (route: Route) =>
  route.method === "POST" &&
  route.path !== "/v1/files" &&
  !/\/(archive|restore|suspend|resume|cancel)$/.test(route.path);
const rightKey = (route: Route) => (route.scope === "admin" ? platform.adminKey : ada.key);
const wrongKind = (route: Route) => (route.scope === "admin" ? ada.key : platform.adminKey);

/** Titles stand only where they apply, so that nothing counts as skipped. */
const itIf = (applies: boolean) => (applies ? it : (_title: string, _test: () => Promise<void>) => {});

const closed = ROUTES.filter((route) => route.scope !== "public");

describe("the route table", () => {
  it("gives every route a scope and its stages in their order", () => {
    for (const route of ROUTES) {
      expect(route.scope, route.path).toBeDefined();
      const places = route.stages.map((stage) => STAGE_ORDER.indexOf(stage));
      expect(places, route.path).toEqual([...places].sort((a, b) => a - b));
      if (route.scope !== "public") expect(route.stages.slice(0, 2), route.path).toEqual(["authenticate", "bind"]);
    }
  });

  it("answers 500 for a route that declares no scope", async () => {
    const open: Route = { method: "GET", path: "/open", scope: undefined, stages: [], handler: (c) => c.text("open") };
    const app = createApp([open], () => ({}) as never);
    expect((await app.request("/open", {}, {})).status).toBe(500);
  });
});

describe.each(closed)("$method $path", (route) => {
  const path = fill(route, UNKNOWN);

  it("is closed without a key, with a wrong one, and with anything that is not one", async () => {
    const wrong = [
      undefined,
      "sk-wrong",
      `${ada.key.slice(0, -1)}${ada.key.endsWith("x") ? "y" : "x"}`,
      "a.b.c",
      "' or 1=1--",
      ada.key.slice(0, 40),
    ];
    for (const credential of wrong) {
      const { status } = await errorOf(await call(credential, route.method, path, bodyOf(route)), route);
      expect(status, String(credential)).toBe(401);
    }
  });

  it("is closed to the other kind of key", async () => {
    const { status, code } = await errorOf(await call(wrongKind(route), route.method, path, bodyOf(route)), route);
    expect([status, code]).toEqual([403, "insufficient_scope"]);
  });

  itIf(route.scope !== "data")("is closed to an end user's token", async () => {
    const { status } = await errorOf(await call(endUserToken, route.method, path, bodyOf(route)), route);
    expect(status).toBe(403);
  });

  itIf(route.scope !== "admin")("is closed to a key whose project is archived", async () => {
    const { status, code } = await errorOf(await call(archived.key, route.method, path, bodyOf(route)), route);
    expect([status, code]).toEqual([403, "project_archived"]);
  });

  it("answers another method with 405 and the methods it has", async () => {
    const reply = await call(rightKey(route), "PATCH", path, "{}");
    expect((await errorOf(reply, route)).status).toBe(405);
    expect(reply.headers.get("allow")).toContain(route.method);
  });

  itIf(takesBody(route))("answers broken, too large and too deep bodies in the contract's shape", async () => {
    const bodies: [body: string, status: number][] = [
      ["{", 400],
      ["", 400],
      ["[]", 400],
      ["null", 400],
      [`{"a":"\\ud800"}`, 400],
      [`{"a":"\\u0000"}`, 400],
      [`{"name":"a","name":"b"}`, 400],
      [`{"__proto__":{}}`, 400],
      ["[".repeat(65) + "]".repeat(65), 400],
      ["[".repeat(100_000), 400],
      [`{"nobody_knows_this":1}`, 400],
      [`"${"x".repeat(8 * 1024 * 1024)}"`, 413],
    ];
    const ids = {
      ...UNKNOWN,
      project_id: ada.projectId,
      service_account_id: ada.serviceAccountId,
      rate_limit_id: "rl-tiny-support-lm",
    };
    for (const [body, status] of bodies) {
      const reply = await call(rightKey(route), route.method, fill(route, ids), body);
      expect((await errorOf(reply, route)).status, body.slice(0, 40)).toBe(status);
    }
  });

  itIf(parameters(route).length > 0)("answers a foreign id exactly as an unknown one", async () => {
    const theirs: Readonly<Record<string, string>> = {
      service_account_id: bob.serviceAccountId,
      api_key_id: bob.keyId,
      key_id: bob.keyId,
      ...stored,
    };
    const names = parameters(route);
    const last = names.at(-1) ?? "";
    const within =
      names.length > 1 ? { ...UNKNOWN, project_id: ada.projectId, service_account_id: ada.serviceAccountId } : UNKNOWN;
    const key = rightKey(route);
    const unknown = await call(
      key,
      route.method,
      fill(route, { ...within, [last]: UNKNOWN[last] ?? "" }),
      bodyOf(route),
    );
    const foreignId = theirs[last] ?? `${UNKNOWN[last]?.slice(0, -1)}B`;
    const foreign = await call(key, route.method, fill(route, { ...within, [last]: foreignId }), bodyOf(route));
    expect(unknown.status).toBe(404);
    expect(foreign.status).toBe(404);
    const [a, b] = [await unknown.text(), await foreign.text()];
    expect(b.replaceAll(foreignId, "ID")).toBe(a.replaceAll(UNKNOWN[last] ?? "", "ID"));
    const names_ = (reply: Response) => [...reply.headers.keys()].filter((name) => name !== "content-length").sort();
    expect(names_(foreign)).toEqual(names_(unknown));
  });
});

describe("what no route has", () => {
  it.each([
    "/",
    "/v1",
    "/v1/nothing",
    "/v1/chat/completions/",
    "/V1/models",
    "//v1/models",
    "/v1/organization",
    "/debug",
    "/metrics",
  ])("%s is a 404 in the contract's shape", async (path) => {
    const reply = await call(ada.key, "GET", path);
    expect(reply.status).toBe(404);
    assertReply("GET", path, 404, await reply.json());
  });
});

describe("a credential", () => {
  const models = (headers: Record<string, string>) => fetch(`${platform.url}/v1/models`, { headers });

  it("alone decides who the tenant is", async () => {
    const claims = {
      "openai-organization": bob.projectId,
      "openai-project": bob.projectId,
      "x-tenant-id": bob.projectId,
    };
    const reply = await fetch(`${platform.url}/v1/tenantry/decisions?tenant=${bob.projectId}`, {
      headers: { ...claims, authorization: `Bearer ${ada.key}` },
    });
    expect(reply.status).toBe(400); // an unknown parameter, whatever it says
    const own = await fetch(`${platform.url}/v1/tenantry/decisions`, {
      headers: { ...claims, authorization: `Bearer ${ada.key}` },
    });
    expect(own.status).toBe(200);
  });

  it("is refused when there are two of them", async () => {
    expect((await models({ authorization: `Bearer ${ada.key}, Bearer ${bob.key}` })).status).toBe(400);
    expect((await models({ authorization: `Bearer ${ada.key}`, "x-api-key": bob.key })).status).toBe(400);
  });

  it("is refused in another form than Bearer, in the query, and as its own hash", async () => {
    expect((await models({ authorization: `Basic ${btoa(`:${ada.key}`)}` })).status).toBe(401);
    expect((await models({ authorization: "Bearer" })).status).toBe(401);
    expect((await fetch(`${platform.url}/v1/models?api_key=${ada.key}`)).status).toBe(401);
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(ada.key));
    expect((await models({ authorization: `Bearer ${Buffer.from(digest).toString("hex")}` })).status).toBe(401);
  });
});

describe("a chat request", () => {
  const ask = (change: object) =>
    call(
      ada.key,
      "POST",
      "/v1/chat/completions",
      JSON.stringify({ model: "tiny-support-lm", messages: [{ role: "user", content: "hi" }], ...change }),
    );

  it.each([
    ["an unknown model", { model: "gpt-nothing" }, 404, "model_not_found", "model"],
    ["a model that embeds", { model: "tiny-support-embed" }, 400, "invalid_value", "model"],
    ["no model", { model: undefined }, 400, "missing_required_parameter", "model"],
    ["no messages", { messages: [] }, 400, "invalid_value", "messages"],
    [
      "a message without content",
      { messages: [{ role: "user" }] },
      400,
      "missing_required_parameter",
      "messages[0].content",
    ],
    ["an unknown role", { messages: [{ role: "root", content: "x" }] }, 400, "invalid_value", "messages[0].role"],
    [
      "content of a wrong type",
      { messages: [{ role: "user", content: 5 }] },
      400,
      "invalid_value",
      "messages[0].content",
    ],
    ["a temperature out of range", { temperature: 3 }, 400, "invalid_value", "temperature"],
    ["n of zero", { n: 0 }, 400, "invalid_value", "n"],
    ["a fractional cap", { max_tokens: 1.5 }, 400, "invalid_value", "max_tokens"],
    ["an unknown parameter", { best_of: 2 }, 400, "unknown_parameter", "best_of"],
    ["audio", { modalities: ["audio"] }, 400, "unsupported_parameter", "audio"],
    ["web search", { web_search_options: {} }, 400, "unsupported_parameter", "web_search_options"],
    [
      "stream options without a stream",
      { stream_options: { include_usage: true } },
      400,
      "invalid_value",
      "stream_options",
    ],
    [
      "a prompt longer than the context",
      { messages: [{ role: "user", content: "word ".repeat(2_000) }] },
      400,
      "context_length_exceeded",
      "messages",
    ],
  ])("with %s is refused by name", async (_, change, status, code, param) => {
    const reply = await ask(change);
    const { error } = (await reply.json()) as { error: { code: string; param: string } };
    expect([reply.status, error.code, error.param]).toEqual([status, code, param]);
  });

  it("may carry every harmless parameter of the contract", async () => {
    const reply = await ask({
      ...{
        user: "u",
        metadata: { a: "b" },
        safety_identifier: "s",
        prompt_cache_key: "k",
        store: false,
        n: 1,
        logprobs: false,
      },
      ...{
        frequency_penalty: 0.1,
        presence_penalty: 0.1,
        top_p: 0.9,
        temperature: 0.5,
        seed: 1,
        stop: ["zzz"],
        service_tier: "flex",
      },
      ...{
        response_format: { type: "text" },
        modalities: ["text"],
        max_completion_tokens: 4,
        top_k: 20,
        repetition_penalty: 1.1,
      },
    });
    expect(reply.status).toBe(200);
    expect(((await reply.json()) as { service_tier: string }).service_tier).toBe("flex");
  });
});
