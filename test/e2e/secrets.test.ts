import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Route } from "../../src/http/route";
import { ROUTES } from "../../src/http/routes";
import { LOCAL_CATALOGUE, type Platform, startPlatform, upstreamModel } from "../isolates";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
let tenant: TestTenant;

beforeAll(async () => {
  const models = [...LOCAL_CATALOGUE.models, upstreamModel("elsewhere", { max_in_flight: 1 })];
  const vars = { UPSTREAM_URL: "http://localhost:9/v1", MODEL_CATALOGUE: { version: "secrets", models } };
  platform = await startPlatform({ vars: { ...vars, BINDING_MS: 0 } });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

interface Sent {
  readonly path: string;
  readonly body?: BodyInit;
  readonly token?: string;
}
const post = ({ path, body = "{}", token = tenant.key }: Sent, key: string, headers: Record<string, string> = {}) =>
  fetch(platform.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "idempotency-key": key, ...headers },
    body,
  });
type Failed = { error: { code: string; message: string; made?: Record<string, string> } };

/** A key of this platform, or a signed token: whoever has one may call. */
const SECRET = /sk-tenantry-(?:admin-)?[0-9A-Za-z]{49}|eyJ[\w-]+\.[\w-]+\.[\w-]{20,}/;
const LABEL = "a-canary-that-stands-in-replies";

/** What lies in a tenant's idempotency store. */
async function kept(tenantId: string): Promise<string> {
  const name = `global/${tenantId}`;
  const storage = await platform.miniflare.unsafeGetDurableObjectStorage("isolate-0", "IdempotencyStore", { name });
  const rows = await storage.exec("select state, hex(body) as body, headers from reply");
  return JSON.stringify(rows, (_, value: unknown) =>
    typeof value === "string" && /^([0-9A-F]{2})+$/.test(value) ? Buffer.from(value, "hex").toString("latin1") : value,
  );
}

const json = (path: string, body: object, token?: string): Sent => ({
  ...{ path, body: JSON.stringify(body) },
  ...(token === undefined ? {} : { token }),
});
/** A request that each route answers with success, and things of its own to do it with. */
const CALLS: Readonly<Record<string, () => Promise<Sent>>> = (() => {
  const model = "tiny-support-lm";
  const messages = [{ role: "user" as const, content: "hi" }];
  const admin = async (path: string, body: object = {}) => json(path, body, platform.adminKey);
  const inProject =
    (path: string, body: object = {}) =>
    async () => {
      const { id } = await operator.client.admin.organization.projects.create({ name: LABEL });
      return admin(path.replace(":project_id", id), body);
    };
  const inAccount = (path: string, body: object) => async () => {
    const { projectId, serviceAccountId } = await operator.createTenant();
    const filled = path.replace(":project_id", projectId).replace(":service_account_id", serviceAccountId);
    return admin(filled, body);
  };
  const project = "/v1/organization/projects/:project_id";
  const settings = "/v1/tenantry/projects/:project_id";
  const account = `${project}/service_accounts/:service_account_id`;
  const start_time = Math.floor(Date.now() / 3_600_000) * 3_600 - 7_200;
  return {
    "/v1/chat/completions": async () => json("/v1/chat/completions", { model, messages, max_tokens: 1 }),
    "/v1/chat/completions/:completion_id": async () => {
      const made = await tenant.client.chat.completions.create({ model, messages, max_tokens: 1, store: true });
      return json(`/v1/chat/completions/${made.id}`, { metadata: { label: LABEL } });
    },
    "/v1/embeddings": async () => json("/v1/embeddings", { model: "tiny-support-embed", input: "hi" }),
    "/v1/responses": async () => json("/v1/responses", { model, input: LABEL, max_output_tokens: 16 }),
    "/v1/responses/:response_id/cancel": async () => {
      const made = await tenant.client.responses.create({
        model,
        input: "hi",
        background: true,
        max_output_tokens: 16,
      });
      return json(`/v1/responses/${made.id}/cancel`, {});
    },
    "/v1/moderations": async () => json("/v1/moderations", { model: "tenantry-rules", input: "hi" }),
    "/v1/tenantry/classifications": async () =>
      json("/v1/tenantry/classifications", { model, input: "hi", labels: ["a", "b"] }),
    "/v1/files": async () => {
      const form = new FormData();
      form.set("purpose", "user_data");
      form.set("file", new Blob(["x"]), `${LABEL}.txt`);
      return { path: "/v1/files", body: form };
    },
    "/v1/tenantry/end_user_tokens": async () => json("/v1/tenantry/end_user_tokens", { subject: LABEL }),
    "/v1/organization/projects": () => admin("/v1/organization/projects", { name: LABEL }),
    [project]: inProject(project, { name: LABEL }),
    [`${project}/archive`]: inProject(`${project}/archive`),
    [`${project}/service_accounts`]: inProject(`${project}/service_accounts`, { name: LABEL }),
    [account]: inAccount(account, { name: LABEL }),
    [`${account}/api_keys`]: inAccount(`${account}/api_keys`, { name: LABEL }),
    [`${project}/rate_limits/:rate_limit_id`]: inProject(`${project}/rate_limits/rl-${model}`, {
      max_requests_per_1_minute: 5,
    }),
    [`${project}/spend_limit`]: inProject(`${project}/spend_limit`, {
      ...{ threshold_amount: 100, currency: "USD", interval: "month" },
    }),
    [`${project}/data_retention`]: inProject(`${project}/data_retention`, { retention_type: "none" }),
    "/v1/organization/admin_api_keys": () => admin("/v1/organization/admin_api_keys", { name: LABEL }),
    "/v1/tenantry/reconciliations": () => admin("/v1/tenantry/reconciliations", { start_time }),
    "/v1/tenantry/cost_allocations": () => admin("/v1/tenantry/cost_allocations", { start_time }),
    "/v1/tenantry/models/:model/endpoints": () =>
      admin("/v1/tenantry/models/elsewhere/endpoints", { url: "http://localhost:9/v1", max_in_flight: 1 }),
    [`${settings}/restore`]: async () => {
      const { id } = await operator.client.admin.organization.projects.create({ name: LABEL });
      await operator.client.admin.organization.projects.archive(id);
      return admin(`/v1/tenantry/projects/${id}/restore`);
    },
    [`${settings}/suspend`]: inProject(`${settings}/suspend`),
    [`${settings}/resume`]: async () => {
      const { path } = await inProject(`${settings}/suspend`)();
      await post({ path, token: platform.adminKey }, crypto.randomUUID());
      return admin(path.replace("suspend", "resume"));
    },
    [`${settings}/plan`]: inProject(`${settings}/plan`, { plan: "standard" }),
    [`${settings}/limits`]: inProject(`${settings}/limits`, {}),
    [`${settings}/isolation`]: inProject(`${settings}/isolation`, { isolation: "pool" }),
    [`${settings}/retention`]: inProject(`${settings}/retention`, { days: 30 }),
  };
})();

