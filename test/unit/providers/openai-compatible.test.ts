import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ChatCall } from "../../../src/inference/provider";
import { openaiCompatible, type UpstreamOptions } from "../../../src/inference/providers/openai-compatible";
import { MockUpstream, type Script } from "../../mock-upstream";
import {
  anyCuts,
  chatCall,
  chatModel,
  collected,
  failureOf,
  finishesIn,
  never,
  streamOf,
  textIn,
  toolCallsIn,
  usageIn,
} from "./calls";

let mock: MockUpstream;
const model = chatModel("openai-compatible", "mock", ["tools", "logprobs"]);

beforeEach(async () => {
  mock = await MockUpstream.start();
});
afterEach(async () => {
  await mock.stop();
});

const provider = (more: Partial<UpstreamOptions> = {}) =>
  openaiCompatible({ baseUrl: mock.url, apiKey: null, timeoutMs: 20_000, fetch, ...more });

async function chatted(script: Script, more: Partial<ChatCall> = {}) {
  mock.script(script);
  return collected(await provider().chat(chatCall(model, more), never));
}
/** The deltas of a stream of these bytes, whose connection then ends, stays open or breaks. */
async function repliedWith(text: string, then: "end" | "open" | "break" = "end") {
  let isSent = false;
  const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    if (!isSent) controller.enqueue(new TextEncoder().encode(text));
    else if (then === "end") controller.close();
    else if (then === "break") controller.error(new Error("reset"));
    isSent = true;
  };
  const answer = async () => new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
  return collected(await provider({ fetch: answer }).chat(chatCall(model), never));
}
const failureWith = (script: Script, more: Partial<ChatCall> = {}) => failureOf(() => chatted(script, more));

