import { createHmac } from "node:crypto";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
let tenant: TestTenant;

beforeAll(async () => {
  platform = await startPlatform({ vars: { BINDING_MS: 0 } });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

const mint = (body: object, key = tenant.key) =>
  fetch(`${platform.url}/v1/tenantry/end_user_tokens`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
  });
const minted = async (body: object) => ((await (await mint(body)).json()) as { value: string }).value;
const ask = (token: string, headers: Record<string, string> = {}, model = "tiny-support-lm") =>
  fetch(`${platform.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, ...headers },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "hi" }], max_completion_tokens: 2 }),
  });

describe("an end user's token", () => {
  it("works from a browser: the preflight is answered for every origin, without credentials", async () => {
    const preflight = await fetch(`${platform.url}/v1/chat/completions`, {
      method: "OPTIONS",
      headers: {
        origin: "https://app.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-origin")).toBe("*");
    expect(preflight.headers.get("access-control-allow-headers")).toBe("authorization,content-type,x-stainless-lang");
    expect(preflight.headers.get("access-control-allow-credentials")).toBeNull();
    const token = await minted({ subject: "user-1", origins: ["https://app.example.com"] });
    const reply = await ask(token, { origin: "https://app.example.com" });
    expect(reply.status).toBe(200);
    expect(reply.headers.get("access-control-allow-origin")).toBe("*");
  });

  it("drives the official client, and its user stands in the decision", async () => {
    const client = new OpenAI({ baseURL: `${platform.url}/v1`, apiKey: await minted({ subject: "user-2" }) });
    await client.chat.completions.create({
      model: "tiny-support-lm",
      messages: [{ role: "user", content: "hi" }],
      max_completion_tokens: 2,
    });
    const page = (await tenant.client.get("/tenantry/decisions")) as {
      data: { end_user: string; api_key_id: string }[];
    };
    expect(page.data[0]).toMatchObject({ end_user: "user-2", api_key_id: tenant.keyId });
  });

  it("is bound to its origins, its models and its own rate", async () => {
    const token = await minted({
      subject: "u",
      origins: ["https://a.example"],
      models: ["gpt-4o-mini"],
      requests_per_minute: 2,
    });
    const from = { origin: "https://a.example" };
    expect((await ask(token, { origin: "https://evil.example" })).status).toBe(403);
    expect((await ask(token)).status).toBe(403); // not from a browser at all
    expect((await ask(token, from, "tiny-support-embed")).status).toBe(404);
    expect([(await ask(token, from)).status, (await ask(token, from)).status]).toEqual([200, 200]);
    const third = await ask(token, from);
    expect(third.status).toBe(429);
    expect(((await third.json()) as { error: { message: string } }).error.message).toContain(
      "end_user_requests_per_minute",
    );
  });

  it("dies with the key that minted it", async () => {
    const doomed = await operator.createTenant();
    const token = ((await (await mint({ subject: "u" }, doomed.key)).json()) as { value: string }).value;
    expect((await ask(token)).status).toBe(200);
    await operator.client.admin.organization.projects.apiKeys.delete(doomed.keyId, { project_id: doomed.projectId });
    expect((await ask(token)).status).toBe(401);
  });

  it.each([
    [{ subject: "u", ttl_seconds: 3_601 }, "ttl_seconds"],
    [{ subject: "u", tokens_per_day: 10 }, "tokens_per_day"],
    [{ subject: "u", microdollars_per_day: 10 }, "microdollars_per_day"],
    [{ subject: "u", origins: ["https://a.example/path"] }, "origins[0]"],
    [{ subject: "u", models: ["nothing"] }, "models[0]"],
    [{}, "subject"],
  ])("cannot be minted with %j", async (body, param) => {
    const reply = await mint(body);
    expect(reply.status).toBe(400);
    expect(((await reply.json()) as { error: { param: string } }).error.param).toBe(param);
  });
});

describe("a forged token", () => {
  const encode = (value: unknown) =>
    Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
  const now = () => Math.floor(Date.now() / 1000);
  const claims = () => ({
    ...{ tid: tenant.projectId, key: tenant.keyId, sub: "u", models: null, origins: null, rpm: null },
    ...{ iss: "tenantry", aud: "tenantry:data", iat: now(), exp: now() + 60 },
  });
  /** The tests know the platform's secret, so a token differs from a good one in one thing only. */
  const sign = (payload: object, header: object = {}, tenantId = tenant.projectId) => {
    const head = encode({ alg: "HS256", typ: "JWT", kid: "1", ...header });
    const key = createHmac("sha256", "a-secret-of-the-tests-that-is-long-enough")
      .update(`end-user token 1 ${tenantId}`)
      .digest();
    const signature = createHmac("sha256", key)
      .update(`${head}.${encode(payload)}`)
      .digest("base64url");
    return `${head}.${encode(payload)}.${signature}`;
  };

  it("is told from a good one (the control: this one is good)", async () => {
    expect((await ask(sign(claims()))).status).toBe(200);
  });

  it.each<[string, () => string]>([
    ["no algorithm", () => `${encode({ alg: "none", typ: "JWT", kid: "1" })}.${encode(claims())}.`],
    ["another algorithm named", () => sign(claims(), { alg: "HS512" })],
    ["another tenant's key", () => sign(claims(), {}, "proj_another")],
    [
      "a tenant changed after signing",
      () => {
        const [h, , s] = sign(claims()).split(".");
        return `${h}.${encode({ ...claims(), tid: "proj_x" })}.${s}`;
      },
    ],
    ["another audience", () => sign({ ...claims(), aud: "dashboard" })],
    ["a list of audiences", () => sign({ ...claims(), aud: ["tenantry:data", "dashboard"] })],
    ["another issuer", () => sign({ ...claims(), iss: "tenantry/" })],
    ["no expiry", () => sign({ ...claims(), exp: undefined })],
    ["an expiry that is a text", () => sign({ ...claims(), exp: String(now() + 60) })],
    ["an expiry that has passed", () => sign({ ...claims(), exp: now() - 10 })],
    ["a life longer than an hour", () => sign({ ...claims(), iat: now() - 3_700, exp: now() + 60 })],
    ["an issue in the future", () => sign({ ...claims(), iat: now() + 600, exp: now() + 700 })],
    ["a start in the future", () => sign({ ...claims(), nbf: now() + 600 })],
    ["a key address in its header", () => sign(claims(), { jku: "http://127.0.0.1:9/k" })],
    ["a key in its header", () => sign(claims(), { jwk: { kty: "oct", k: "AAAA" } })],
    ["a strange key id", () => sign(claims(), { kid: "../../dev/null" })],
    ["a huge key id", () => sign(claims(), { kid: "x".repeat(64_000) })],
    ["a claim that nothing enforces yet", () => sign({ ...claims(), tpd: 5 })],
    ["a cut signature", () => sign(claims()).slice(0, -3)],
  ])("with %s is refused with the same 401", async (_, forge) => {
    const reply = await ask(forge());
    expect(reply.status).toBe(401);
    expect(((await reply.json()) as { error: { code: string } }).error.code).toMatch(
      /^invalid_(end_user_token|api_key)$/,
    );
  });
});
