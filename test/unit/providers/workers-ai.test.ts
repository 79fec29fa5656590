import { getEventListeners } from "node:events";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { ChatCall } from "../../../src/inference/provider";
import { type AiBinding, workersAi } from "../../../src/inference/providers/workers-ai";
import {
  anyCuts,
  chatCall,
  chatModel,
  collected,
  embeddingModel,
  failureOf,
  finishesIn,
  never,
  streamOf,
  textIn,
  toolCallsIn,
  usageIn,
} from "./calls";
import { CLASSIC, ERROR_MESSAGES, OPENAI_STYLE } from "./recorded";

const encoder = new TextEncoder();
const model = chatModel("workers-ai", "@cf/meta/llama-3.3-70b-instruct-fp8-fast");

const answering = (reply: unknown): AiBinding => ({ run: async () => reply });

/** What a caller gets of a recorded reply; text is a stream. */
async function chatted(recorded: unknown, more: Partial<ChatCall> = {}) {
  const isStream = typeof recorded === "string";
  const ai = answering(isStream ? streamOf(recorded) : recorded);
  return collected(await workersAi(ai).chat(chatCall(model, { stream: isStream, ...more }), never));
}

afterEach(() => {
  vi.useRealTimers();
});

describe("a call", () => {
  it("tells Workers AI by a header which calls begin alike, and nothing where nobody said", async () => {
    const options: (object | undefined)[] = [];
    const ai: AiBinding = {
      run: async (_, __, given) => {
        options.push(given);
        return CLASSIC.whole;
      },
    };
    for (const affinity of [{ affinity: "0a1b" }, {}])
      await collected(await workersAi(ai).chat(chatCall(model, { stream: false, ...affinity }), never));
    expect(options).toEqual([{ extraHeaders: { "x-session-affinity": "0a1b" } }, undefined]);
  });
});

describe("a classic whole reply", () => {
  it("becomes text, an end and the usage, in this order", async () => {
    expect(await chatted(CLASSIC.whole)).toEqual([
      { type: "text", choice: 0, text: "Hello there." },
      { type: "finish", choice: 0, reason: "stop" },
      { type: "usage", promptTokens: 20, completionTokens: 3, cachedTokens: 0 },
    ]);
  });

  it("says what it says of its end; where it says nothing, a full output has been cut", async () => {
    expect(finishesIn(await chatted(CLASSIC.wholeStopped, { maxOutputTokens: 3 }))).toMatchObject([{ reason: "stop" }]);
    expect(finishesIn(await chatted(CLASSIC.wholeFull))).toMatchObject([{ reason: "length" }]);
    expect(finishesIn(await chatted(CLASSIC.whole, { maxOutputTokens: 3 }))).toMatchObject([{ reason: "length" }]);
    expect(finishesIn(await chatted(CLASSIC.whole, { maxOutputTokens: 4 }))).toMatchObject([{ reason: "stop" }]);
  });

  it("without usage reports none", async () => {
    expect(usageIn(await chatted(CLASSIC.wholeWithoutUsage))).toBeUndefined();
  });

  it("in JSON mode is the JSON text of its value", async () => {
    expect(textIn(await chatted(CLASSIC.json))).toBe('{"answer":42,"because":["a"]}');
    expect(textIn(await chatted(CLASSIC.jsonNumber))).toBe("42");
  });

  it("brings tool calls as a name and arguments, written or not, and ends by them", async () => {
    const anyId = expect.stringMatching(/^call_.{24}$/);
    expect(await chatted(CLASSIC.tools)).toEqual([
      { type: "tool_call", choice: 0, index: 0, id: anyId, name: "get_weather", arguments: '{"city":"Oslo"}' },
      { type: "tool_call", choice: 0, index: 1, id: anyId, name: "get_time", arguments: '{"zone":"CET"}' },
      { type: "finish", choice: 0, reason: "tool_calls" },
      { type: "usage", promptTokens: 623, completionTokens: 20, cachedTokens: 600 },
    ]);
  });
});

