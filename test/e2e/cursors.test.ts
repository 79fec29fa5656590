import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const PLACES = [
  { kind: "d1", isolation: "pool" },
  { kind: "d1", isolation: "silo" },
  { kind: "postgres", isolation: "pool" },
  { kind: "postgres", isolation: "bridge" },
] as const;

describe.each(PLACES)("the lists of a tenant on $kind in its $isolation", ({ kind, isolation }) => {
  let platform: Platform;
  let mock: MockUpstream;
  let operator: Operator;
  let tenant: TestTenant;
  let stranger: TestTenant;

  beforeAll(async () => {
    mock = await MockUpstream.start();
    const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "cursors", models: [upstreamModel("mock")] } };
    const postgres = kind === "postgres" ? { postgres: inject("postgres").app } : {};
    platform = await startPlatform({ bundle: "production", vars, ...postgres });
    operator = new Operator(platform.url, platform.adminKey);
    tenant = await placed();
    stranger = await placed();
  });
  afterAll(async () => {
    await platform.stop();
    await mock.stop();
  });

  async function placed(): Promise<TestTenant> {
    const { id } = await operator.client.admin.organization.projects.create({ name: "listed" });
    const path = `${platform.url}/v1/tenantry/projects/${id}/isolation`;
    const headers = { authorization: `Bearer ${platform.adminKey}` };
    const set = await fetch(path, { method: "POST", headers, body: JSON.stringify({ isolation }) });
    expect(set.status).toBe(200);
    return operator.furnish(id, { model: "mock" });
  }
  const tokenOf = async (subject: string, of = tenant) =>
    (await of.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } })).value;
  const call = (token: string, method: string, path: string, body?: BodyInit) =>
    fetch(platform.url + path, { method, headers: { authorization: `Bearer ${token}` }, ...(body ? { body } : {}) });
  const idOf = async (reply: Promise<Response>) => ((await (await reply).json()) as { id: string }).id;
  const upload = (token: string) => {
    const form = new FormData();
    form.set("purpose", "user_data");
    form.set("file", new Blob(["x"]), "x.txt");
    return idOf(call(token, "POST", "/v1/files", form));
  };
  const complete = (token: string) => {
    const ask = { model: "mock", store: true, messages: [{ role: "user", content: "hi" }] };
    return idOf(call(token, "POST", "/v1/chat/completions", JSON.stringify(ask)));
  };
  const respond = (token: string) =>
    idOf(call(token, "POST", "/v1/responses", JSON.stringify({ model: "mock", input: "hi" })));

  it.each([
    ["/v1/files", upload, "file-AAAAAAAAAAAAAAAAAAAAAAAA"],
    ["/v1/chat/completions", complete, "chatcmpl-AAAAAAAAAAAAAAAAAAAAAAAA"],
  ] as const)(
    "%s: a cursor of another end user's, or another tenant's, is as one that never was",
    async (path, make, none) => {
      const [ann, ben] = [await tokenOf("ann"), await tokenOf("ben")];
      const mine = [await make(ben), await make(ben), await make(ben)];
      const theirs = await make(ann);
      const deleted = await make(ann);
      expect((await call(ann, "DELETE", `${path}/${deleted}`)).status).toBe(200);
      const foreign = [
        theirs,
        deleted,
        await make(tenant.key),
        await make(stranger.key),
        await make(await tokenOf("ben", stranger)),
        await respond(ben), // its own, and of another list
        "' or 1=1--",
        none,
      ];
      const list = async (token: string, query: string) => {
        const reply = await call(token, "GET", `${path}?${query}`);
        return { status: reply.status, text: await reply.text() };
      };
      for (const query of ["", "&order=asc", "&order=desc", "&limit=1"]) {
        const unknown = await list(ben, `after=${none}${query}`);
        expect(unknown.status).toBe(400);
        for (const id of foreign)
          expect(await list(ben, `after=${encodeURIComponent(id)}${query}`), id).toEqual(unknown);
      }
      // Its own go on from page to page, and from one that is deleted meanwhile.
      const pages = async (token: string) => {
        const seen: string[] = [];
        for (let after = ""; ; ) {
          const { text } = await list(token, `limit=1&order=asc${after}`);
          const page = JSON.parse(text) as { data: { id: string }[]; has_more: boolean };
          seen.push(...page.data.map(({ id }) => id));
          if (!page.has_more) return seen;
          after = `&after=${seen.at(-1)}`;
        }
      };
      expect(await pages(ben)).toEqual(mine);
      expect((await call(ben, "DELETE", `${path}/${mine[0]}`)).status).toBe(200);
      const rest = JSON.parse((await list(ben, `order=asc&after=${mine[0]}`)).text) as { data: { id: string }[] };
      expect(rest.data.map(({ id }) => id)).toEqual(mine.slice(1));
      // The tenant's own key sees all of its tenant's, and nothing of another's.
      expect((await list(tenant.key, `after=${theirs}`)).status).toBe(200);
      expect((await list(tenant.key, `after=${await make(stranger.key)}`)).status).toBe(400);
    },
  );
});
