import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
let tenant: TestTenant;
let made = 0;

beforeAll(async () => {
  const models = ["one", "two", "three", "four", "five"].map((name) => upstreamModel(name, { max_in_flight: 1 }));
  const vars = {
    MODEL_CATALOGUE: { version: "1", models: [...models, upstreamModel("plenty")] },
    UPSTREAM_TIMEOUT_MS: 2_000,
  };
  platform = await startPlatform({ bundle: "production", isolates: 2, vars });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

const admin = async (method: string, path: string, body?: object) => {
  const reply = await fetch(`${platform.url}/v1/tenantry/models/${path}`, {
    method,
    headers: { authorization: `Bearer ${platform.adminKey}` },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return {
    status: reply.status,
    body: (await reply.json()) as {
      id: string;
      data: { id: string; state: string; in_flight: number }[];
      queue_depth: number;
      error?: { code: string; param: string };
    },
  };
};
const join = async (model: string, mock: MockUpstream, maxInFlight = 2) =>
  (await admin("POST", `${model}/endpoints`, { url: mock.url, max_in_flight: maxInFlight })).body.id;
const states = async (model: string) => (await admin("GET", `${model}/endpoints`)).body.data;
const call = (model: string, more: object = {}) =>
  fetch(`${platform.urls[made++ % 2]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "hi" }], max_completion_tokens: 5, ...more }),
  });

describe("a model with several endpoints", () => {
  it("spreads its calls over all of them, never more to one than it takes", async () => {
    const mocks = await Promise.all([0, 1, 2].map(() => MockUpstream.start({ firstByteMs: 20 })));
    for (const mock of mocks) await join("one", mock);
    const replies = await Promise.all(Array.from({ length: 30 }, () => call("one")));
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200));
    for (const { counters } of mocks) {
      expect(counters.maxInFlight).toBeLessThanOrEqual(2);
      expect(counters.calls).toBeGreaterThan(3);
    }
    await Promise.all(mocks.map((mock) => mock.stop()));
  });

  it("fails over before the first token: callers notice nothing, and the endpoint that is gone is left alone", async () => {
    const [well, gone] = [await MockUpstream.start(), await MockUpstream.start()];
    const lost = await join("two", gone, 4); // of two that are idle, the one that joined first is asked first
    await join("two", well, 4);
    await gone.stop();
    for (let calls = 0; calls < 20; calls++) expect((await call("two")).status).toBe(200);
    const state = (await states("two")).find(({ id }) => id === lost);
    expect(state).toMatchObject({ state: "open" });
    expect(well.counters.calls).toBe(20);
    await well.stop();
  });

  it("does not fail over after the first token: the stream breaks, and nothing is said twice", async () => {
    const [breaks, other] = [await MockUpstream.start(), await MockUpstream.start()];
    breaks.script({ cutAfter: 2 });
    await join("three", breaks, 4);
    const stream = await (async () => {
      const reply = await call("three", { stream: true });
      await join("three", other, 4);
      return reply.text();
    })();
    expect(stream).toContain('"error"');
    expect(stream).not.toContain("[DONE]");
    expect(other.counters.calls).toBe(0);
    await Promise.all([breaks.stop(), other.stop()]);
  });

  it("loses no call when one of them leaves, and serves those who wait when one joins", async () => {
    const [stays, leaves] = [
      await MockUpstream.start({ firstByteMs: 30 }),
      await MockUpstream.start({ firstByteMs: 30 }),
    ];
    await join("four", stays, 1);
    const leaving = await join("four", leaves, 1);
    const replies = Array.from({ length: 12 }, () => call("four"));
    await expect.poll(() => leaves.counters.inFlight).toBe(1);
    expect((await admin("DELETE", `four/endpoints/${leaving}`)).status).toBe(200);
    const seen = leaves.counters.calls;
    const joined = await MockUpstream.start({ firstByteMs: 5 });
    await join("four", joined, 4);
    expect((await Promise.all(replies)).map(({ status }) => status)).toEqual(replies.map(() => 200));
    expect(leaves.counters.calls).toBe(seen);
    expect(joined.counters.calls).toBeGreaterThan(0);
    expect((await states("four")).map(({ id }) => id)).not.toContain(leaving);
    expect((await admin("GET", "four/endpoints")).body.queue_depth).toBe(0);
    await Promise.all([stays.stop(), leaves.stop(), joined.stop()]);
  });

  it("is told by name what is wrong with an endpoint", async () => {
    expect(await admin("GET", "nothing/endpoints")).toMatchObject({ status: 404 });
    expect(await admin("POST", "plenty/endpoints", { url: "http://x", max_in_flight: 1 })).toMatchObject({
      status: 400,
      body: { error: { param: "model" } },
    });
    expect(await admin("POST", "five/endpoints", { url: "ftp://x", max_in_flight: 1 })).toMatchObject({
      status: 400,
      body: { error: { param: "url" } },
    });
    expect(await admin("POST", "five/endpoints", { url: "http://x", max_in_flight: 0 })).toMatchObject({
      status: 400,
      body: { error: { param: "max_in_flight" } },
    });
    expect(await admin("DELETE", "five/endpoints/ep_none")).toMatchObject({
      status: 404,
      body: { error: { param: "endpoint_id" } },
    });
    expect(await admin("GET", "five/endpoints?region=mars")).toMatchObject({
      status: 400,
      body: { error: { param: "region" } },
    });
  });
});
