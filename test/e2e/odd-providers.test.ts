import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { streamFindings } from "../contract/contract";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** Providers as they are, through the official client: what they mean arrives, and what they break is said. */
let platform: Platform;
let mock: MockUpstream;
let operator: Operator;
let tenant: TestTenant;
const COLON = "hf.co/x/y:Q4_K_M";

beforeAll(async () => {
  mock = await MockUpstream.start();
  const embed = {
    ...{ name: "embed", task: "embedding", owned_by: "upstream", created: 0, provider: "openai-compatible" },
    ...{ provider_model: "embed", context_tokens: 8_192, dimensions: null, regions: ["global", "eu", "us"] },
  };
  const models = [upstreamModel("mock"), upstreamModel("learning"), upstreamModel(COLON), embed];
  const vars = {
    UPSTREAM_URL: mock.url,
    MODEL_CATALOGUE: { version: "odd", models },
    ...{ REQUEST_DEADLINE_MS: "6000", UPSTREAM_TIMEOUT_MS: "4000" },
  };
  platform = await startPlatform({ bundle: "production", vars });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(() => mock.script({}));

const SSE = { "content-type": "text/event-stream" };
const events = (...pieces: readonly object[]) =>
  `${pieces.map((piece) => `data: ${JSON.stringify(piece)}\n\n`).join("")}data: [DONE]\n\n`;
const chunk = (delta: object, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }],
});
const streams = (...pieces: readonly object[]) => mock.script({ rawBody: events(...pieces), headers: SSE });
const answers = (message: object, more: object = {}, finish_reason = "stop") =>
  mock.script({ rawBody: JSON.stringify({ choices: [{ index: 0, message, finish_reason }], ...more }) });
