import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ChatDelta, ProviderError } from "../../../src/inference/provider";
import { ReplyReader, type ReplyRules, streamedReply } from "../../../src/inference/providers/reply-reader";
import { ThinkTags } from "../../../src/inference/providers/think-tags";
import { collected, finishesIn, pieces, textIn, usageIn } from "./calls";

const failureOf = () => new ProviderError("broken", "as the reply says");
const RULES: ReplyRules = { usagePerChunk: false, zeroPromptIsUncounted: false, failureOf };

function read(parts: readonly unknown[], { choices = 1, ...more }: Partial<ReplyRules> & { choices?: number } = {}) {
  const reader = new ReplyReader({ choices, maxOutputTokens: 100 }, { ...RULES, ...more });
  return [...parts.flatMap((part) => [...reader.read(part)]), ...reader.end()];
}
const ofType = (deltas: readonly ChatDelta[], type: string) =>
  deltas.map((delta) => (delta.type === type && "text" in delta ? delta.text : "")).join("");
const whole = (message: object, more: object = {}) => ({
  choices: [{ index: 0, message, finish_reason: "stop", ...more }],
});
const delta = (written: object, finish_reason: unknown = null) => ({
  choices: [{ index: 0, delta: written, finish_reason }],
});

describe("what a message says", () => {
  it.each<[string, object, Record<string, string>]>([
    ["a text", { content: "a" }, { text: "a" }],
    ["parts", { content: [{ type: "text", text: "a" }, "b", { type: "output_text", text: "c" }] }, { text: "abc" }],
    ["one part alone", { content: { type: "text", text: "a" } }, { text: "a" }],
    ["a value of JSON mode", { content: { answer: 42 } }, { text: '{"answer":42}' }],
    ["a number", { content: 7 }, { text: "7" }],
    ["a refusal", { content: null, refusal: "no" }, { refusal: "no" }],
    ["a refusal among parts", { content: [{ type: "refusal", refusal: "no" }] }, { refusal: "no" }],
    ["a refusal in both fields", { content: "no", refusal: "no" }, { refusal: "no" }],
    ["reasoning as DeepSeek sends it", { reasoning_content: "hm", content: "a" }, { reasoning: "hm", text: "a" }],
    [
      "reasoning under both names",
      { reasoning_content: "hm", reasoning: "hm", content: "a" },
      { reasoning: "hm", text: "a" },
    ],
    ["reasoning under the new name", { reasoning_content: "", reasoning: "hm" }, { reasoning: "hm" }],
    [
      "reasoning as Mistral sends it",
      {
        content: [
          { type: "thinking", thinking: [{ type: "text", text: "hm" }] },
          { type: "text", text: "a" },
        ],
      },
      { reasoning: "hm", text: "a" },
    ],
  ])("is told of %s, whole and streamed", (_, message, expected) => {
    for (const deltas of [read([whole(message)]), read([delta(message), delta({}, "stop")])]) {
      const isStreamedRefusalTwice = "content" in message && message.content === "no" && deltas.length > 2;
      const told = {
        text: ofType(deltas, "text"),
        refusal: ofType(deltas, "refusal"),
        reasoning: ofType(deltas, "reasoning"),
      };
      expect(isStreamedRefusalTwice ? { ...told, text: "" } : told).toEqual({
        text: "",
        refusal: "",
        reasoning: "",
        ...expected,
      });
    }
  });

  it("is the text of the old completions, too", () => {
    expect(textIn(read([{ choices: [{ index: 0, text: "a", finish_reason: "stop" }] }]))).toBe("a");
  });

  it("is not told again by a message behind its deltas", () => {
    expect(textIn(read([delta({ content: "a" }), delta({ content: "b" }), whole({ content: "ab" })]))).toBe("ab");
  });

  it("comes by messages where a server calls its deltas so", () => {
    expect(textIn(read([whole({ content: "a" }, { finish_reason: null }), whole({ content: "a" })]))).toBe("aa");
  });
});