const posts = ROUTES.filter(({ method, scope }) => method === "POST" && scope !== "public");

describe("a reply to a request with an Idempotency-Key", () => {
  it("is tried on every route there is", () => {
    expect(Object.keys(CALLS).sort()).toEqual(posts.map(({ path }) => path).sort());
  });

  it.each(posts.map((route): [string, Route] => [route.path, route]))(
    "of %s is given again where it holds no secret, and never kept where it does",
    async (path, route) => {
      const sent = await (CALLS[path] as () => Promise<Sent>)();
      const key = crypto.randomUUID();
      const first = await post(sent, key);
      const text = await first.text();
      expect(first.status, text).toBe(200);
      expect(SECRET.test(text), "a route whose reply shows a secret says so").toBe(route.showsSecret === true);
      const again = await post(sent, key);
      const repeated = await again.text();
      expect(repeated).not.toMatch(SECRET);
      if (!route.showsSecret) {
        expect([again.status, repeated]).toEqual([200, text]);
        return;
      }
      const { error } = JSON.parse(repeated) as Failed;
      expect([again.status, error.code]).toEqual([409, "idempotency_not_kept"]);
      expect(again.headers.get("x-should-retry")).toBe("false"); // else the official clients ask again
      const { id, api_key, subject } = JSON.parse(text) as { id?: string; api_key?: { id: string }; subject?: string };
      expect(error.made).toEqual({
        ...(id ? { id } : {}),
        ...(api_key ? { api_key_id: api_key.id } : {}),
        ...(subject ? { subject } : {}),
      });
    },
  );

  it("lies nowhere in plain text, the operator's neither", async () => {
    for (const tenantId of [tenant.projectId, "platform"]) {
      const stored = await kept(tenantId);
      expect(stored).toContain("kept"); // the control: there are some
      expect(stored).not.toMatch(SECRET);
      expect(stored).not.toContain(LABEL);
      expect(stored).not.toContain("organization.");
    }
  });

  it("that would show the key of a service account tells what was made, so that it can be deleted", async () => {
    const sent = await (CALLS["/v1/organization/projects/:project_id/service_accounts"] as () => Promise<Sent>)();
    const made = (await (await post(sent, "made")).json()) as { id: string; api_key: { id: string; value: string } };
    const models = () =>
      fetch(`${platform.url}/v1/models`, { headers: { authorization: `Bearer ${made.api_key.value}` } });
    expect((await models()).status).toBe(200);
    const { error } = (await (await post(sent, "made")).json()) as Failed;
    const project_id = sent.path.split("/")[4] ?? "";
    const keys = operator.client.admin.organization.projects.apiKeys;
    await keys.delete(error.made?.api_key_id ?? "", { project_id });
    expect((await models()).status).toBe(401);
    expect(await (await post(sent, "made")).text()).not.toMatch(SECRET);
    expect((await keys.list(project_id)).data).toEqual([]);
  });

  it("keeps the official client from asking for the secret again and again", async () => {
    let asked = 0;
    const counting: typeof fetch = (...call) => {
      asked++;
      return fetch(...call);
    };
    const client = new OpenAI({ baseURL: `${platform.url}/v1`, apiKey: tenant.key, fetch: counting });
    const mint = () =>
      client.post("/tenantry/end_user_tokens", { body: { subject: "u" }, headers: { "idempotency-key": "sdk" } });
    await mint();
    await expect(mint()).rejects.toMatchObject({ status: 409, code: "idempotency_not_kept" });
    expect(asked).toBe(2);
  });
});

