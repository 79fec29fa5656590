import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FinishRequest } from "../../../durable-objects/tenant-gate.messages";
import { type ChatDelta, ProviderError, type ProviderUsage } from "../../../src/inference/provider";
import { ReplyReader, type ReplyRules } from "../../../src/inference/providers/reply-reader";
import { sideBySide } from "../../../src/inference/providers/side-by-side";
import { checkedVectors } from "../../../src/inference/providers/vectors";
import { collected, embeddingModel, finishesIn, textIn, toolCallsIn, usageIn } from "./calls";

const failureOf = () => new ProviderError("broken", "as the reply says");
const UPSTREAM: ReplyRules = { usagePerChunk: false, zeroPromptIsUncounted: false, failureOf };
const WORKERS_AI: ReplyRules = { usagePerChunk: true, zeroPromptIsUncounted: true, failureOf };

function read(pieces: readonly unknown[], { rules = UPSTREAM, maxOutputTokens = 100, choices = 1 } = {}): ChatDelta[] {
  const reader = new ReplyReader({ choices, maxOutputTokens }, rules);
  const deltas = pieces.flatMap((piece) => [...reader.read(piece)]);
  return [...deltas, ...reader.end()];
}

const choice = (delta: object, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }],
});
const usage = (prompt_tokens: unknown, completion_tokens: unknown, cached_tokens?: unknown) => ({
  usage: { prompt_tokens, completion_tokens, prompt_tokens_details: { cached_tokens } },
});

describe("usage", () => {
  it("of an upstream is what it said last, on whatever chunk", () => {
    const pieces = [
      { ...choice({ content: "a" }), ...usage(9, 1) },
      { ...choice({ content: "b" }, "stop"), ...usage(9, 2) },
    ];
    expect(usageIn(read(pieces))).toMatchObject({ promptTokens: 9, completionTokens: 2 });
  });

  it("on a chunk of Workers AI that bears a choice is of that chunk alone, and never the call's", () => {
    const pieces = [{ ...choice({ content: "b" }, "stop"), ...usage(9, 1) }];
    expect(usageIn(read(pieces, { rules: WORKERS_AI }))).toBeUndefined();
  });

  const settled = ({ promptTokens, completionTokens, cachedTokens }: ProviderUsage) =>
    FinishRequest.safeParse({
      requestId: "req_1",
      end: {
        ...{ outcome: "completed", promptTokens, completionTokens, cachedTokens, estimated: false },
        ...{ adapterDigest: null, promptVersion: null, firstTokenMs: null, totalMs: null },
      },
    });
  const anyCount = fc.oneof(
    fc.nat({ max: 40_000_000 }),
    fc.maxSafeInteger(),
    fc.double(),
    fc.constantFrom(1e9, 1e9 + 1, 2 ** 53, null, "7"),
  );

  it("that comes out of any number of runs is usage that the tenant's gate can settle", async () => {
    await fc.assert(
      fc.asyncProperty(
        anyCount,
        anyCount,
        anyCount,
        fc.integer({ min: 1, max: 16 }),
        async (prompt, made, cached, n) => {
          const run = async function* () {
            yield* read([{ response: "x" }, usage(prompt, made, cached)], { rules: WORKERS_AI });
          };
          const merged = await collected(sideBySide(Array.from({ length: n }, run)));
          for (const told of [merged, read([choice({}, "stop"), { choices: [], ...usage(prompt, made, cached) }])]) {
            const counted = usageIn(told);
            if (counted) expect(settled(counted as ProviderUsage).error).toBeUndefined();
          }
        },
      ),
    );
  });

  it("is true up to far more than a call can be, and none above", () => {
    expect(usageIn(read([choice({}, "stop"), usage(20_000_000, 20_000_000)]))).toMatchObject({
      promptTokens: 20_000_000,
      completionTokens: 20_000_000,
    });
    expect(usageIn(read([choice({}, "stop"), usage(5, 2_000_000_000)]))).toBeUndefined();
    expect(usageIn(read([choice({}, "stop"), usage(2_000_000_000, 5)]))).toBeUndefined();
    const call = { model: embeddingModel("openai-compatible", 1), inputs: ["a"] };
    expect(checkedVectors([[1]], { prompt_tokens: 20_000_000 }, call).promptTokens).toBe(20_000_000);
    expect(checkedVectors([[1]], { prompt_tokens: 2_000_000_000 }, call).promptTokens).toBeNull();
  });
});