describe("choices", () => {
  it("are told apart by their order where their indexes are missing, written or doubled", () => {
    const of = (indexes: readonly unknown[]) => ({
      choices: indexes.map((index, at) => ({ index, message: { content: `c${at}` }, finish_reason: "stop" })),
    });
    for (const indexes of [
      [0, 1],
      ["0", "1"],
      [undefined, undefined],
      [0, 0],
      [null, null],
    ]) {
      const deltas = read([of(indexes)], { choices: 2 });
      expect([textIn(deltas, 0), textIn(deltas, 1)]).toEqual(["c0", "c1"]);
    }
  });

  it("that a provider leaves out have no end, and are known to be missing", () => {
    const reader = new ReplyReader({ choices: 3, maxOutputTokens: 9 }, RULES);
    const deltas = [...reader.read(whole({ content: "one" })), ...reader.end()];
    expect(reader.missing).toEqual([1, 2]);
    expect(finishesIn(deltas)).toHaveLength(1);
  });

  it("that all say nothing are no reply", () => {
    expect(() => read([{ choices: [] }])).toThrow(ProviderError);
    expect(() => read([{ choices: [], usage: { prompt_tokens: 5, completion_tokens: 0 } }])).toThrow(ProviderError);
  });
});

describe("usage", () => {
  const told = (...parts: readonly unknown[]) => usageIn(read([...parts, delta({ content: "x" }, "stop")]));
  const base = { type: "usage", promptTokens: 10, completionTokens: 5, cachedTokens: 0 };

  it.each<[string, object, object]>([
    ["as texts", { prompt_tokens: "10", completion_tokens: "5" }, {}],
    ["in Anthropic's words", { input_tokens: 10, output_tokens: 5 }, {}],
    ["in Ollama's words", { prompt_eval_count: 10, eval_count: 5 }, {}],
    ["without the completion", { prompt_tokens: 10, total_tokens: 15 }, {}],
    [
      "with what was cached",
      { prompt_tokens: 10, completion_tokens: 5, prompt_cache_hit_tokens: 4 },
      { cachedTokens: 4 },
    ],
    [
      "with reasoning",
      { prompt_tokens: 10, completion_tokens: 5, completion_tokens_details: { reasoning_tokens: 3 } },
      { reasoningTokens: 3 },
    ],
    [
      "with reasoning that only the total has",
      { prompt_tokens: 10, completion_tokens: 2, total_tokens: 15, completion_tokens_details: { reasoning_tokens: 3 } },
      { reasoningTokens: 3 },
    ],
    ["with details that are null", { prompt_tokens: 10, completion_tokens: 5, completion_tokens_details: null }, {}],
  ])("is understood %s", (_, usage, more) => {
    expect(told({ choices: [], usage })).toEqual({ ...base, ...more });
  });

  it("is taken wherever it comes: first, in parts, in a choice, or beside it", () => {
    expect(
      told({ ...delta({ role: "assistant" }), usage: { input_tokens: 10 } }, { usage: { output_tokens: 5 } }),
    ).toEqual(base);
    expect(told({ choices: [{ index: 0, delta: {}, usage: { prompt_tokens: 10, completion_tokens: 5 } }] })).toEqual(
      base,
    );
    expect(told({ ...delta({}), x_groq: { usage: { prompt_tokens: 10, completion_tokens: 5 } } })).toEqual(base);
  });

  it("is not taken back by zeros", () => {
    const zeros = { choices: [], usage: { prompt_tokens: 0, completion_tokens: 0 } };
    expect(told({ choices: [], usage: { prompt_tokens: 10, completion_tokens: 5 } }, zeros)).toEqual(base);
  });
});

