import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { ROUTES } from "../../src/http/routes";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** Texts that a database, a path or a JavaScript object may take for something else than a text. */
const LABELS: readonly (readonly [string, string])[] = [
  ["a.b", "x"],
  ['a"b', "y"],
  ["a'b", "it's"],
  ["a[b]", "x"],
  ["$", "$1"],
  ["?", "?::text"],
  ["ключ", "знач"],
  ["a b", "50%"],
  ["k", 'q"uo\\te'],
  ["constructor", "prototype"],
  ["line", "one\ntwo"],
  ["empty", ""],
];
const NAMES = ["constructor", "__proto__", "toString", "hasOwnProperty", "metadata[__proto__]", "nothing"];
/** What stands in an address as it is, since a client library would mend it. */
const ODD_IDS = [
  "%00",
  "a%00b",
  "%E0%A4%A",
  "%ZZ",
  "%F0%27",
  "%C0%AF",
  "%ED%A0%80",
  "constructor",
  "__proto__",
  "%2e%2e",
];

/** The same on every database, in every isolation that it offers. */
describe.each([
  { kind: "d1", isolation: "pool" },
  { kind: "d1", isolation: "silo" },
  { kind: "postgres", isolation: "bridge" },
] as const)("odd texts on $kind, in its $isolation", ({ kind, isolation }) => {
  let platform: Platform;
  let operator: Operator;
  let tenant: TestTenant;
  let mock: MockUpstream;

  beforeAll(async () => {
    mock = await MockUpstream.start();
    platform = await startPlatform({
      bundle: "production",
      ...(kind === "postgres" ? { postgres: inject("postgres").app } : {}),
      vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models: [upstreamModel("mock")] } },
    });
    operator = new Operator(platform.url, platform.adminKey);
    const { id } = await operator.client.admin.organization.projects.create({ name: "odd" });
    await ask("POST", `/v1/tenantry/projects/${id}/isolation`, platform.adminKey, { isolation });
    tenant = await operator.furnish(id);
  });
  afterAll(async () => {
    await platform.stop();
    await mock.stop();
  });

  /** By Node's own client, which sends a path as it is written. */
  const ask = (method: string, path: string, key: string, body?: unknown) => {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: Record<string, unknown> }>();
    const { hostname, port } = new URL(platform.url);
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    const sent = request({ hostname, port, method, path, headers }, async (reply) => {
      const chunks: Buffer[] = await reply.toArray();
      resolve({ status: reply.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString() || "null") });
    });
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
    return promise;
  };

  it("finds a stored completion by exactly its label, whatever stands in it", async () => {
    const messages = [{ role: "user" as const, content: "hi" }];
    const made = new Map<string, string>();
    for (const [name, value] of LABELS) {
      const metadata = { [name]: value, shared: "by all" };
      const { id } = await tenant.client.chat.completions.create({ model: "mock", messages, store: true, metadata });
      made.set(name, id);
    }
    const found = async (labels: readonly (readonly [string, string])[]) => {
      const query = labels.map(([name, value]) => `metadata[${encodeURIComponent(name)}]=${encodeURIComponent(value)}`);
      const { status, body } = await ask("GET", `/v1/chat/completions?limit=100&${query.join("&")}`, tenant.key);
      expect(status).toBe(200);
      return (body.data as { id: string }[]).map(({ id }) => id);
    };
    for (const label of LABELS) {
      const [name, value] = label;
      expect(await found([label, ["shared", "by all"]])).toEqual([made.get(name)]);
      expect(await found([[name, `${value}%`]])).toEqual([]);
      expect(await found([label, ["shared", "by none"]])).toEqual([]);
    }
    expect(await found([["shared", "by all"]])).toHaveLength(LABELS.length);
    expect(await found([["__proto__", "x"]])).toEqual([]);
  });

  it("answers parameters that are named like parts of an object as unknown ones, on every list", async () => {
    for (const { path, scope } of ROUTES.filter(({ method, handler }) => method === "GET" && handler.length > 0)) {
      if (scope === "public") continue;
      const key = scope === "admin" ? platform.adminKey : tenant.key;
      const address = path.replace("{.+}", "").replace(":project_id", tenant.projectId).replaceAll(/:\w+/g, "nothing");
      for (const name of NAMES) {
        const { status } = await ask("GET", `${address}?${encodeURIComponent(name)}=x`, key);
        expect({ address, name, isOurs: status < 500 }).toEqual({ address, name, isOurs: true });
      }
      const nul = await ask("GET", `${address}?limit=1&after=a%00b&%00=x`, key);
      expect({ address, isOurs: nul.status < 500 }).toEqual({ address, isOurs: true });
    }
    const { body } = await ask("GET", "/v1/files?constructor=x", tenant.key);
    expect(body).toMatchObject({ error: { code: "unknown_parameter", param: "constructor" } });
    const nul = await ask("GET", "/v1/files?after=%00", tenant.key);
    expect(nul).toMatchObject({ status: 400, body: { error: { code: "invalid_value", param: "after" } } });
  });

  it("answers ids that are no text as unknown ones, on every path", async () => {
    for (const { method, path, scope } of ROUTES.filter((route) => route.path.includes(":"))) {
      const key = scope === "admin" ? platform.adminKey : tenant.key;
      for (const id of ODD_IDS) {
        const address = path.replace("{.+}", "").replaceAll(/:\w+/g, id);
        const { status } = await ask(method, address, key, method === "POST" ? {} : undefined);
        expect({ method, address, isRefused: status >= 400 && status < 500 }).toEqual({
          ...{ method, address, isRefused: true },
        });
      }
    }
  });

  it("keeps a file under any name", async () => {
    for (const name of ["a\\b.txt", "naïve.txt", "a;b.txt", "%00.txt", "constructor"]) {
      const form = new FormData();
      form.append("purpose", "user_data");
      form.append("file", new Blob(["x"]), name);
      const init = { method: "POST", headers: { authorization: `Bearer ${tenant.key}` }, body: form };
      const reply = await fetch(`${platform.url}/v1/files`, init);
      expect(reply.status).toBe(200);
      expect(await reply.json()).toMatchObject({ filename: name.replace("a\\b", "a\\b") });
    }
    const boundary = "odd";
    const body = `--${boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a\0b"\r\n\r\nx\r\n--${boundary}--\r\n`;
    const headers = {
      authorization: `Bearer ${tenant.key}`,
      "content-type": `multipart/form-data; boundary=${boundary}`,
    };
    const reply = await fetch(`${platform.url}/v1/files`, { method: "POST", headers, body });
    expect(reply.status).toBeLessThan(500);
  });
});