const messages = [{ role: "user" as const, content: "hi" }];
const client = () => tenant.client;
const tools = ["weather", "clock"].map((name) => ({
  type: "function" as const,
  function: { name, parameters: { type: "object", properties: {} } },
}));
const post = (path: string, body: object) =>
  fetch(`${platform.url}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model: "mock", ...body }),
  });

describe("tool calls whose pieces alternate under one index", () => {
  const piece = (id: string, name: string | undefined, text: string) =>
    chunk({ tool_calls: [{ index: 0, id, function: { ...(name ? { name } : {}), arguments: text } }] });
  const alternating = [
    piece("a", "weather", '{"city":'),
    piece("b", "clock", '{"zone":'),
    piece("a", undefined, '"Oslo"}'),
    piece("b", undefined, '"UTC"}'),
    chunk({}, "tool_calls"),
  ];

  it("are the same two calls in chat and in responses, by the clients' own accumulators", async () => {
    streams(...alternating);
    const chat = await client().chat.completions.stream({ model: "mock", messages, tools }).finalChatCompletion();
    expect(chat.choices[0]?.message.tool_calls).toMatchObject([
      { id: "a", function: { name: "weather", arguments: '{"city":"Oslo"}' } },
      { id: "b", function: { name: "clock", arguments: '{"zone":"UTC"}' } },
    ]);
    const asked = {
      ...{ model: "mock", input: "hi" },
      tools: tools.map(({ function: fn }) => ({ type: "function" as const, ...fn, strict: false })),
    };
    const response = await client().responses.stream(asked).finalResponse();
    expect(response.output).toMatchObject([
      { type: "function_call", call_id: "a", name: "weather", arguments: '{"city":"Oslo"}', status: "completed" },
      { type: "function_call", call_id: "b", name: "clock", arguments: '{"zone":"UTC"}', status: "completed" },
    ]);
    expect(streamFindings).toEqual([]);
  });
});

describe("an ending", () => {
  it.each([
    ["MAX_TOKENS", "length", "incomplete"],
    ["SAFETY", "content_filter", "incomplete"],
    ["eos_token", "stop", "completed"],
  ])("%s is told as %s", async (said, told, status) => {
    answers({ content: "half" }, {}, said);
    const chat = await client().chat.completions.create({ model: "mock", messages });
    expect(chat.choices[0]?.finish_reason).toBe(told);
    expect((await client().responses.create({ model: "mock", input: "hi" })).status).toBe(status);
  });

  it.each([["abort"], ["MALFORMED_FUNCTION_CALL"], ["what nobody knows"]])(
    "%s is a failure, never a whole answer, whole and streamed",
    async (said) => {
      answers({ content: "half" }, {}, said);
      const failed = await client()
        .withOptions({ maxRetries: 0 })
        .chat.completions.create({ model: "mock", messages })
        .catch((error: unknown) => error as InstanceType<typeof OpenAI.APIError>);
      expect(failed).toMatchObject({ status: 502, code: "model_error" });
      streams(chunk({ content: "half" }), chunk({}, said));
      const text = await (await post("/v1/chat/completions", { messages, stream: true })).text();
      expect(text).toContain('"code":"model_error"');
      expect(text).not.toContain("[DONE]");
      expect(text).not.toContain('"finish_reason":"stop"');
      const response = await (await post("/v1/responses", { input: "hi", stream: true })).text();
      expect(response).toContain("event: response.failed");
    },
  );
});

describe("a refusal", () => {
  it("stays one in chat and in responses, streamed too, and may come back", async () => {
    answers({ content: null, refusal: "I cannot." });
    const chat = await client().chat.completions.create({ model: "mock", messages });
    expect(chat.choices[0]?.message).toMatchObject({ content: null, refusal: "I cannot." });
    const response = await client().responses.create({ model: "mock", input: "hi" });
    expect(response.output).toMatchObject([{ type: "message", content: [{ type: "refusal", refusal: "I cannot." }] }]);
    streams(chunk({ refusal: "I " }), chunk({ refusal: "cannot." }), chunk({}, "stop"));
    const streamed = await client().chat.completions.stream({ model: "mock", messages }).finalChatCompletion();
    expect(streamed.choices[0]?.message.refusal).toBe("I cannot.");
    const again = await client().responses.stream({ model: "mock", input: "hi" }).finalResponse();
    expect(again.output).toMatchObject([{ content: [{ type: "refusal", refusal: "I cannot." }] }]);
    expect(streamFindings).toEqual([]);
    mock.script({});
    const said = chat.choices[0]?.message as OpenAI.ChatCompletionAssistantMessageParam;
    await client().chat.completions.create({ model: "mock", messages: [...messages, said, ...messages] });
    expect(mock.requests.at(-1)?.body.messages?.[1]?.content).toBe("I cannot.");
  });
});

describe("reasoning", () => {
  const usage = {
    ...{ prompt_tokens: 10, completion_tokens: 50, total_tokens: 60 },
    completion_tokens_details: { reasoning_tokens: 40 },
  };

  it("is given out beside the answer, counted as the provider counts it, and may come back", async () => {
    answers({ content: "4", reasoning_content: "2 + 2" }, { usage });
    const chat = await client().chat.completions.create({ model: "mock", messages });
    expect(chat.choices[0]?.message).toMatchObject({ content: "4", reasoning_content: "2 + 2" });
    expect(chat.usage?.completion_tokens_details?.reasoning_tokens).toBe(40);
    const response = await client().responses.create({ model: "mock", input: "hi" });
    expect(response.output).toMatchObject([
      { type: "reasoning", content: [{ type: "reasoning_text", text: "2 + 2" }] },
      { type: "message", content: [{ type: "output_text", text: "4" }] },
    ]);
    expect(response.usage?.output_tokens_details.reasoning_tokens).toBe(40);
    const next = await client().responses.create({ model: "mock", input: "more", previous_response_id: response.id });
    expect(next.status).toBe("completed");
    const sent = { ...(chat.choices[0]?.message as OpenAI.ChatCompletionAssistantMessageParam) };
    await client().chat.completions.create({ model: "mock", messages: [...messages, sent, ...messages] });
    expect(JSON.stringify(mock.requests.at(-1)?.body)).not.toContain("2 + 2"); // this server never asked for it
  });

  it("streams under its own name and as an item of its own", async () => {
    streams(chunk({ reasoning: "2 + " }), chunk({ reasoning: "2" }), chunk({ content: "4" }), chunk({}, "stop"));
    let thought = "";
    for await (const part of await client().chat.completions.create({ model: "mock", messages, stream: true }))
      thought += (part.choices[0]?.delta as { reasoning_content?: string } | undefined)?.reasoning_content ?? "";
    expect(thought).toBe("2 + 2");
    const response = await client().responses.stream({ model: "mock", input: "hi" }).finalResponse();
    expect(response.output.map(({ type }) => type)).toEqual(["reasoning", "message"]);
    expect(streamFindings).toEqual([]);
  });

  it("goes back to a server that wants it, from chat and from stored responses", async () => {
    const wants = {
      status: 400,
      errorBody: '{"error":{"message":"reasoning_content must be passed back to the API"}}',
    };
    const message = { role: "assistant" as const, content: "4", reasoning_content: "2 + 2" };
    mock.once(wants);
    await client().chat.completions.create({ model: "learning", messages: [...messages, message, ...messages] });
    expect(mock.requests.at(-1)?.body.messages?.[1]).toMatchObject({ reasoning_content: "2 + 2" });
  });
});

describe("a server of another dialect", () => {
  it("answers the first call, and is asked rightly by the next; nothing is paid for twice", async () => {
    const own = await operator.createTenant();
    const refused = '{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"not permitted"}]}';
    mock.once({ status: 422, errorBody: refused });
    const asked = { model: COLON, messages, stream: true } as const;
    for (let call = 0; call < 2; call++) {
      let text = "";
      for await (const part of await own.client.chat.completions.create(asked))
        text += part.choices[0]?.delta.content ?? "";
      expect(text).toBe("one two three four five");
    }
    const bodies = mock.requests.filter(({ body }) => body.model === COLON).map(({ body }) => "stream_options" in body);
    expect(bodies).toEqual([true, false, false]);
    const { data } = (await own.client.get("/tenantry/decisions")) as { data: { outcome: string }[] };
    expect(data.map(({ outcome }) => outcome)).toEqual(["completed", "completed"]);
  });

  it("that cannot do what the caller asked is told by the parameter's name", async () => {
    mock.once({
      status: 400,
      errorBody: '{"error":{"message":"response_format is not supported","param":"response_format"}}',
    });
    const asked = { input: "hi", text: { format: { type: "json_object" } } };
    const reply = await post("/v1/responses", asked);
    expect(reply.status).toBe(400);
    expect(await reply.json()).toMatchObject({ error: { code: "unsupported_parameter", param: "text.format" } });
  });

  it("whose context leaves no room for the default cap is asked for less; a cap that the caller set stays", async () => {
    const errorBody = "This model's maximum context length is 2048 tokens. However, you requested 2256 tokens";
    mock.once({ status: 400, errorBody });
    await client().chat.completions.create({ model: "mock", messages });
    expect(mock.requests.slice(-2).map(({ body }) => body.max_tokens)).toEqual([256, 48]);
    mock.once({ status: 400, errorBody });
    const reply = await post("/v1/chat/completions", { messages, max_tokens: 256 });
    expect([reply.status, await reply.json()]).toMatchObject([400, { error: { code: "context_length_exceeded" } }]);
  });

  it("is found under its own name, colons and all", async () => {
    expect((await client().models.retrieve(COLON)).id).toBe(COLON);
    expect((await client().models.list()).data.map(({ id }) => id)).toContain(COLON);
  });

  it("makes vectors of the length that it makes", async () => {
    for (const dimensions of [384, 1_536]) {
      mock.script({ dimensions });
      const { data } = await client().embeddings.create({ model: "embed", input: "hi", encoding_format: "float" });
      expect(data[0]?.embedding).toHaveLength(dimensions);
    }
  });

  it("that knows no n answers with as many choices all the same, and what is told is booked", async () => {
    const own = await operator.createTenant();
    answers({ content: "one" }, { usage: { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 } });
    const chat = await own.client.chat.completions.create({ model: "mock", messages, n: 3 });
    expect(chat.choices.map(({ message }) => message.content)).toEqual(["one", "one", "one"]);
    expect(chat.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 6 });
    const { data } = (await own.client.get("/tenantry/decisions")) as { data: { usage: unknown }[] };
    expect(data.map(({ usage }) => usage)).toEqual([{ prompt_tokens: 5, completion_tokens: 6 }]);
  });
});

describe("a provider that takes its time", () => {
  it("is no reason to hold back the headers; what fails afterwards is an event of the stream", async () => {
    mock.script({ firstByteMs: 1_800, status: 500, errorBody: "{}" });
    const reply = await post("/v1/chat/completions", { messages, stream: true });
    expect([reply.status, reply.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
    const text = await reply.text();
    expect(text).toContain('"code":"model_error"');
    expect(text).not.toContain("[DONE]");
    const late = await client()
      .withOptions({ maxRetries: 0 })
      .chat.completions.create({ model: "mock", messages, stream: true });
    await expect(
      (async () => {
        for await (const _ of late);
      })(),
    ).rejects.toThrow(OpenAI.APIError);
    const response = await (await post("/v1/responses", { input: "hi", stream: true })).text();
    expect(response).toMatch(/event: response\.created[\s\S]*event: response\.failed/);
  });

  it("for ever, with pings and without a token, is ended at the deadline, and its connection closed", async () => {
    mock.script({ pingsMs: 50 });
    const { aborted } = mock.counters;
    const text = await (await post("/v1/chat/completions", { messages, stream: true })).text();
    expect(text).toContain('"code":"model_timeout"');
    await mock.until((counters) => counters.aborted === aborted + 1);
  });

  it("that fails at once is answered with its status", async () => {
    mock.script({ status: 429 });
    expect((await post("/v1/chat/completions", { messages, stream: true })).status).toBe(503);
    expect((await post("/v1/responses", { input: "hi", stream: true })).status).toBe(503);
  });
});
