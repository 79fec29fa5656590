import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const PRICES = {
  price_version: "tests-1",
  cost_version: "tests-cost-1",
  models: { mock: { price: { input: 10, output: 100 }, cost: { input: 4, output: 40 } } },
};
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;
let ada: TestTenant;
let bob: TestTenant;

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 5 });
  const models = [upstreamModel("mock")];
  platform = await startPlatform({
    bundle: "production",
    isolates: 4,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models }, PRICES, UPSTREAM_TIMEOUT_MS: 1_000 },
  });
  operator = new Operator(platform.url, platform.adminKey);
  [ada, bob] = [await operator.createTenant(), await operator.createTenant()];
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

const post = async (path: string, key: string, body: object, isolate = 0, signal?: AbortSignal) =>
  fetch(`${platform.urls[isolate % 4]}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
const ask = { model: "mock", messages: [{ role: "user", content: "what is it" }], max_completion_tokens: 5 };
const call = async (key: string, isolate: number, more: object = {}, signal?: AbortSignal) => {
  const reply = await post("/v1/chat/completions", key, { ...ask, ...more }, isolate, signal);
  return reply.text();
};

interface Compared {
  readonly booked: number;
  readonly metered: number;
  readonly unexplained: number;
}
interface Reconciliation {
  readonly is_balanced: boolean;
  readonly projects: readonly { project_id: string; events: Compared; price: Compared; cost: Compared }[];
  readonly models: readonly { requests: Compared; tokens: Compared; cost: Compared }[];
}
const nowSeconds = () => Math.floor(Date.now() / 1000);
/** The provider's meter is the double's own counter, which nothing in the platform can write. */
async function reconcile(): Promise<Reconciliation> {
  const { calls, promptTokens, completionTokens } = mock.counters;
  const meter = { requests: calls, input_tokens: promptTokens, output_tokens: completionTokens };
  const reply = await post("/v1/tenantry/reconciliations", platform.adminKey, {
    start_time: nowSeconds() - 3_600,
    end_time: nowSeconds() + 3_600,
    project_ids: [ada.projectId, bob.projectId],
    meters: [{ provider_model: "mock", ...meter }],
  });
  expect(reply.status).toBe(200);
  return (await reply.json()) as Reconciliation;
}
async function costsOf(projectId: string): Promise<number> {
  const query = `start_time=${nowSeconds() - 86_400}&project_ids=${projectId}`;
  const reply = await fetch(`${platform.url}/v1/organization/costs?${query}`, {
    headers: { authorization: `Bearer ${platform.adminKey}` },
  });
  const { data } = (await reply.json()) as { data: { results: { amount: { value: number } }[] }[] };
  return data.flatMap(({ results }) => results).reduce((sum, { amount }) => sum + amount.value, 0);
}
/** Changes the ledger behind the platform's back. */
async function tamper(change: string, projectId: string): Promise<() => Promise<void>> {
  const database = await platform.miniflare.getD1Database("DB", "isolate-0");
  const before = await database.prepare("select * from usage_rollup").all<Record<string, string | number>>();
  await database.prepare(`update usage_rollup set ${change} where project_id = ?`).bind(projectId).run();
  return async () => {
    for (const row of before.results) {
      const { requests, price_microdollars, cost_microdollars } = row;
      await database
        .prepare(
          `update usage_rollup set requests = ?, price_microdollars = ?, cost_microdollars = ?
           where project_id = ? and hour = ? and key_id = ? and end_user = ?`,
        )
        .bind(requests, price_microdollars, cost_microdollars, row.project_id, row.hour, row.key_id, row.end_user)
        .run();
    }
  };
}

describe("the books", () => {
  it("balance with the provider's own meter after calls that end in every way", async () => {
    await Promise.all(Array.from({ length: 40 }, (_, index) => call(index % 2 ? ada.key : bob.key, index)));
    await Promise.all(Array.from({ length: 10 }, (_, index) => call(ada.key, index, { stream: true })));
    mock.script({ tokens: 5, usage: null });
    await Promise.all(Array.from({ length: 5 }, (_, index) => call(bob.key, index, { stream: true })));
    mock.script({ status: 500 });
    for (let failed = 0; failed < 3; failed++) await call(ada.key, failed);
    mock.script({ tokens: 5, tokenMs: 20 });
    await Promise.all(
      Array.from({ length: 6 }, async (_, index) => {
        const abort = new AbortController();
        const seen = mock.counters.completionTokens;
        const gone = call(ada.key, index, { stream: true }, abort.signal).catch(() => undefined);
        await mock.until(({ completionTokens }) => completionTokens > seen);
        abort.abort();
        await gone;
      }),
    );
    mock.script({ tokens: 5 });
    await mock.until(({ inFlight }) => inFlight === 0);
    const balanced = async () => {
      const { is_balanced, models, projects } = await reconcile();
      return is_balanced && models[0]?.requests.booked === mock.counters.calls ? projects.length : { models, projects };
    };
    await expect.poll(balanced, { timeout: 5_000 }).toBe(2);
    const { projects } = await reconcile();
    for (const { project_id, price } of projects) {
      expect(price.metered).toBeGreaterThan(0);
      expect(await costsOf(project_id)).toBeCloseTo(price.metered, 9);
    }
  });

  it.each([
    ["a lost event", "requests = requests - 1", "events"],
    [
      "an event that was booked twice",
      "requests = requests + 1, price_microdollars = price_microdollars + 500",
      "price",
    ],
    ["a mispriced event", "price_microdollars = price_microdollars + 1", "price"],
    ["a cost of another version", "cost_microdollars = cost_microdollars * 10", "cost"],
  ] as const)("show %s as unexplained, and balance again without it", async (_, change, where) => {
    const mend = await tamper(change, ada.projectId);
    const { is_balanced, projects, models } = await reconcile();
    expect(is_balanced).toBe(false);
    const at = (id: string) => projects.find(({ project_id }) => project_id === id);
    expect(at(ada.projectId)?.[where].unexplained).not.toBe(0);
    expect(at(bob.projectId)?.[where].unexplained).toBe(0);
    if (where === "cost") expect(models[0]?.cost.unexplained).toBeGreaterThan(0);
    await mend();
    expect((await reconcile()).is_balanced).toBe(true);
  });

  it("show a call that reached the provider past the platform as unexplained", async () => {
    await fetch(`${mock.url}/chat/completions`, { method: "POST", body: JSON.stringify(ask) });
    const { is_balanced, models } = await reconcile();
    expect(is_balanced).toBe(false);
    expect(models[0]?.requests.unexplained).toBe(-1);
  });
});

describe("what projects cost", () => {
  it("is divided to the last micro-dollar, shared costs by weighted tokens", async () => {
    const reply = await post("/v1/tenantry/cost_allocations", platform.adminKey, {
      start_time: nowSeconds() - 3_600,
      end_time: nowSeconds() + 3_600,
      shared_costs: [{ name: "gpu", cost: 1 }],
    });
    const { data } = (await reply.json()) as {
      data: {
        project_id: string;
        price: number;
        direct_cost: number;
        margin: number;
        shared_costs: { cost: number }[];
      }[];
    };
    expect(data.map(({ project_id }) => project_id).sort()).toEqual([ada.projectId, bob.projectId].sort());
    const parts = data.map(({ shared_costs }) => shared_costs[0]?.cost ?? 0);
    expect(parts.reduce((sum, part) => sum + part, 0)).toBeCloseTo(1, 9);
    for (const { price, direct_cost, margin, shared_costs } of data) {
      expect(margin).toBeCloseTo(price - direct_cost - (shared_costs[0]?.cost ?? 0), 9);
    }
  });
});

describe("usage", () => {
  it("is told by end user, and by minute, hour and day, the same each time", async () => {
    const tenant = await operator.createTenant();
    for (const [subject, calls] of Object.entries({ eve: 2, max: 3 })) {
      const minted = await post("/v1/tenantry/end_user_tokens", tenant.key, { subject });
      const { value } = (await minted.json()) as { value: string };
      for (let made = 0; made < calls; made++) await call(value, made);
    }
    await call(tenant.key, 0);
    const usage = async (query: object) => {
      const page = await operator.client.admin.organization.usage.completions({
        start_time: nowSeconds() - 1_800,
        end_time: nowSeconds() + 60,
        project_ids: [tenant.projectId],
        ...query,
      });
      return page.data.flatMap(({ results }) => results) as { num_model_requests: number; user_id: string | null }[];
    };
    const requests = (rows: { num_model_requests: number }[]) =>
      rows.reduce((sum, { num_model_requests }) => sum + num_model_requests, 0);
    const byUser = await usage({ group_by: ["user_id"] });
    expect(Object.fromEntries(byUser.map((row) => [String(row.user_id), row.num_model_requests]))).toEqual({
      ...{ eve: 2, max: 3, null: 1 },
    });
    expect(requests(await usage({ user_ids: ["max"] }))).toBe(3);
    for (const bucket_width of ["1m", "1h", "1d"]) expect(requests(await usage({ bucket_width }))).toBe(6);
  });
});
