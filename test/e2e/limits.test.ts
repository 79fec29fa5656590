import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

const ISOLATES = 4;
let platform: Platform;
let operator: Operator;

beforeAll(async () => {
  platform = await startPlatform({ isolates: ISOLATES });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(() => platform.stop());

const body = (maxTokens: number) =>
  JSON.stringify({
    model: "tiny-support-lm",
    messages: [{ role: "user", content: "hi" }],
    max_completion_tokens: maxTokens,
  });

/** Calls as the tenant, spread over the isolates. */
const call = (tenant: TestTenant, index: number) =>
  fetch(`${platform.urls[index % ISOLATES]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: body(1),
  });

describe("a limit of 50 requests a minute", () => {
  it("admits exactly 50 of 200 parallel requests from several isolates, and leaves another tenant unharmed", async () => {
    const [busy, quiet] = [await operator.createTenant({ requestsPerMinute: 50 }), await operator.createTenant()];
    const replies = await Promise.all(Array.from({ length: 200 }, (_, index) => call(busy, index)));
    const others = await Promise.all(Array.from({ length: 10 }, (_, index) => call(quiet, index)));
    const refused = replies.filter((reply) => reply.status === 429);
    expect(replies.filter((reply) => reply.status === 200)).toHaveLength(50);
    expect(refused).toHaveLength(150);
    for (const reply of refused) {
      const { error } = (await reply.json()) as { error: { message: string; code: string } };
      expect(error.code).toBe("rate_limit_exceeded");
      expect(error.message).toContain("requests_per_minute");
      const retryAfter = Number(reply.headers.get("retry-after"));
      expect(retryAfter).toBeGreaterThan(50); // the window is a minute, and it has just begun
      expect(retryAfter).toBeLessThanOrEqual(61);
    }
    expect(others.every((reply) => reply.status === 200)).toBe(true);
    expect((await operator.usage(busy.projectId)).requests).toBe(50);
  });

  it("keeps a flood of refusals to one record a second for each rule, with their count", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 0 });
    await Promise.all(Array.from({ length: 60 }, (_, index) => call(tenant, index)));
    const refusals = async () => {
      const page = (await tenant.client.get("/tenantry/decisions")) as {
        data: { kind: string; rule: string; count: number }[];
      };
      return page.data;
    };
    await expect
      .poll(async () => (await refusals()).reduce((sum, record) => sum + record.count, 0), { timeout: 5_000 })
      .toBe(60);
    const records = await refusals();
    expect(records.length).toBeLessThanOrEqual(3);
    expect(records[0]).toMatchObject({ kind: "refusal", rule: "requests_per_minute" });
  });
});

describe("the official client's own retries", () => {
  it("cause at most three times the traffic, and nobody is billed twice", async () => {
    const tenant = await operator.createTenant({ requestsPerMinute: 30 });
    let attempts = 0;
    const counted: typeof fetch = (...request) => {
      attempts++;
      return fetch(...request);
    };
    // The wait that a 429 asks for is shortened to nothing: what counts here is how often the client comes back.
    const impatient = tenant.client.withOptions({
      fetch: async (...request: Parameters<typeof fetch>) => {
        const reply = await counted(...request);
        if (reply.status !== 429) return reply;
        const headers = new Headers(reply.headers);
        headers.delete("retry-after");
        headers.set("retry-after-ms", "1");
        return new Response(reply.body, { status: 429, headers });
      },
    });
    const ask = () =>
      impatient.chat.completions.create({
        model: "tiny-support-lm",
        messages: [{ role: "user", content: "hi" }],
        max_completion_tokens: 1,
      });
    const results = await Promise.allSettled(Array.from({ length: 200 }, ask));
    const succeeded = results.filter((result) => result.status === "fulfilled").length;
    expect(succeeded).toBe(30);
    expect(attempts).toBeGreaterThan(200);
    expect(attempts).toBeLessThanOrEqual(600);
    expect((await operator.usage(tenant.projectId)).requests).toBe(succeeded);
  });
});

describe("a limit of tokens a minute", () => {
  it("refuses what can never fit with advice instead of a wait", async () => {
    const tenant = await operator.createTenant({ tokensPerMinute: 100 });
    const reply = await fetch(`${platform.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${tenant.key}` },
      body: body(500),
    });
    expect(reply.status).toBe(429);
    expect(reply.headers.get("x-should-retry")).toBe("false");
    expect(((await reply.json()) as { error: { message: string } }).error.message).toContain("tokens_per_minute");
  });

  it("lowers a cap that the caller did not name, and says so", async () => {
    const tenant = await operator.createTenant({ tokensPerMinute: 150 });
    const ask = { model: "tiny-support-lm", messages: [{ role: "user" as const, content: "hi" }] };
    const { response, data } = await tenant.client.chat.completions.create(ask).withResponse();
    const cap = Number(response.headers.get("x-max-output-tokens"));
    expect(cap).toBeLessThan(128);
    expect(cap).toBeGreaterThanOrEqual(16);
    expect(data.usage?.completion_tokens).toBeLessThanOrEqual(cap);
  });
});