describe("the body of a request with an Idempotency-Key", () => {
  const CHAT = { model: "tiny-support-lm", max_tokens: 1 };
  const chat = (content: string) => json("/v1/chat/completions", { ...CHAT, messages: [{ role: "user", content }] });

  it.each([
    "multipart/form-data; boundary=x",
    "Multipart/Form-Data; boundary=x",
    "multipart/mixed; boundary=x",
    "multipart/x",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "application/vnd.api+json",
    "text/plain",
    "",
  ])("is compared as it is read, whatever type it is said to have: %j", async (type) => {
    const key = crypto.randomUUID();
    const typed = { "content-type": type };
    expect((await post(chat("one"), key, typed)).status).toBe(200);
    for (const headers of [typed, { "content-type": "application/json" }]) {
      const other = await post(chat("another"), key, headers);
      expect([other.status, ((await other.json()) as Failed).error.code]).toEqual([422, "idempotency_key_reused"]);
    }
    const again = await post(chat("one"), key, { "content-type": "application/json" });
    expect(again.headers.get("idempotent-replayed")).toBe("true");
  });

  it("is compared when it comes in pieces, and when it is said to be encoded", async () => {
    const streamed = (text: string) =>
      fetch(`${platform.url}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${tenant.key}`, "idempotency-key": "pieces" },
        body: new ReadableStream({
          start(controller) {
            for (const character of text) controller.enqueue(new TextEncoder().encode(character));
            controller.close();
          },
        }),
        duplex: "half",
      } as RequestInit);
    expect((await streamed(String(chat("one").body))).status).toBe(200);
    expect((await streamed(String(chat("two").body))).status).toBe(422);
    const whole = await post(chat("one"), "pieces");
    expect(whole.headers.get("idempotent-replayed")).toBe("true");
    const encoded = await post(chat("two"), "pieces", { "content-encoding": "identity" });
    expect(encoded.status).toBe(422);
  });

  it("belongs to its path and its query", async () => {
    const mint = (path: string) => post(json(path, { subject: "u" }), "path");
    expect((await mint("/v1/tenantry/end_user_tokens")).status).toBe(200);
    expect((await mint("/v1/tenantry/end_user_tokens?x=1")).status).toBe(422);
  });

  it("of an upload is compared, however its type is written", async () => {
    const upload = (content: string, type: string) => {
      const lines = [
        '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data',
        `\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n${content}\r\n--x--\r\n`,
      ];
      return post({ path: "/v1/files", body: lines.join("") }, "typed", { "content-type": type });
    };
    expect((await upload("one", "multipart/form-data; boundary=x")).status).toBe(200);
    for (const type of ["multipart/form-data; boundary=x", "Multipart/FORM-DATA; boundary=x"]) {
      expect((await upload("two", type)).status, type).toBe(422);
      expect((await upload("one", type)).headers.get("idempotent-replayed"), type).toBe("true");
    }
    expect((await upload("two", "application/json")).status).toBe(415);
    const { client, key } = tenant;
    expect(key).toMatch(SECRET);
    const other = await client.files.create({ file: await toFile(Buffer.from("y"), "y"), purpose: "user_data" });
    expect(other.bytes).toBe(1);
  });
});
