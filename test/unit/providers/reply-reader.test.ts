import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FinishRequest } from "../../../durable-objects/tenant-gate.messages";
import { type ChatDelta, ProviderError, type ProviderUsage } from "../../../src/inference/provider";
import { ReplyReader, type ReplyRules } from "../../../src/inference/providers/reply-reader";
import { sideBySide } from "../../../src/inference/providers/side-by-side";
import { checkedVectors } from "../../../src/inference/providers/vectors";
import { collected, embeddingModel, usageIn } from "./calls";

const failureOf = () => new ProviderError("broken", "as the reply says");
const UPSTREAM: ReplyRules = { usagePerChunk: false, failureOf };
const WORKERS_AI: ReplyRules = { usagePerChunk: true, failureOf };

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