describe.each([
  ["a stream", true],
  ["a whole reply", false],
])("%s", (_, stream) => {
  it("becomes text, ends and the usage, in this order", async () => {
    const deltas = await chatted({ text: "Hello there." }, { stream });
    expect(textIn(deltas)).toBe("Hello there.");
    expect(deltas.slice(-2)).toEqual([
      { type: "finish", choice: 0, reason: "stop" },
      { type: "usage", promptTokens: 1, completionTokens: 2, cachedTokens: 0 },
    ]);
  });

  it("ends by length where the cap was reached, and the cap is always sent", async () => {
    const deltas = await chatted({ tokens: 50 }, { stream, maxOutputTokens: 7 });
    expect(finishesIn(deltas)).toMatchObject([{ reason: "length" }]);
    expect(usageIn(deltas)).toMatchObject({ completionTokens: 7 });
    expect(mock.requests.at(-1)?.body).toMatchObject({ max_tokens: 7 });
  });

  it("keeps several choices apart", async () => {
    const deltas = await chatted({ text: "a b" }, { stream, choices: 3 });
    expect([0, 1, 2].map((choice) => textIn(deltas, choice))).toEqual(["a b", "a b", "a b"]);
    expect(finishesIn(deltas).map(({ choice }) => choice)).toEqual([0, 1, 2]);
    expect(usageIn(deltas)).toMatchObject({ completionTokens: 6 });
  });

  it("brings tool calls, and ends by them even where the server says stop", async () => {
    const toolCalls = [
      { name: "look_up", arguments: '{"id":1}' },
      { name: "count", arguments: "{}" },
    ];
    const deltas = await chatted({ toolCalls, finishReason: "stop" }, { stream });
    expect(toolCallsIn(deltas)).toEqual([
      { type: "tool_call", choice: 0, index: 0, id: "call_0", name: "look_up", arguments: '{"id":1}' },
      { type: "tool_call", choice: 0, index: 1, id: "call_1", name: "count", arguments: "{}" },
    ]);
    expect(finishesIn(deltas)).toMatchObject([{ reason: "tool_calls" }]);
  });

  it("keeps a refusal apart from text", async () => {
    const written = { content: null, refusal: "I will not." };
    const choice = { index: 0, finish_reason: "stop", ...(stream ? { delta: written } : { message: written }) };
    const reply = JSON.stringify({ choices: [choice] });
    const headers = { "content-type": stream ? "text/event-stream" : "application/json" };
    const rawBody = stream ? `data: ${reply}\n\n` : reply;
    const deltas = await chatted({ rawBody, headers }, { stream });
    expect(deltas[0]).toEqual({ type: "refusal", choice: 0, text: "I will not." });
    expect(textIn(deltas)).toBe("");
  });

  it("passes log probabilities on with their text", async () => {
    const deltas = await chatted({ text: "a b", logprobs: true }, { stream, logprobs: true });
    const scores = deltas.flatMap((delta) => (delta.type === "text" ? (delta.logprobs as { token: string }[]) : []));
    expect(scores.map(({ token }) => token)).toEqual(["a", " b"]);
  });

  it("keeps reasoning apart from text", async () => {
    const deltas = await chatted({ text: "so", reasoningTokens: 4 }, { stream });
    expect(textIn(deltas)).toBe("so");
    expect(deltas.map((delta) => (delta.type === "reasoning" ? delta.text : "")).join("")).toBe("hm hm hm hm ");
    expect(usageIn(deltas)).toMatchObject({ completionTokens: 5 });
  });

  it("is complete without usage", async () => {
    const deltas = await chatted({ usage: null }, { stream });
    expect(deltas.at(-1)).toEqual({ type: "finish", choice: 0, reason: "stop" });
  });

  it.each([
    [{ prompt_tokens: -5, completion_tokens: 1e12 }],
    [{ prompt_tokens: 1.5, completion_tokens: 3 }],
    [{ prompt_tokens: 1e300, completion_tokens: 3 }],
    ["many"],
  ])("drops absurd usage: %j", async (usage) => {
    expect(usageIn(await chatted({ usage }, { stream }))).toBeUndefined();
  });

  it.each([
    ["is cut off", { cutAfter: 2 }],
    ["is no JSON", { rawBody: "<html>", headers: { "content-type": "text/html" } }],
    ["is JSON of another kind", { rawBody: "[]" }],
    ["has no choices", { rawBody: '{"choices":[]}' }],
    ["has more choices than asked for", { rawBody: '{"choices":[{"index":4,"message":{"content":"x"}}]}' }],
    ["has no end", { rawBody: '{"choices":[{"index":0,"message":{"content":"x"}}]}' }],
    ["says that it failed", { finishReason: "error" }],
  ])("that %s is broken", async (_, script) => {
    expect((await failureWith(script, { stream })).failure).toBe("broken");
  });

  it("that never begins is a timeout, and its connection is closed", async () => {
    mock.script({ hang: true });
    const chat = () => provider({ timeoutMs: 30 }).chat(chatCall(model, { stream }), never);
    expect((await failureOf(chat)).failure).toBe("timeout");
    await mock.until(({ aborted }) => aborted === 1);
  });

  it("that is stopped before it begins is aborted, and its connection is closed", async () => {
    mock.script({ hang: true });
    const stop = new AbortController();
    const waiting = failureOf(() => provider().chat(chatCall(model, { stream }), stop.signal));
    await mock.until(({ inFlight }) => inFlight === 1);
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
    await mock.until(({ aborted, inFlight }) => aborted === 1 && inFlight === 0);
  });
});

