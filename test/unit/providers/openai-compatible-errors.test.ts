import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openaiCompatible, type UpstreamOptions } from "../../../src/inference/providers/openai-compatible";
import { MockUpstream, type Script } from "../../mock-upstream";
import { chatCall, chatModel, collected, embeddingModel, failureOf, never } from "./calls";

let mock: MockUpstream;
const model = chatModel("openai-compatible", "mock");

beforeEach(async () => {
  mock = await MockUpstream.start();
});
afterEach(async () => {
  await mock.stop();
});

const provider = (more: Partial<UpstreamOptions> = {}) =>
  openaiCompatible({ baseUrl: mock.url, apiKey: null, timeoutMs: 20_000, fetch, ...more });

async function failureWith(script: Script) {
  mock.script(script);
  return failureOf(async () => collected(await provider().chat(chatCall(model), never)));
}

describe("an HTTP error", () => {
  const coded = (code: string, message = "") => JSON.stringify({ error: { message, type: "some_error", code } });

  it.each([
    [400, "{}", "bad_input"],
    [400, coded("context_length_exceeded"), "context_length"],
    [400, "This model's maximum context length is 4096 tokens", "context_length"],
    [500, coded("500", "the request exceeds the available context size"), "context_length"],
    [401, coded("invalid_api_key"), "unauthorized"],
    [403, "{}", "unauthorized"],
    [404, coded("model_not_found"), "unknown_model"],
    [405, "{}", "broken"],
    [408, "", "capacity"],
    [413, "{}", "bad_input"],
    [422, '{"detail":"nope"}', "bad_input"],
    [429, "Too Many Requests", "capacity"],
    [429, coded("insufficient_quota"), "quota"],
    [429, coded("rate_limit_exceeded", "tokens per minute; context length"), "quota"],
    [500, "<html>", "broken"],
    [502, "", "broken"],
    [503, "{}", "capacity"],
    [504, "", "broken"],
  ])("%i with %j is told as %s", async (status, errorBody, failure) => {
    expect((await failureWith({ status, errorBody })).failure).toBe(failure);
    const embed = () => provider().embed({ model: embeddingModel("openai-compatible", 3), inputs: ["a"] }, never);
    expect((await failureOf(embed)).failure).toBe(failure);
  });

  it("keeps its code and nothing of its text, which may quote the prompt", async () => {
    const failure = await failureWith({ status: 500, errorBody: coded("overheated", "secret prompt on host-7") });
    expect(failure.detail.providerCode).toBe("overheated");
    expect(`${failure.message} ${JSON.stringify(failure.detail)}`).not.toMatch(/secret|host-7/);
    const spoken = await failureWith({ status: 500, errorBody: coded("a secret prompt, not a code") });
    expect(`${spoken.message} ${JSON.stringify(spoken.detail)}`).not.toContain("secret");
  });

  it.each([
    ["7", 7_000],
    ["0", 0],
    ["Mon, 23 Nov 2026 12:00:30 GMT", 30_000],
    ["Mon, 23 Nov 2026 11:00:00 GMT", 0],
    ["999999999", 3_600_000],
    ["soon", undefined],
    ["-1", undefined],
  ])("tells how long to wait: %s", async (value, expected) => {
    vi.useFakeTimers({ now: Date.UTC(2026, 10, 23, 12), toFake: ["Date"] });
    const failure = await failureWith({ status: 503, headers: { "retry-after": value } });
    vi.useRealTimers();
    expect(failure.detail.retryAfterMs).toBe(expected);
  });

  it("that explains itself without end, or not at all, is told by its status", async () => {
    let isClosed = false;
    const cancel = () => {
      isClosed = true;
    };
    const endless = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(16_384).fill(32)),
      cancel,
    });
    const silent = new ReadableStream({ cancel });
    for (const body of [endless, silent]) {
      isClosed = false;
      const upstream = provider({ timeoutMs: 30, fetch: async () => new Response(body, { status: 503 }) });
      expect((await failureOf(() => upstream.chat(chatCall(model), never))).failure).toBe("capacity");
      expect(isClosed).toBe(true);
    }
  });

  it("of a redirect is broken, and nobody is sent anywhere", async () => {
    const elsewhere = await MockUpstream.start();
    const failure = await failureWith({ status: 307, headers: { location: `${elsewhere.url}/chat/completions` } });
    expect([failure.failure, elsewhere.counters.calls]).toEqual(["broken", 0]);
    await elsewhere.stop();
  });

  it("of nobody listening is broken, without saying where", async () => {
    const { url } = mock;
    const failure = await failureOf(() =>
      provider({ baseUrl: url.replace(/:\d+/, ":1") }).chat(chatCall(model), never),
    );
    expect(failure.failure).toBe("broken");
    expect(failure.message).not.toContain("127.0.0.1");
  });
});