describe("how a choice ended", () => {
  const endOf = (reason: string | null, delta: object = { content: "x" }) =>
    finishesIn(read([choice(delta, reason)]))[0]?.reason;
  const called = { tool_calls: [{ index: 0, id: "a", function: { name: "f", arguments: "{}" } }] };

  it.each([
    ["stop", "stop"],
    ["eos", "stop"],
    ["length", "length"],
    ["max_tokens", "length"],
    ["tool_calls", "tool_calls"],
    ["function_call", "tool_calls"],
    ["content_filter", "content_filter"],
  ])("%s is told as %s", (said, told) => {
    expect(endOf(said)).toBe(told);
  });

  it("is what was said first", () => {
    const pieces = [choice({ content: "x" }, "length"), choice({}, "stop")];
    expect(finishesIn(read(pieces))).toEqual([{ type: "finish", choice: 0, reason: "length" }]);
  });

  it("is the cap where tool calls were cut by it, and tool calls where nothing was said of them", () => {
    expect(endOf("length", called)).toBe("length");
    expect(endOf("content_filter", called)).toBe("content_filter");
    expect(endOf("stop", called)).toBe("tool_calls");
    const full = read([choice(called), { choices: [], ...usage(5, 100) }]);
    expect(finishesIn(full)[0]?.reason).toBe("tool_calls");
  });
});

describe("tool calls without end", () => {
  it("are given up at 512 of one choice", () => {
    const calls = (count: number) =>
      Array.from({ length: count }, (_, index) => ({
        index,
        id: `c${index}`,
        function: { name: "f", arguments: "{}" },
      }));
    expect(toolCallsIn(read([choice({ tool_calls: calls(512) })]))).toHaveLength(512);
    expect(() => read([choice({ tool_calls: calls(513) })])).toThrow(/more tool calls than any model makes/);
  });
});

describe("tool calls in pieces", () => {
  const pieceOf = (identity: object, name: string | undefined, text: string | undefined) =>
    choice({ tool_calls: [{ ...identity, function: { name, arguments: text } }] });
  const written = (deltas: readonly ChatDelta[], index: number) =>
    toolCallsIn(deltas)
      .filter((call) => call.index === index)
      .map((call) => call.arguments)
      .join("");

  it.each([
    ["by their index", (call: number) => ({ index: call + 3 })],
    ["by their id, where there is no index", (call: number) => ({ id: `call-${call}` })],
  ])("are told apart %s, in whatever order the pieces come", (_, identityOf) => {
    const anyPieces = fc.array(fc.record({ call: fc.nat({ max: 3 }), text: fc.string({ maxLength: 3 }) }));
    fc.assert(
      fc.property(anyPieces, (later) => {
        const opening = [0, 1, 2, 3].map((call) => pieceOf(identityOf(call), `f${call}`, undefined));
        const deltas = read([...opening, ...later.map(({ call, text }) => pieceOf(identityOf(call), undefined, text))]);
        for (const call of [0, 1, 2, 3]) {
          const expected = later.filter((piece) => piece.call === call).map(({ text }) => text);
          const text = expected.join("");
          expect(written(deltas, call)).toBe(text.trim() === "" ? `${text}{}` : text);
        }
        expect(
          toolCallsIn(deltas)
            .slice(4)
            .every((call) => call.arguments !== ""),
        ).toBe(true);
      }),
    );
  });

  it("without index and id belong to the call opened last", () => {
    const deltas = read([
      pieceOf({}, "f", "{"),
      pieceOf({}, undefined, "}"),
      pieceOf({}, "g", "["),
      pieceOf({}, undefined, "]"),
    ]);
    expect([written(deltas, 0), written(deltas, 1)]).toEqual(["{}", "[]"]);
  });
});

describe("a piece", () => {
  it("with a list of no errors is none", () => {
    expect(textIn(read([{ ...choice({ content: "x" }, "stop"), errors: [], error: null }]))).toBe("x");
  });

  it("without text and scores is no delta; scores alone are one", () => {
    const scored = (content: unknown) => ({ choices: [{ index: 0, delta: { content: "" }, logprobs: { content } }] });
    expect(read([scored([]), choice({}, "stop")])).toHaveLength(1);
    expect(read([scored([{ token: "" }]), choice({}, "stop")])[0]).toMatchObject({ logprobs: [{ token: "" }] });
  });
});

describe("runs side by side", () => {
  const run = async function* (...deltas: ChatDelta[]) {
    yield* deltas;
  };
  const told = (promptTokens: number, cachedTokens: number, completionTokens: number): ChatDelta => ({
    ...{ type: "usage", promptTokens, cachedTokens, completionTokens },
  });

  it("that count their one prompt differently are told by the largest count of it", async () => {
    const deltas = await collected(sideBySide([run(told(9, 2, 1)), run(told(11, 8, 1)), run(told(10, 0, 1))]));
    expect(deltas).toEqual([told(11, 8, 3)]);
  });

  it("that fail together fail by the first", async () => {
    const failing = async function* (failure: "capacity" | "timeout"): AsyncGenerator<ChatDelta> {
      yield await Promise.reject(new ProviderError(failure, "failed"));
    };
    const output = collected(sideBySide([failing("capacity"), failing("timeout")]));
    await expect(output).rejects.toMatchObject({ failure: "capacity" });
  });
});