describe("a stream", () => {
  it("is the same whatever pieces of bytes it comes in", async () => {
    const script = { text: "naïve 日本 🙂 done" };
    const expected = await chatted(script);
    for (const splitBytes of [1, 2, 3, 7]) expect(await chatted({ ...script, splitBytes })).toEqual(expected);
  });

  it("without [DONE] is complete when every choice has ended, and broken when one has not", async () => {
    expect(finishesIn(await chatted({ withoutDone: true }))).toMatchObject([{ reason: "stop" }]);
    expect((await failureWith({ withoutDone: true, finishReason: null })).failure).toBe("broken");
  });

  it("with [DONE] but no reason has ended all the same, cut where its one choice is full", async () => {
    const script = { finishReason: null, tokens: 3 };
    expect(finishesIn(await chatted(script))).toMatchObject([{ reason: "stop" }]);
    expect(finishesIn(await chatted(script, { maxOutputTokens: 3 }))).toMatchObject([{ reason: "length" }]);
    const both = finishesIn(await chatted(script, { maxOutputTokens: 4, choices: 2 }));
    expect(both).toMatchObject([{ reason: "stop" }, { reason: "stop" }]);
  });

  const late = { prompt_tokens: 11, completion_tokens: 7 };
  const ended = `data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n`;

  it("tells its usage behind [DONE] too, among whatever else comes there", async () => {
    const behind = ["", "[DONE]", "bye", '{"error":"closing"}', JSON.stringify({ choices: [], usage: late })];
    const deltas = await repliedWith(ended + behind.map((data) => `data: ${data}\n\n`).join(""));
    expect([textIn(deltas), finishesIn(deltas)]).toMatchObject(["a", [{ reason: "stop" }]]);
    expect(usageIn(deltas)).toMatchObject({ promptTokens: 11, completionTokens: 7 });
  });

  it("is whole where nothing comes behind [DONE], and the connection stays open or breaks", async () => {
    for (const then of ["open", "break"] as const) {
      const deltas = await repliedWith(ended, then);
      expect([textIn(deltas), usageIn(deltas)]).toEqual(["a", undefined]);
    }
  });

  it("that falls silent in the middle is a timeout, and its connection is closed", async () => {
    mock.script({ tokens: 5, hangAfter: 2 });
    const output = await provider({ timeoutMs: 30 }).chat(chatCall(model), never);
    expect((await failureOf(() => collected(output))).failure).toBe("timeout");
    await mock.until(({ aborted }) => aborted === 1);
  });

  it("whose reader is slow does not look silent, and leaves no timer behind", async () => {
    const encoder = new TextEncoder();
    const line = encoder.encode('data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n');
    const body = () => new ReadableStream({ pull: (controller) => controller.enqueue(line) });
    const headers = { "content-type": "text/event-stream" };
    vi.useFakeTimers();
    const upstream = provider({ timeoutMs: 20_000, fetch: async () => new Response(body(), { headers }) });
    const output = (await upstream.chat(chatCall(model), never))[Symbol.asyncIterator]();
    await output.next();
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(60_000);
    expect((await output.next()).value).toMatchObject({ type: "text", text: "x" });
    vi.useRealTimers();
  });

  it("that its signal stops in the middle is aborted, and its connection is closed", async () => {
    mock.script({ tokens: 500, tokenMs: 2 });
    const stop = new AbortController();
    const output = (await provider().chat(chatCall(model, { maxOutputTokens: 500 }), stop.signal))[
      Symbol.asyncIterator
    ]();
    await output.next();
    stop.abort();
    expect((await failureOf(() => output.next())).failure).toBe("aborted");
    await mock.until(({ aborted, inFlight }) => aborted === 1 && inFlight === 0);
    expect(mock.counters.completionTokens).toBeLessThan(500);
  });

  it("whose reader leaves closes its connection, read or unread", async () => {
    mock.script({ tokens: 3, hangAfter: 1 });
    for await (const _ of await provider().chat(chatCall(model), never)) break;
    await mock.until(({ aborted }) => aborted === 1);
    const unread = (await provider().chat(chatCall(model), never))[Symbol.asyncIterator]();
    await unread.return?.();
    await mock.until(({ aborted }) => aborted === 2);
  });

  it("that reports an error fails by what it says", async () => {
    const told = async (error: object) => {
      const rawBody = `data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\ndata: ${JSON.stringify({ error })}\n\n`;
      return (await failureWith({ rawBody, headers: { "content-type": "text/event-stream" } })).failure;
    };
    expect(await told({ message: "boom" })).toBe("broken");
    const nothing = { rawBody: "event: error\ndata: null\n\n", headers: { "content-type": "text/event-stream" } };
    expect((await failureWith(nothing)).message).toBe("the upstream answered with an error in the stream");
    expect(await told({ message: "no", code: 400 })).toBe("bad_input");
    expect(await told({ message: "no room", code: 429 })).toBe("capacity");
    expect(await told({ message: "slow down", type: "rate_limit_error" })).toBe("quota");
    expect(await told({ message: "too long", code: "context_length_exceeded" })).toBe("context_length");
  });

  it("that counts on its last chunk of text, and on none of its own, is counted by it", async () => {
    const last = { choices: [{ index: 0, delta: { content: "x" }, finish_reason: "stop" }] };
    const rawBody = `data: ${JSON.stringify({ ...last, usage: { prompt_tokens: 7, completion_tokens: 1 } })}\n\n`;
    const deltas = await chatted({ rawBody, headers: { "content-type": "text/event-stream" } });
    expect(usageIn(deltas)).toMatchObject({ promptTokens: 7, completionTokens: 1 });
  });

  it("of comments and empty chunks without end is broken", async () => {
    const line = 'data: {"choices":[{"index":0,"delta":{}}]}\n\n';
    const script = { rawBody: line.repeat(5_000), headers: { "content-type": "text/event-stream" } };
    const failure = await failureWith(script, { maxOutputTokens: 16 });
    expect([failure.failure, failure.message]).toEqual(["broken", "the stream goes on without an end"]);
  });

  it("as long as its cap allows is never taken for one without end", async () => {
    const deltas = await chatted({ tokens: 400 }, { maxOutputTokens: 400 });
    expect(usageIn(deltas)).toMatchObject({ completionTokens: 400 });
  });

  it("is read as what it says it is, whatever was asked for", async () => {
    const whole = '{"choices":[{"index":0,"message":{"content":"whole"},"finish_reason":"stop"}]}';
    expect(textIn(await chatted({ rawBody: whole }, { stream: true }))).toBe("whole");
    const streamed = `data: {"choices":[{"index":0,"delta":{"content":"streamed"},"finish_reason":"stop"}]}\n\n`;
    const headers = { "content-type": "text/event-stream; charset=utf-8" };
    expect(textIn(await chatted({ rawBody: streamed, headers }, { stream: false }))).toBe("streamed");
  });
});

