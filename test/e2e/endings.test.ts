import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** How a request can end, and what it leaves: always one usage event and one decision, and nothing held. */
let platform: Platform;
let mock: MockUpstream;
let operator: Operator;
let tenant: TestTenant;

beforeAll(async () => {
  mock = await MockUpstream.start();
  const catalogue = { version: "endings", models: [upstreamModel("mock", { default_max_output_tokens: 1_000 })] };
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: catalogue, UPSTREAM_TIMEOUT_MS: "400" };
  platform = await startPlatform({ bundle: "production", vars });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(async () => {
  tenant = await operator.createTenant();
  mock.script({});
});

const ask = (more: object, signal?: AbortSignal) =>
  fetch(`${platform.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "count to ten" }], ...more }),
    ...(signal ? { signal } : {}),
  });

async function decisions() {
  const page = (await tenant.client.get("/tenantry/decisions")) as {
    data: { outcome: string; usage: { prompt_tokens: number; completion_tokens: number } }[];
  };
  return page.data;
}

describe("a client that leaves in the middle of a stream", () => {
  it("stops the model, and pays for the prompt and what was made until then: never nothing, never the maximum", async () => {
    mock.script({ tokens: 500, tokenMs: 10 });
    const abort = new AbortController();
    const reply = await ask({ stream: true }, abort.signal);
    const reader = reply.body?.getReader();
    for (let chunks = 0; chunks < 5; chunks++) await reader?.read();
    const aborted = mock.counters.aborted;
    abort.abort();
    await expect.poll(() => mock.counters.aborted).toBe(aborted + 1);
    await expect.poll(decisions).toHaveLength(1);
    const [decision] = await decisions();
    expect(decision?.outcome).toBe("cancelled");
    expect(decision?.usage.prompt_tokens).toBeGreaterThan(0);
    expect(decision?.usage.completion_tokens).toBeGreaterThanOrEqual(4);
    expect(decision?.usage.completion_tokens).toBeLessThan(60);
  });
});

describe("a provider that fails", () => {
  it.each([
    [
      "before the first token, as an error reply",
      { status: 500, errorBody: '{"error":"secret host"}' },
      502,
      "model_error",
    ],
    ["with a full house, as a retryable 503", { status: 429 }, 503, "model_overloaded"],
    [
      "by a context that is too short",
      { status: 400, errorBody: "maximum context length is 4096" },
      400,
      "context_length_exceeded",
    ],
    ["by silence", { hang: true }, 504, "model_timeout"],
    ["with rubbish", { rawBody: "<html>" }, 502, "model_error"],
  ])("%s, and bills nothing", async (_, script, status, code) => {
    mock.script(script);
    const reply = await ask({});
    const text = await reply.text();
    expect([reply.status, JSON.parse(text).error.code]).toEqual([status, code]);
    expect(text).not.toContain("secret");
    expect(await decisions()).toMatchObject([
      { outcome: "provider_error", usage: { completion_tokens: 0, prompt_tokens: 0 } },
    ]);
  });

  it("in mid-stream, as an error event without [DONE], and bills what was made", async () => {
    mock.script({ tokens: 20, cutAfter: 6, tokenMs: 5 });
    const text = await (await ask({ stream: true })).text();
    expect(text).toContain('"code":"model_error"');
    expect(text).not.toContain("[DONE]");
    expect(await decisions()).toMatchObject([{ outcome: "provider_error", usage: { completion_tokens: 6 } }]);
  });
});

describe("a provider that cannot count", () => {
  it("reports no usage, so that the tap's own count stands", async () => {
    mock.script({ tokens: 7, usage: null });
    await (await ask({ stream: true })).text();
    expect((await decisions())[0]?.usage.completion_tokens).toBe(7);
  });

  it.each([
    ["negative", { prompt_tokens: -5, completion_tokens: 3 }],
    ["beyond any model", { prompt_tokens: 5, completion_tokens: 1e12 }],
    ["half a token", { prompt_tokens: 5, completion_tokens: 0.5 }],
  ])("reports usage that is %s: it is rejected and flagged, and the tap's own count stands", async (_, usage) => {
    for (const stream of [true, false]) {
      mock.script({ tokens: 7, usage });
      await (await ask({ stream })).text();
      const [flag, call] = await decisions();
      expect(flag).toMatchObject({ kind: "alert", rule: "usage_rejected" });
      expect(call).toMatchObject({ kind: "model_call", outcome: "completed" });
      expect(call?.usage.completion_tokens).toBeGreaterThanOrEqual(stream ? 7 : 1);
    }
  });

  it("reports less than what has come: it is flagged, and our own count stands", async () => {
    for (const completion_tokens of [0, 2]) {
      mock.script({ tokens: 7, usage: { prompt_tokens: 3, completion_tokens } });
      await (await ask({ stream: true })).text();
      const [flag, call] = await decisions();
      expect(flag).toMatchObject({ kind: "alert", rule: "usage_rejected" });
      expect(call).toMatchObject({ kind: "model_call", usage: { completion_tokens: 7 } });
    }
  });

  it("reports none for a whole reply, whose length then tells", async () => {
    mock.script({ text: "a word and another word ".repeat(20), usage: null });
    await (await ask({ stream: false })).text();
    expect((await decisions())[0]?.usage.completion_tokens).toBeGreaterThan(80);
  });

  it("ignores its cap, and is cut near the cap; what is billed is the cap", async () => {
    mock.script({ tokens: 50, ignoreCap: true, tokenMs: 1 });
    const reply = await ask({ stream: true, max_completion_tokens: 8 });
    const text = await reply.text();
    const words = text.match(/"content"/g)?.length ?? 0;
    expect(words).toBeGreaterThanOrEqual(8);
    expect(words).toBeLessThanOrEqual(8 * 1.25 + 4); // its tokenizer may be another one
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toContain("[DONE]");
    expect((await decisions())[0]).toMatchObject({ outcome: "completed", usage: { completion_tokens: 8 } });
  });
});

describe("tools", () => {
  it("pass through to a model that has them, and their calls come back, streamed or not", async () => {
    mock.script({ toolCalls: [{ name: "look_up", arguments: '{"id":1}' }] });
    const tools = [{ type: "function" as const, function: { name: "look_up", parameters: { type: "object" } } }];
    const body = { model: "mock", messages: [{ role: "user" as const, content: "look" }], tools };
    const whole = await tenant.client.chat.completions.create(body);
    expect(whole.choices[0]).toMatchObject({
      finish_reason: "tool_calls",
      message: {
        content: null,
        tool_calls: [{ type: "function", function: { name: "look_up", arguments: '{"id":1}' } }],
      },
    });
    const streamed = await tenant.client.chat.completions.stream(body).finalChatCompletion();
    expect(streamed.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      function: { name: "look_up", arguments: '{"id":1}' },
    });
    expect(mock.requests.at(-1)?.body).toMatchObject({ tools });
  });
});