describe("a whole reply in OpenAI's style", () => {
  it("becomes its reasoning, text, its own end and the usage", async () => {
    expect(await chatted(OPENAI_STYLE.whole)).toEqual([
      { type: "reasoning", choice: 0, text: "they greet" },
      { type: "text", choice: 0, text: "Hello." },
      { type: "finish", choice: 0, reason: "stop" },
      { type: "usage", promptTokens: 11, completionTokens: 9, cachedTokens: 4 },
    ]);
  });

  it("brings tool calls with their ids", async () => {
    const deltas = await chatted(OPENAI_STYLE.tools);
    expect(toolCallsIn(deltas)).toMatchObject([{ id: "call-a", name: "sum", arguments: '{"a":1}' }]);
    expect(finishesIn(deltas)).toMatchObject([{ reason: "tool_calls" }]);
  });
});

describe("a stream", () => {
  it("of classic lines is read token by token, padding and numbers included", async () => {
    expect(await chatted(CLASSIC.stream)).toEqual([
      { type: "text", choice: 0, text: "Hel" },
      { type: "text", choice: 0, text: "lo ✨" },
      { type: "text", choice: 0, text: "7" },
      { type: "finish", choice: 0, reason: "stop" },
      { type: "usage", promptTokens: 20, completionTokens: 4, cachedTokens: 0 },
    ]);
  });

  it("that names a reason ends by it", async () => {
    expect(finishesIn(await chatted(CLASSIC.streamWithReason))).toMatchObject([{ reason: "length" }]);
  });

  it("of a newer model takes its totals from the last, native chunk, not from the chunks' own", async () => {
    const deltas = await chatted(OPENAI_STYLE.stream);
    expect(textIn(deltas)).toBe("你好");
    expect(deltas.slice(-2)).toEqual([
      { type: "finish", choice: 0, reason: "stop" },
      { type: "usage", promptTokens: 57, completionTokens: 28, cachedTokens: 0 },
    ]);
  });

  it("of a newer model without its native chunk reports no usage: the chunks' own is of one chunk each", async () => {
    const deltas = await chatted(
      OPENAI_STYLE.stream.replace(/data: \{"choices":\[\],.*\n\ndata: \{"response".*\n\n/, ""),
    );
    expect(textIn(deltas)).toBe("你好");
    expect(usageIn(deltas)).toBeUndefined();
  });

  it("may beat its heart with empty events", async () => {
    const expected = await chatted(CLASSIC.stream);
    expect(await chatted(CLASSIC.stream.replaceAll("\n\n", "\n\ndata:\n\n: ping\n\n"))).toEqual(expected);
  });

  it("keeps reasoning apart from the text, by whichever name it comes", async () => {
    const deltas = await chatted(OPENAI_STYLE.stream);
    expect(deltas.slice(0, 2)).toEqual([
      { type: "reasoning", choice: 0, text: "they" },
      { type: "reasoning", choice: 0, text: " greet" },
    ]);
    expect(textIn(deltas)).toBe("你好");
  });

  it.each([
    [
      "in pieces of OpenAI's form",
      OPENAI_STYLE.streamOfTools,
      [
        ["tool-a", '{"city": "Oslo"}'],
        ["tool-b", "{}"],
      ],
    ],
    ["in pieces of a classic model", CLASSIC.streamOfToolPieces, [["chatcmpl-tool-1", '{"a": 1, "b": 2}']]],
    [
      "as whole classic calls",
      CLASSIC.streamOfWholeTools,
      [
        [expect.stringMatching(/^call_/), '{"city":"Oslo"}'],
        [expect.stringMatching(/^call_/), "{}"],
      ],
    ],
  ])("brings tool calls %s; id and name come once, with the first piece", async (_, recorded, expected) => {
    const deltas = await chatted(recorded);
    const calls = toolCallsIn(deltas);
    const joined = expected.map((_, index) => {
      const ofCall = calls.filter((call) => call.index === index);
      expect(ofCall.map((call) => call.name !== undefined)).toEqual(ofCall.map((_, at) => at === 0));
      expect(ofCall.slice(1).some((call) => "id" in call)).toBe(false);
      return [ofCall[0]?.id, ofCall.map((call) => call.arguments).join("")];
    });
    expect(joined).toEqual(expected);
    expect(finishesIn(deltas)).toMatchObject([{ reason: "tool_calls" }]);
  });

  it.each([
    ["classic", CLASSIC.stream],
    ["classic with tools", CLASSIC.streamOfToolPieces],
    ["of a newer model", OPENAI_STYLE.stream],
    ["of a newer model with tools", OPENAI_STYLE.streamOfTools],
  ])("(%s) is the same wherever its bytes are cut", async (_, recorded) => {
    const expected = await chatted(recorded);
    await fc.assert(
      fc.asyncProperty(anyCuts, async (cuts) => {
        const output = await workersAi(answering(streamOf(recorded, cuts))).chat(chatCall(model), never);
        expect(await collected(output)).toEqual(expected);
      }),
    );
  });

  it("that lost its [DONE], or even the last blank line, is complete once it has been summed up", async () => {
    const expected = await chatted(CLASSIC.stream);
    expect(await chatted(CLASSIC.stream.replace("data: [DONE]\n\n", ""))).toEqual(expected);
    expect(await chatted(CLASSIC.stream.trimEnd())).toEqual(expected);
  });

  it.each([
    ["ends before the reply does", 'data: {"response":"Hel"}\n\n'],
    ["is empty", ""],
    ["is cut inside a chunk", 'data: {"response":"Hel"}\n\ndata: {"respo'],
    ["brings no JSON", "data: <html>\n\n"],
    ["brings a malformed chunk", 'data: {"choices":[{"delta":{"content":7}}]}\n\n'],
    ["brings a choice nobody asked for", 'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n'],
    [
      "brings a tool call without a name",
      'data: {"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}\n\ndata: [DONE]\n\n',
    ],
  ])("that %s is broken", async (_, recorded) => {
    expect((await failureOf(() => chatted(recorded))).failure).toBe("broken");
  });

  it.each([
    ['data: {"error":"3040: Capacity temporarily exceeded"}\n\n'],
    ['data: {"errors":[{"code":3040,"message":"Capacity temporarily exceeded"}]}\n\n'],
    ['event: error\ndata: {"message":"3040: no more data centers"}\n\n'],
  ])("that reports an error fails by its code: %s", async (line) => {
    const failure = await failureOf(() => chatted(`data: {"response":"Hel"}\n\n${line}`));
    expect([failure.failure, failure.detail.providerCode]).toEqual(["capacity", "3040"]);
  });

  it("that goes on and on without a token is broken", async () => {
    let pulled = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        pulled++;
        controller.enqueue(encoder.encode('data: {"response":""}\n\n'.repeat(100)));
      },
    });
    const output = await workersAi(answering(endless)).chat(chatCall(model), never);
    expect((await failureOf(() => collected(output))).failure).toBe("broken");
    expect(pulled).toBeLessThan(50);
  });
});