describe("any reply", () => {
  const anyField = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom("stop", "length", 0, "0", null, {}, []));
  const anyCall = fc.record(
    {
      index: anyField,
      id: anyField,
      name: anyField,
      function: fc.oneof(anyField, fc.record({ name: anyField, arguments: anyField })),
    },
    { requiredKeys: [] },
  );
  const anyMessage = fc.record(
    {
      content: anyField,
      refusal: anyField,
      reasoning: anyField,
      tool_calls: fc.oneof(anyField, fc.array(anyCall)),
      function_call: anyField,
    },
    { requiredKeys: [] },
  );
  const anyChoice = fc.record(
    {
      index: anyField,
      delta: anyMessage,
      message: anyMessage,
      text: anyField,
      logprobs: anyField,
      finish_reason: anyField,
    },
    { requiredKeys: [] },
  );
  const anyPiece = fc.oneof(
    anyField,
    fc.record(
      {
        choices: fc.oneof(anyField, fc.array(anyChoice, { maxLength: 3 })),
        ...{ usage: anyField, error: fc.constantFrom(null, undefined, ""), response: anyField, x_groq: anyField },
        ...{ tool_calls: fc.oneof(anyField, fc.array(anyCall)), finish_reason: anyField },
      },
      { requiredKeys: [] },
    ),
  );

  it("is read, or fails as a provider's failure: nothing in it breaks the reader", () => {
    fc.assert(
      fc.property(fc.array(anyPiece, { maxLength: 6 }), fc.integer({ min: 1, max: 3 }), (parts, choices) => {
        try {
          const deltas = read(parts, { choices, hasThinkTags: true });
          const ended = finishesIn(deltas).map((finish) => finish.choice);
          expect(new Set(ended).size).toBe(ended.length);
          for (const told of deltas)
            if ("text" in told) expect(typeof told.text).toBe("string");
            else if (told.type === "tool_call") expect(typeof told.arguments).toBe("string");
        } catch (error) {
          if (!(error instanceof ProviderError)) throw error;
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("that is streamed is the same wherever it is cut, and half of it is never taken for the whole", async () => {
    const parts = [
      delta({ reasoning_content: "hm" }),
      delta({ content: "Hé" }),
      delta({ content: "llo 😀" }),
      delta({}, "stop"),
    ];
    const text = parts.map((part) => `: ping\r\n\r\ndata:${JSON.stringify(part)}\r\n\r\n`).join("");
    const bytes = new TextEncoder().encode(text);
    const streamed = async (chunks: readonly Uint8Array[]) => {
      const source = (async function* () {
        yield* chunks;
      })();
      return collected(streamedReply(source, new ReplyReader({ choices: 1, maxOutputTokens: 100 }, RULES)));
    };
    const expected = await streamed([bytes]);
    const endOfLast = text.lastIndexOf("}") + 1;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat({ max: 10_000 }), { maxLength: 40 }),
        fc.nat({ max: endOfLast }),
        async (cuts, end) => {
          expect(await streamed(pieces(bytes, cuts))).toEqual(expected);
          const half = bytes.slice(0, end);
          if (!new TextDecoder().decode(half).includes('"stop"}]}'))
            await expect(streamed([half])).rejects.toThrow(ProviderError);
        },
      ),
    );
  });
});

describe("thoughts between tags", () => {
  it("are parted from the answer wherever the text is cut", () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.string(),
        fc.array(fc.nat({ max: 200 }), { maxLength: 12 }),
        (thought, answer, cuts) => {
          fc.pre(!thought.includes("</think>") && !thought.endsWith("<"));
          const text = `\n<think>${thought}</think>\n\n${answer}`;
          const places = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
          const tags = new ThinkTags();
          const told = [0, ...places].map((from, at) => tags.push(text.slice(from, places[at] ?? text.length)));
          told.push(tags.end());
          expect(told.map(([reasoning]) => reasoning).join("")).toBe(thought);
          expect(told.map(([, rest]) => rest).join("")).toBe(answer.trimStart());
        },
      ),
    );
  });

  it("count only before anything else was said, and only where they are declared", () => {
    const tagged = [delta({ content: "<think>hm</think>so" }), delta({}, "stop")];
    expect(textIn(read(tagged))).toBe("<think>hm</think>so");
    expect([
      ofType(read(tagged, { hasThinkTags: true }), "reasoning"),
      textIn(read(tagged, { hasThinkTags: true })),
    ]).toEqual(["hm", "so"]);
    const spoken = [delta({ content: "Use <think>hm</think>." }), delta({}, "stop")];
    expect(textIn(read(spoken, { hasThinkTags: true }))).toBe("Use <think>hm</think>.");
  });
});