describe("a whole reply", () => {
  it("is the same wherever its bytes are cut", async () => {
    const message = { content: "naïve 日本 🙂" };
    const reply = JSON.stringify({ choices: [{ index: 0, message, finish_reason: "stop" }] });
    await fc.assert(
      fc.asyncProperty(anyCuts, async (cuts) => {
        const upstream = provider({ fetch: async () => new Response(streamOf(reply, cuts)) });
        const output = await upstream.chat(chatCall(model, { stream: false }), never);
        expect(textIn(await collected(output))).toBe(message.content);
      }),
    );
  });

  it("without a body is broken", async () => {
    const upstream = provider({ fetch: async () => new Response(null) });
    const failure = await failureOf(() => upstream.chat(chatCall(model, { stream: false }), never));
    expect(failure.failure).toBe("broken");
  });

  it("that never ends is broken long before it fills the memory", async () => {
    let pulls = 0;
    const endless = new ReadableStream({
      pull: (controller) => {
        pulls++;
        controller.enqueue(new Uint8Array(1_048_576).fill(32));
      },
    });
    const upstream = provider({ fetch: async () => new Response(endless) });
    const run = async () => collected(await upstream.chat(chatCall(model, { stream: false }), never));
    expect((await failureOf(run)).failure).toBe("broken");
    expect(pulls).toBeLessThan(40);
  });
});

describe("what an upstream is asked", () => {
  const asked = async (more: Partial<ChatCall>) => {
    await chatted({}, more);
    return mock.requests.at(-1)?.body as unknown as Record<string, unknown>;
  };

  it("holds the provider's model name, the cap, and nothing that was not asked for", async () => {
    expect(await asked({ stream: false, maxOutputTokens: 9 })).toEqual({
      model: "mock",
      messages: [{ role: "user", content: "hi" }],
      max_tokens: 9,
    });
  });

  it("names parameters as the contract does, and asks a stream for its usage", async () => {
    const tools = [{ type: "function" as const, function: { name: "look_up", parameters: { type: "object" } } }];
    const responseFormat = { type: "json_schema" as const, json_schema: { name: "answer", schema: {} } };
    const more = {
      choices: 2,
      temperature: 0,
      topP: 0,
      seed: -3,
      stop: ["x"],
      logprobs: true,
      topLogprobs: 3,
      logitBias: { "5": -1 },
      reasoningEffort: "none",
      parallelToolCalls: true,
      toolChoice: "none" as const,
      tools,
      responseFormat,
    };
    expect(await asked(more)).toMatchObject({
      n: 2,
      stream: true,
      stream_options: { include_usage: true },
      temperature: 0,
      top_p: 0,
      seed: -3,
      stop: ["x"],
      logprobs: true,
      top_logprobs: 3,
      logit_bias: { "5": -1 },
      reasoning_effort: "none",
      parallel_tool_calls: true,
      tool_choice: "none",
      tools,
      response_format: responseFormat,
    });
  });

  it("holds no tools where the caller's list is empty", async () => {
    expect(await asked({ tools: [], toolChoice: "auto" })).not.toHaveProperty("tools");
  });

  it("speaks of system where the caller says developer", async () => {
    expect(await asked({ messages: [{ role: "developer", content: "be brief" }] })).toMatchObject({
      messages: [{ role: "system", content: "be brief" }],
    });
  });

  it("goes with the key, or without one", async () => {
    await collected(await provider({ apiKey: "secret-key" }).chat(chatCall(model), never));
    expect(mock.requests.at(-1)?.headers.authorization).toBe("Bearer secret-key");
    await collected(await provider().chat(chatCall(model), never));
    expect(mock.requests.at(-1)?.headers).not.toHaveProperty("authorization");
  });
});