describe("a reply that is no reply", () => {
  it.each([[null], [undefined], ["text"], [{}], [{ request_id: "queued" }], [[1, 2]]])(
    "(%j) is broken",
    async (reply) => {
      const ai = answering(reply);
      const run = async () => collected(await workersAi(ai).chat(chatCall(model, { stream: false }), never));
      expect((await failureOf(run)).failure).toBe("broken");
    },
  );
});

describe("absurd usage", () => {
  it.each([
    [{ prompt_tokens: -5, completion_tokens: 3 }],
    [{ prompt_tokens: 5, completion_tokens: -3 }],
    [{ prompt_tokens: 5.5, completion_tokens: 3 }],
    [{ prompt_tokens: 5, completion_tokens: 1e300 }],
    [{ prompt_tokens: "-5", completion_tokens: 3 }],
    [{ prompt_tokens: 5 }],
    [{ prompt_tokens: 0, completion_tokens: 0 }],
    [null],
    ["many"],
  ])("(%j) is as good as none", async (usage) => {
    expect(usageIn(await chatted({ response: "x", usage }))).toBeUndefined();
  });

  it("never claims more cached tokens than the prompt has", async () => {
    const usage = { prompt_tokens: 5, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 50 } };
    expect(usageIn(await chatted({ response: "x", usage }))).toMatchObject({ promptTokens: 5, cachedTokens: 5 });
  });
});

