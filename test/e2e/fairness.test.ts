import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const SLOTS = 2;
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 4, firstByteMs: 15 });
  const models = [upstreamModel("scarce", { max_in_flight: SLOTS }), upstreamModel("plenty")];
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models } };
  platform = await startPlatform({ bundle: "production", isolates: 4, vars });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

const call = async (tenant: TestTenant, index: number, model = "scarce", signal?: AbortSignal) => {
  const reply = await fetch(`${platform.urls[index % 4]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "hi" }], max_completion_tokens: 4 }),
    ...(signal ? { signal } : {}),
  });
  await reply.arrayBuffer();
  return reply.status;
};
const limits = { requestsPerMinute: 100_000, tokensPerMinute: 100_000_000 };

describe("a model with two slots", () => {
  it("never runs more than two calls at once, whoever asks from wherever", async () => {
    const tenants = [
      await operator.createTenant({ ...limits, model: "scarce" }),
      await operator.createTenant({ ...limits, model: "scarce" }),
    ];
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, mock.counters.inFlight);
    }, 1);
    const statuses = await Promise.all(
      Array.from({ length: 40 }, (_, index) => call(tenants[index % 2] as TestTenant, index)),
    );
    clearInterval(watch);
    expect(statuses).toEqual(statuses.map(() => 200));
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(SLOTS);
  });

  it("serves a quiet tenant between the calls of one that floods it: it waits for a few, not for all", async () => {
    const [flood, quiet] = [
      await operator.createTenant({ ...limits, model: "scarce" }),
      await operator.createTenant({ ...limits, model: "scarce" }),
    ];
    await fetch(`${platform.url}/v1/tenantry/projects/${flood.projectId}/limits`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.adminKey}` },
      body: JSON.stringify({ in_flight: 1_000 }),
    });
    const calls = 120;
    let flooded = 0;
    const storm = Array.from({ length: calls }, (_, index) =>
      call(flood, index).then((status) => {
        flooded++;
        return status;
      }),
    );
    await expect.poll(() => flooded).toBeGreaterThan(1);
    const waitedFor: number[] = [];
    for (let made = 0; made < 3; made++) {
      const before = flooded;
      expect(await call(quiet, made)).toBe(200);
      waitedFor.push(flooded - before);
    }
    // In the order of arrival the first of them would have waited for nearly all of the flood.
    expect(Math.max(...waitedFor)).toBeLessThan(calls / 4);
    expect(flooded).toBeLessThan(calls);
    expect(await Promise.all(storm)).toEqual(storm.map(() => 200));
  });

  it("frees the slot of a caller that goes away, waiting or running", async () => {
    const tenant = await operator.createTenant({ ...limits, model: "scarce" });
    const aborts = Array.from({ length: 12 }, () => new AbortController());
    const calls = aborts.map((abort, index) => call(tenant, index, "scarce", abort.signal).catch(() => 0));
    for (const abort of aborts) abort.abort();
    await Promise.all(calls);
    const statuses = await Promise.all(Array.from({ length: 6 }, (_, index) => call(tenant, index)));
    expect(statuses).toEqual(statuses.map(() => 200));
  });

  it("leaves models that scale by themselves alone", async () => {
    const tenant = await operator.createTenant({ ...limits, model: "plenty" });
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, mock.counters.inFlight);
    }, 1);
    await Promise.all(Array.from({ length: 20 }, (_, index) => call(tenant, index, "plenty")));
    clearInterval(watch);
    expect(most).toBeGreaterThan(SLOTS);
  });
});
