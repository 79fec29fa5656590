import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const ISOLATES = 16;
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 2 });
  platform = await startPlatform({
    bundle: "production",
    isolates: ISOLATES,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models: [upstreamModel("mock")] }, LEASE_MAX: 16 },
  });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

interface Answer {
  readonly status: number;
  readonly startedAtMs: number;
  readonly atMs: number;
  /** The gate's last word of what is left; a call that did not ask repeats it. */
  readonly remaining: string | null;
  readonly code: string | undefined;
  readonly limits: readonly {
    readonly rule: string;
    readonly unit: string;
    readonly limit: number;
    readonly settled: number;
    readonly held: number;
  }[];
}
async function call(tenant: Pick<TestTenant, "key">, isolate: number, signal?: AbortSignal): Promise<Answer> {
  const startedAtMs = Date.now();
  const reply = await fetch(`${platform.urls[isolate % ISOLATES]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "hi" }], max_completion_tokens: 2 }),
    ...(signal ? { signal } : {}),
  });
  const body = (await reply.json()) as { error?: { code: string; limits?: Answer["limits"] } };
  const remaining = reply.headers.get("x-ratelimit-remaining-requests");
  const { code, limits = [] } = body.error ?? {};
  return { status: reply.status, startedAtMs, atMs: Date.now(), remaining, code, limits };
}
/** So many callers, each on its own isolate, one call after another, until told to stop. */
async function traffic(tenant: Pick<TestTenant, "key">, callers: number, calls: number): Promise<Answer[]> {
  const lanes = Array.from({ length: callers }, async (_, lane) => {
    const answers: Answer[] = [];
    for (let made = 0; made < calls; made++) answers.push(await call(tenant, lane));
    return answers;
  });
  return (await Promise.all(lanes)).flat();
}
async function limitsOf(tenant: TestTenant) {
  const reply = await fetch(`${platform.url}/v1/tenantry/limits`, {
    headers: { authorization: `Bearer ${tenant.key}` },
  });
  return (await reply.json()) as {
    in_flight: { running: number };
    limits: { rule: string; model: string; settled: number; held: number }[];
  };
}

describe("sixteen isolates with leases", () => {
  it("let through the whole limit and not one more, refuse nobody falsely, and hold nothing afterwards", async () => {
    const limit = 400;
    const tenant = await operator.createTenant({
      requestsPerMinute: limit,
      tokensPerMinute: 100_000_000,
      model: "mock",
    });
    const state = async () => (await limitsOf(tenant)).limits.find(({ rule }) => rule === "requests_per_minute");
    const asked = mock.counters.calls;
    // Half of it, and a pause: what lies unused in leases must come back, or it is missing at the end.
    const first = await traffic(tenant, ISOLATES, 12);
    expect(first.map(({ status }) => status)).toEqual(first.map(() => 200));
    await expect.poll(state, { timeout: 5_000 }).toMatchObject({ settled: first.length, held: 0 });
    const answers = [...first, ...(await traffic(tenant, ISOLATES, 30))];
    const served = answers.filter(({ status }) => status === 200);
    const refused = answers.filter(({ status }) => status === 429);
    expect(served.length + refused.length).toBe(answers.length);
    expect(served).toHaveLength(limit);
    expect(mock.counters.calls - asked, "no call reached its model that was not answered").toBe(limit);
    const firstRefusedAtMs = Math.min(...refused.map(({ atMs }) => atMs));
    expect(
      served.filter(({ startedAtMs }) => startedAtMs > firstRefusedAtMs),
      "refused while there was room",
    ).toEqual([]);
    for (const { code, limits } of refused) {
      expect(code).toBe("rate_limit_exceeded");
      const rule = limits.find((one) => one.rule === "requests_per_minute");
      expect((rule?.settled ?? 0) + (rule?.held ?? 0), "used up, neither less nor more").toBe(limit);
    }
    const words = new Set(served.map(({ remaining }) => remaining));
    expect(words.size, "leases are drawn on, not only asked for").toBeLessThan(served.length * 0.75);
    await expect.poll(state, { timeout: 5_000 }).toMatchObject({ settled: limit, held: 0 });
    expect((await limitsOf(tenant)).in_flight.running).toBe(0);
    expect((await operator.usage(tenant.projectId)).requests).toBe(limit);
  });

  it("admit most calls of a busy key without asking its gate", async () => {
    const tenant = await operator.createTenant({
      requestsPerMinute: 1_000_000,
      tokensPerMinute: 1_000_000_000,
      model: "mock",
    });
    const headers = { authorization: `Bearer ${tenant.key}` };
    const body = JSON.stringify({
      model: "mock",
      messages: [{ role: "user", content: "hi" }],
      max_completion_tokens: 2,
    });
    const remaining = new Set<string | null>();
    const calls = 300;
    for (let made = 0; made < calls; made++) {
      const reply = await fetch(`${platform.url}/v1/chat/completions`, { method: "POST", headers, body });
      expect(reply.status).toBe(200);
      // The state of the limits is the gate's last word; a call that did not ask repeats it.
      remaining.add(reply.headers.get("x-ratelimit-remaining-tokens"));
      await reply.arrayBuffer();
    }
    expect(remaining.size).toBeLessThan(calls / 4);
    expect((await operator.usage(tenant.projectId)).requests).toBe(calls);
  });

  it("refuse a revoked key, all of them, within a second, in the middle of its traffic", async () => {
    const tenant = await operator.createTenant({
      requestsPerMinute: 1_000_000,
      tokensPerMinute: 1_000_000_000,
      model: "mock",
    });
    let running = true;
    const seen: Answer[] = [];
    const lanes = Array.from({ length: ISOLATES }, async (_, lane) => {
      while (running) seen.push(await call(tenant, lane));
    });
    await expect.poll(() => seen.length > 100).toBe(true);
    await operator.client.admin.organization.projects.apiKeys.delete(tenant.keyId, { project_id: tenant.projectId });
    const revokedAtMs = Date.now();
    await expect.poll(() => Date.now() - revokedAtMs > 1_500, { timeout: 5_000 }).toBe(true);
    running = false;
    await Promise.all(lanes);
    const late = seen.filter(({ status, atMs }) => status === 200 && atMs > revokedAtMs + 1_000);
    expect(late).toEqual([]);
    expect(seen.filter(({ status }) => status === 401).length).toBeGreaterThan(ISOLATES);
  });

  it("bill each call once when callers go away in the middle, and hold nothing of them", async () => {
    const tenant = await operator.createTenant({
      requestsPerMinute: 1_000_000,
      tokensPerMinute: 1_000_000_000,
      model: "mock",
    });
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const abort = new AbortController();
        if (index % 3 === 0) setTimeout(() => abort.abort(), index % 7);
        return call(tenant, index, abort.signal).catch(() => undefined);
      }),
    );
    const state = async () =>
      (await limitsOf(tenant)).limits.filter(({ model }) => model === "mock").map(({ held }) => held);
    await expect.poll(state, { timeout: 3_000 }).toEqual([0, 0]);
    const whole = answers.filter((answer) => answer?.status === 200).length;
    const { requests } = await operator.usage(tenant.projectId);
    expect(requests).toBeGreaterThanOrEqual(whole);
    expect(requests).toBeLessThanOrEqual(200);
    const decided = await fetch(`${platform.url}/v1/tenantry/decisions?limit=100`, {
      headers: { authorization: `Bearer ${tenant.key}` },
    });
    const ids = ((await decided.json()) as { data: { request_id: string }[] }).data.map(({ request_id }) => request_id);
    expect(new Set(ids).size).toBe(ids.length);
  });
});