describe("an error of the binding", () => {
  const failing = (error: unknown): AiBinding => ({
    run: async () => {
      throw error;
    },
  });

  it.each(ERROR_MESSAGES)("%s is told as %s", async (message, failure) => {
    const ai = failing(Object.assign(new Error(message), { name: "InferenceUpstreamError", remote: true }));
    const thrown = await failureOf(() => workersAi(ai).chat(chatCall(model), never));
    const code = /(\d{4,5}): /.exec(message)?.[1];
    expect([thrown.failure, thrown.detail.providerCode]).toEqual([failure, code]);
    expect(thrown.message).toBe(`Workers AI failed with code ${code ?? "unknown"}`); // for the log
  });

  it("may carry its code in a field instead", async () => {
    const ai = failing(Object.assign(new Error("out of capacity"), { internalCode: 3040 }));
    expect((await failureOf(() => workersAi(ai).chat(chatCall(model), never))).failure).toBe("capacity");
  });

  it.each([[null], [undefined], ["3040: capacity"], [7]])("is told even where it is no Error: %j", async (thrown) => {
    const failure = await failureOf(() => workersAi(failing(thrown)).chat(chatCall(model), never));
    expect(failure.failure).toBe(typeof thrown === "string" ? "capacity" : "broken");
  });

  it("keeps the three meanings of 429 apart: no capacity, the account's rate, the day's allocation", async () => {
    vi.useFakeTimers({ now: Date.UTC(2026, 10, 23, 22, 30), toFake: ["Date"] });
    const told = async (message: string) => {
      const { failure, detail } = await failureOf(() =>
        workersAi(failing(new Error(message))).chat(chatCall(model), never),
      );
      return [failure, detail.retryAfterMs];
    };
    expect(await told("3040: capacity")).toEqual(["capacity", undefined]);
    expect(await told("3021: rate")).toEqual(["quota", 60_000]);
    expect(await told("3036: allocation")).toEqual(["quota", 90 * 60_000]);
  });

  it("is told without its text, which may quote the prompt", async () => {
    const thrown = await failureOf(() =>
      workersAi(failing(new Error("5006: '/messages/0' my secret prompt"))).chat(chatCall(model), never),
    );
    expect(`${thrown.message} ${JSON.stringify(thrown.detail)}`).not.toContain("secret");
  });
});

describe("embeddings", () => {
  const call = (inputs: string[]) => ({ model: embeddingModel("workers-ai", 2), inputs });

  it("come one for each text, in order, with the usage where there is one", async () => {
    const ai = answering({
      shape: [2, 2],
      data: [
        [1, 2],
        [3, 4],
      ],
      pooling: "mean",
    });
    expect(await workersAi(ai).embed(call(["a", "b"]), never)).toEqual({
      vectors: [
        [1, 2],
        [3, 4],
      ],
      promptTokens: null,
    });
    const counting = answering({ data: [[1, 2]], usage: { prompt_tokens: 7, total_tokens: 7 } });
    expect(await workersAi(counting).embed(call(["a"]), never)).toMatchObject({ promptTokens: 7 });
  });

  it("of many texts are asked for a hundred at a time", async () => {
    const asked: number[] = [];
    const ai: AiBinding = {
      async run(_, inputs) {
        const { text } = inputs as { text: string[] };
        asked.push(text.length);
        return { data: text.map((one) => [Number(one), 0]), usage: { prompt_tokens: text.length } };
      },
    };
    const inputs = Array.from({ length: 250 }, (_, index) => String(index));
    const { vectors, promptTokens } = await workersAi(ai).embed(call(inputs), never);
    expect(asked).toEqual([100, 100, 50]);
    expect(vectors.map((vector) => vector[0])).toEqual(inputs.map(Number));
    expect(promptTokens).toBe(250);
  });

  it.each([
    ["too few", { data: [[1, 2]] }],
    [
      "of other dimensions",
      {
        data: [
          [1, 2],
          [3, 4, 5],
        ],
      },
    ],
    [
      "of no numbers",
      {
        data: [
          [1, 2],
          [3, null],
        ],
      },
    ],
    ["missing", {}],
  ])("that are %s are broken", async (_, reply) => {
    const failure = await failureOf(() => workersAi(answering(reply)).embed(call(["a", "b"]), never));
    expect(failure.failure).toBe("broken");
  });

  it("of a hundred texts are one run", async () => {
    const run = vi.fn(async () => ({ data: Array(100).fill([1, 2]) }));
    await workersAi({ run }).embed(call(Array(100).fill("a")), never);
    expect(run).toHaveBeenCalledTimes(1);
  });

  it("leave no listener behind", async () => {
    const stop = new AbortController();
    await workersAi(answering({ data: [[1, 2]] })).embed(call(["a"]), stop.signal);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  });

  it("that nobody waits for any more end by being aborted", async () => {
    const stop = new AbortController();
    const waiting = failureOf(() => workersAi({ run: () => new Promise(() => {}) }).embed(call(["a"]), stop.signal));
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
  });
});
