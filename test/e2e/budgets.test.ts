import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const ISOLATES = 4;
/** Dollars per million tokens: 10 and 100 micro-dollars a token make small numbers. */
const PRICES = {
  price_version: "tests-1",
  cost_version: "tests-cost-1",
  models: { mock: { price: { input: 10, output: 100 }, cost: { input: 4, output: 40 } } },
};
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;

beforeAll(async () => {
  mock = await MockUpstream.start();
  const models = [
    upstreamModel("mock"),
    upstreamModel("unpriced"),
    upstreamModel("long", { default_max_output_tokens: 32_000 }),
  ];
  platform = await startPlatform({
    bundle: "production",
    isolates: ISOLATES,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models }, PRICES, BINDING_MS: 800 },
  });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

type Reply = {
  status: number;
  headers: Headers;
  body: {
    usage?: { total_tokens: number };
    error?: {
      code: string;
      message: string;
      param: string | null;
      limits?: { rule: string; limit: number; settled: number; held: number }[];
    };
  };
};
async function chat(tenant: Pick<TestTenant, "key">, change: object = {}, isolate = 0): Promise<Reply> {
  const reply = await fetch(`${platform.urls[isolate % ISOLATES]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({
      model: "mock",
      messages: [{ role: "user", content: "hi" }],
      max_completion_tokens: 5,
      ...change,
    }),
  });
  return { status: reply.status, headers: reply.headers, body: (await reply.json()) as Reply["body"] };
}
const admin = async (method: string, path: string, body?: object) => {
  const reply = await fetch(`${platform.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${platform.adminKey}` },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return {
    status: reply.status,
    body: (await reply.json()) as Record<string, never> & { error?: { code: string; param: string } },
  };
};
const settings = (tenant: TestTenant, what: string) => `/v1/tenantry/projects/${tenant.projectId}/${what}`;
interface Limit {
  readonly rule: string;
  readonly scope: string;
  readonly subject: string | null;
  readonly model: string | null;
  readonly unit: string;
  readonly limit: number;
  readonly settled: number;
  readonly held: number;
  readonly remaining: number;
  readonly mode: string;
  readonly would_refuse?: number;
  readonly alerted?: boolean;
}
async function limitsOf(tenant: TestTenant): Promise<Limit[]> {
  const reply = await fetch(`${platform.url}/v1/tenantry/limits`, {
    headers: { authorization: `Bearer ${tenant.key}` },
  });
  return ((await reply.json()) as { limits: Limit[] }).limits;
}
/** What the refused call might have cost, in micro-dollars, as its refusal says it. */
const worstCaseIn = (body: Reply["body"]) =>
  Math.round(Number(/this request at most \$(\d+\.\d+)/.exec(body.error?.message ?? "")?.[1]) * 1e6);
const limitNamed = async (tenant: TestTenant, rule: string) =>
  (await limitsOf(tenant)).find((each) => each.rule === rule);
async function costOf(projectId: string): Promise<number> {
  const costs = await operator.client.admin.organization.usage.costs({
    start_time: Math.floor(Date.now() / 1000) - 86_400,
    project_ids: [projectId],
  });
  const values = costs.data.flatMap(({ results }) => results as unknown as { amount: { value: number } }[]);
  return Math.round(values.reduce((sum, { amount }) => sum + amount.value, 0) * 1e6);
}
const setSpend = (tenant: TestTenant, cents: number) =>
  operator.client.admin.organization.projects.spendLimit.update(tenant.projectId, {
    threshold_amount: cents,
    currency: "USD",
    interval: "month",
  });

describe("a spend limit", () => {
  it("of one cent holds against 1,000 parallel requests from several isolates: not a micro-dollar more is spent", async () => {
    const tenant = await operator.createTenant({
      requestsPerMinute: 100_000,
      tokensPerMinute: 100_000_000,
      model: "mock",
    });
    await setSpend(tenant, 1);
    await admin("POST", settings(tenant, "limits"), { in_flight: 1_000 });
    const replies: Reply[] = [];
    for (let from = 0; from < 1_000; from += 250) {
      replies.push(...(await Promise.all(Array.from({ length: 250 }, (_, index) => chat(tenant, {}, from + index)))));
    }
    const [served, refused] = [
      replies.filter(({ status }) => status === 200),
      replies.filter(({ status }) => status !== 200),
    ];
    expect(served.length).toBeGreaterThan(3);
    for (const { status, body, headers } of refused) {
      expect([status, body.error?.code]).toEqual([429, "insufficient_quota"]);
      expect(headers.get("x-should-retry")).toBe("false");
      expect(headers.get("retry-after")).toBeNull();
      expect(body.error?.message).toContain("monthly_spend");
      const state = body.error?.limits?.find(({ rule }) => rule === "monthly_spend");
      // Nobody is refused who could have been paid for.
      expect((state?.settled ?? 0) + (state?.held ?? 0) + worstCaseIn(body)).toBeGreaterThan(state?.limit ?? 0);
    }
    // The last ones were refused for what others might yet have spent: what that left is spent one by one.
    let last: Reply;
    do last = await chat(tenant);
    while (last.status === 200);
    const spent = await costOf(tenant.projectId);
    const state = () => limitNamed(tenant, "monthly_spend");
    await expect
      .poll(state, { timeout: 2_000 })
      .toMatchObject({ limit: 10_000, settled: spent, held: 0, remaining: 10_000 - spent });
    expect(spent).toBeLessThanOrEqual(10_000);
    expect(last.status).toBe(429);
    expect(spent + worstCaseIn(last.body)).toBeGreaterThan(10_000);
    expect(refused.length + served.length).toBe(1_000);
  });

  it("is made, read, changed and removed on the contract's path, and then limits nothing", async () => {
    const tenant = await operator.createTenant();
    const { spendLimit } = operator.client.admin.organization.projects;
    await expect(spendLimit.retrieve(tenant.projectId)).rejects.toMatchObject({ status: 404 });
    expect(await setSpend(tenant, 1)).toMatchObject({
      threshold_amount: 1,
      currency: "USD",
      enforcement: { status: "inactive" },
    });
    expect((await chat(tenant, { max_completion_tokens: 1_000 })).body.error?.code).toBe("insufficient_quota");
    expect(await spendLimit.retrieve(tenant.projectId)).toMatchObject({ threshold_amount: 1 });
    await setSpend(tenant, 5_000);
    expect((await chat(tenant, { max_completion_tokens: 1_000 })).status).toBe(200);
    expect(await spendLimit.delete(tenant.projectId)).toEqual({ object: "project.spend_limit.deleted", deleted: true });
    await expect(spendLimit.delete(tenant.projectId)).rejects.toMatchObject({ status: 404 });
    expect((await chat(tenant)).status).toBe(200);
  });

  it("is closed to a model that nobody has priced, and only then", async () => {
    const tenant = await operator.createTenant();
    expect((await chat(tenant, { model: "unpriced" })).status).toBe(200);
    await setSpend(tenant, 100_000);
    const refused = await chat(tenant, { model: "unpriced" });
    expect([refused.status, refused.body.error?.code, refused.body.error?.param]).toEqual([
      403,
      "price_unknown",
      "model",
    ]);
    expect(refused.headers.get("x-should-retry")).toBe("false");
    expect((await chat(tenant)).status).toBe(200);
  });

  it("lowers the output of a request that names no cap to what it can still pay, and says so", async () => {
    const tenant = await operator.createTenant();
    await setSpend(tenant, 1); // 100 output tokens at most
    const reply = await chat(tenant, { max_completion_tokens: undefined });
    expect(reply.status).toBe(200);
    const cap = Number(reply.headers.get("x-max-output-tokens"));
    expect(cap).toBeGreaterThanOrEqual(16);
    expect(cap).toBeLessThan(100);
    expect(mock.requests.at(-1)?.body.max_tokens).toBe(cap);
  });
});

describe("a model of 128k context under 10,000 tokens a minute", () => {
  it("works without a cap: what the limit still allows is the cap", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 100, tokensPerMinute: 10_000, model: "long" });
    const reply = await chat(tenant, { model: "long", max_completion_tokens: undefined });
    expect(reply.status).toBe(200);
    expect(Number(reply.headers.get("x-max-output-tokens"))).toBeLessThan(10_000);
  });
});

describe("limits of the operator's own", () => {
  const set = (tenant: TestTenant, limits: object[]) => admin("POST", settings(tenant, "limits"), { limits });

  it("hold for one key and leave the project's other keys alone", async () => {
    const tenant = await operator.createTenant();
    const other = await operator.client.admin.organization.projects.serviceAccounts.apiKeys.create(
      tenant.serviceAccountId,
      {
        project_id: tenant.projectId,
        name: "other",
        scopes: ["data"],
      },
    );
    await set(tenant, [{ scope: "api_key", subject: tenant.keyId, metric: "requests", window: "day", limit: 2 }]);
    for (const expected of [200, 200, 429]) expect((await chat(tenant)).status).toBe(expected);
    expect((await chat({ key: other.value })).status).toBe(200);
    expect(await limitNamed(tenant, "api_key_requests_per_day")).toMatchObject({
      scope: "api_key",
      subject: tenant.keyId,
      settled: 2,
      remaining: 0,
    });
  });

  it("hold for each end user by itself, in money too, by the calendar of a time zone", async () => {
    const tenant = await operator.createTenant();
    const token = async (subject: string) =>
      ((await tenant.client.post("/tenantry/end_user_tokens", { body: { subject } })) as { value: string }).value;
    await set(tenant, [
      { scope: "end_user", metric: "spend", window: "day", time_zone: "Europe/Berlin", limit: 2_500 },
    ]);
    const [ann, ben] = [{ key: await token("ann") }, { key: await token("ben") }];
    const statuses = [];
    for (let calls = 0; calls < 6; calls++) statuses.push((await chat(ann)).status);
    expect(statuses).toContain(429);
    expect(statuses[0]).toBe(200);
    expect((await chat(ben)).status).toBe(200);
    expect((await chat(tenant)).status).toBe(200); // a key is no end user
    const listed = (await limitsOf(tenant)).filter(({ rule }) => rule === "end_user_spend_per_day");
    expect(listed.map(({ subject }) => subject).sort()).toEqual(["ann", "ben"]);
    for (const { settled, held, limit } of listed) expect(settled + held).toBeLessThanOrEqual(limit);
  });

  it("in shadow mode refuse nothing and count what they would have refused", async () => {
    const tenant = await operator.createTenant();
    await set(tenant, [{ scope: "project", metric: "requests", window: "minute", limit: 2, mode: "shadow" }]);
    for (let calls = 0; calls < 5; calls++) expect((await chat(tenant)).status).toBe(200);
    expect(await limitNamed(tenant, "project_requests_per_minute")).toMatchObject({
      mode: "shadow",
      settled: 5,
      would_refuse: 3,
    });
    // The same limit in earnest knows what was used so far.
    await set(tenant, [{ scope: "project", metric: "requests", window: "minute", limit: 5 }]);
    expect((await chat(tenant)).status).toBe(429);
  });

  it("that only alert leave one decision record a period, and a mark", async () => {
    const tenant = await operator.createTenant();
    await set(tenant, [{ scope: "project", metric: "spend", window: "month", limit: 100, mode: "alert" }]);
    for (let calls = 0; calls < 3; calls++) expect((await chat(tenant)).status).toBe(200);
    expect(await limitNamed(tenant, "project_spend_per_month")).toMatchObject({ mode: "alert", alerted: true });
    const { data } = (await tenant.client.get("/tenantry/decisions")) as {
      data: { kind: string; rule: string | null }[];
    };
    expect(data.filter(({ kind }) => kind === "alert")).toMatchObject([{ rule: "project_spend_per_month" }]);
    expect(data.filter(({ kind }) => kind === "model_call")).toHaveLength(3);
  });

  it("are explained by every 429: each rule, its limit, what is settled and what is held", async () => {
    const tenant = await operator.createTenant();
    await setSpend(tenant, 100);
    await set(tenant, [{ scope: "project", metric: "requests", window: "minute", limit: 1 }]);
    await chat(tenant);
    const { body } = await chat(tenant);
    expect(body.error?.limits?.map(({ rule }) => rule)).toEqual([
      "requests_per_minute",
      "tokens_per_minute",
      "monthly_spend",
      "project_requests_per_minute",
    ]);
    expect(body.error?.limits?.at(-1)).toMatchObject({ limit: 1, settled: 1, held: 0 });
  });

  it.each([
    [
      "twice",
      [
        { scope: "project", metric: "requests", window: "day", limit: 1 },
        { scope: "project", metric: "requests", window: "day", limit: 2 },
      ],
      "limits[1].scope",
    ],
    [
      "a subject of the project",
      [{ scope: "project", subject: "x", metric: "requests", window: "day", limit: 1 }],
      "limits[0].subject",
    ],
    ["spend a minute", [{ scope: "project", metric: "spend", window: "minute", limit: 1 }], "limits[0].window"],
    ["requests a month", [{ scope: "project", metric: "requests", window: "month", limit: 1 }], "limits[0].window"],
    [
      "an unknown time zone",
      [{ scope: "project", metric: "spend", window: "day", time_zone: "Mars/Olympus", limit: 1 }],
      "limits[0].time_zone",
    ],
    [
      "a time zone without money",
      [{ scope: "project", metric: "tokens", window: "day", time_zone: "UTC", limit: 1 }],
      "limits[0].time_zone",
    ],
    [
      "a child above its parent",
      [
        { scope: "project", metric: "requests", window: "day", limit: 5 },
        { scope: "api_key", metric: "requests", window: "day", limit: 6 },
      ],
      "limits[1].limit",
    ],
    ["a negative limit", [{ scope: "project", metric: "requests", window: "day", limit: -1 }], "limits[0].limit"],
  ])("are refused by name: %s", async (_, limits, param) => {
    const tenant = await operator.createTenant();
    expect(await set(tenant, limits)).toMatchObject({ status: 400, body: { error: { param } } });
    expect((await chat(tenant)).status).toBe(200);
  });
});

describe("a plan", () => {
  it("brings its limits and its service tiers, and leaves what the operator set by hand", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 7, model: "mock" });
    await admin("POST", settings(tenant, "limits"), { in_flight: 9 });
    expect((await admin("POST", settings(tenant, "plan"), { plan: "free" })).body).toMatchObject({ plan: "free" });
    const limits = (await admin("GET", settings(tenant, "limits"))).body as unknown as {
      plan: string;
      in_flight: object;
      limits: Limit[];
    };
    expect(limits).toMatchObject({ plan: "free", in_flight: { limit: 9, queue_length: 32 } });
    const perMinute = (model: string) =>
      limits.limits.find((each) => each.model === model && each.rule === "requests_per_minute")?.limit;
    expect([perMinute("mock"), perMinute("unpriced")]).toEqual([7, 60]);
    const refused = await chat(tenant, { service_tier: "priority" });
    expect([refused.status, refused.body.error?.code]).toEqual([403, "service_tier_not_in_plan"]);
    expect(refused.headers.get("x-should-retry")).toBe("false");
    await admin("POST", settings(tenant, "plan"), { plan: "premium" });
    expect((await chat(tenant, { service_tier: "priority" })).status).toBe(200);
    expect(await admin("POST", settings(tenant, "plan"), { plan: "gold" })).toMatchObject({
      status: 400,
      body: { error: { param: "plan" } },
    });
  });
});

describe("a suspended project", () => {
  it("is refused by every isolate within a second, and served again when it is resumed", async () => {
    const tenant = await operator.createTenant();
    const all = () => Promise.all(Array.from({ length: ISOLATES }, (_, isolate) => chat(tenant, {}, isolate)));
    expect((await all()).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    const suspendedAtMs = Date.now();
    expect((await admin("POST", settings(tenant, "suspend"))).status).toBe(200);
    while (Date.now() - suspendedAtMs < 1_000) await all();
    for (const { status, body, headers } of await all()) {
      expect([status, body.error?.code]).toEqual([403, "project_suspended"]);
      expect(headers.get("x-should-retry")).toBe("false");
    }
    await admin("POST", settings(tenant, "resume"));
    await expect
      .poll(async () => (await all()).map(({ status }) => status), { timeout: 3_000 })
      .toEqual([200, 200, 200, 200]);
  });
});

describe("costs", () => {
  it("are what the usage costs, by line and key, and sum to what the limits say was spent", async () => {
    const tenant = await operator.createTenant();
    await setSpend(tenant, 1_000);
    for (let calls = 0; calls < 4; calls++) await chat(tenant);
    const { inputTokens, outputTokens } = await operator.usage(tenant.projectId);
    const spent = await costOf(tenant.projectId);
    expect(spent).toBe(inputTokens * 10 + outputTokens * 100);
    const state = () => limitNamed(tenant, "monthly_spend");
    await expect.poll(state, { timeout: 2_000 }).toMatchObject({ settled: spent, held: 0 });
    const costs = await operator.client.admin.organization.usage.costs({
      start_time: Math.floor(Date.now() / 1000) - 86_400,
      project_ids: [tenant.projectId],
      group_by: ["line_item", "project_id"],
    });
    const lines = costs.data.flatMap(
      ({ results }) => results as unknown as { line_item: string; project_id: string }[],
    );
    expect(lines).toMatchObject([{ line_item: "mock, completions", project_id: tenant.projectId }]);
  });
});
