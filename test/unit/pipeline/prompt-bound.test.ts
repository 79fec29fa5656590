import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesOf } from "../../../src/core/tokens/encoding";
import { type TokenizerName, Tokenizers } from "../../../src/core/tokens/tokenizers";
import type { ChatModel } from "../../../src/inference/catalogue";
import type { ChatRequest, EmbeddingRequest } from "../../../src/pipeline/model-request";
import { byteBound, promptGuess, tokenBound } from "../../../src/pipeline/prompt-bound";
import { ENCODINGS, idsOf, vocabularyFile } from "../core/tokens";
import { chatModel } from "../providers/calls";

const tokenizers = new Tokenizers({
  cl100k: vocabularyFile("cl100k"),
  o200k: vocabularyFile("o200k"),
  llama3Extension: vocabularyFile("llama3-extension"),
});
const named = (tokenizer: TokenizerName | null): ChatModel => ({
  ...chatModel("openai-compatible", "m", ["vision"]),
  tokenizer,
});
const ask = (messages: ChatRequest["messages"], more: Partial<ChatRequest> = {}): ChatRequest => ({
  ...{ kind: "completions", model: "m", messages, choices: 1, stream: false, serviceTier: "default" },
  ...more,
});
const [cl100k, o200k, llama3] = ENCODINGS;
const NATURAL = [
  "The customer asked whether the refund could go back to the card, and our agent explained the procedure. ",
  "export const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);\n",
  "Die Kundin fragte, ob der Betrag auf die ursprünglich verwendete Karte zurückgebucht werden könne. ",
  "客户询问退款是否可以退回到原来的付款方式，我们的客服人员详细解释了整个流程。",
  "سأل العميل عما إذا كان من الممكن إعادة المبلغ إلى طريقة الدفع الأصلية، وشرح الموظف الإجراء. ",
  "😀😂👍🏽🎉👨‍👩‍👧‍👦🇩🇪❤️🔥✨🙏🏻 ",
].map((text) => text.repeat(50));

describe("the text of token ids", () => {
  it("is what OpenAI's tokenizer made them of, and nothing where they are no tokens or no text", () => {
    expect(tokenizers.textOf([15_339, 1_917])).toBe("hello world");
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 100 }), (text) => {
        expect(tokenizers.textOf(idsOf(text))).toBe(text);
      }),
      { numRuns: 200 },
    );
    for (const ids of [[-1], [1.5], [100_256], [Number.NaN], [15_339, 1e9]])
      expect(tokenizers.textOf(ids)).toBe(undefined);
    expect(tokenizers.textOf([idsOf("🏽")[0] ?? 0])).toBe(undefined); // a part of a character
  });
});

describe("the bound of a prompt", () => {
  it.each([
    { name: "cl100k", real: cl100k.real },
    { name: "o200k", real: o200k.real },
    { name: "llama3", real: llama3.real },
  ] as const)("by $name is not below the real count, and at most 1.5 times it, in every language", ({ name, real }) => {
    for (const text of NATURAL) {
      const bound = tokenBound(ask([{ role: "user", content: text }]), named(name), tokenizers, Infinity);
      expect(bound).toBeGreaterThanOrEqual(real(text));
      expect(bound).toBeLessThanOrEqual(1.5 * real(text));
    }
  });

  it("by a tokenizer that nobody named is not below any of those known, and tight to the one that makes most of it", () => {
    for (const text of NATURAL) {
      const bound = tokenBound(ask([{ role: "user", content: text }]), named(null), tokenizers, Infinity);
      const most = Math.max(...ENCODINGS.map(({ real }) => real(text)));
      expect(bound).toBeGreaterThanOrEqual(most);
      expect(bound).toBeLessThanOrEqual(1.5 * most);
    }
  });

  it("is never above its bytes, and covers all that a template writes: names, tools, calls, formats", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 60 });
    const message = fc.oneof(
      fc.record({ role: fc.constantFrom("system", "user", "assistant"), content: text }),
      fc.record({
        role: fc.constant("user"),
        content: fc.array(fc.record({ type: fc.constant("text"), text })),
        name: text,
      }),
      fc.record({ role: fc.constant("tool"), content: text, tool_call_id: text }),
      fc.record({
        role: fc.constant("assistant"),
        content: fc.constant(null),
        tool_calls: fc.array(
          fc.record({ id: text, type: fc.constant("function"), function: fc.record({ name: text, arguments: text }) }),
        ),
      }),
    );
    const tool = fc.record({
      type: fc.constant("function"),
      function: fc.record({ name: text, description: text, parameters: fc.dictionary(text, text) }),
    });
    const names = fc.constantFrom<TokenizerName | null>("cl100k", "o200k", "llama3", "bytes", null);
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 5 }),
        fc.array(tool, { maxLength: 3 }),
        names,
        (messages, tools, name) => {
          const request = ask(messages as ChatRequest["messages"], { tools: tools as ChatRequest["tools"] & object });
          const bound = tokenBound(request, named(name), tokenizers, Infinity);
          expect(bound).toBeLessThanOrEqual(byteBound(request, named(name)));
          const real = { cl100k, o200k, llama3 }[name === "bytes" || name === null ? "cl100k" : name].real;
          const values = strings([messages, tools]).join("");
          expect(bound).toBeGreaterThanOrEqual(real(values));
          expect(promptGuess(request, named(name), tokenizers)).toBeLessThanOrEqual(bound);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("of an image is the catalogue's by its detail, whatever its address or its data is", () => {
    const image = (url: string, detail?: string) => ({
      type: "image_url" as const,
      image_url: { url, ...(detail ? { detail } : {}) },
    });
    const at = (...parts: ReturnType<typeof image>[]) => {
      const request = ask([{ role: "user", content: parts }]);
      const bounds = [byteBound(request, named(null)), tokenBound(request, named(null), tokenizers, Infinity)];
      expect(bounds[0]).toBe(bounds[1]);
      return bounds[0] ?? 0;
    };
    const { low, high } = named(null).imageTokens;
    const none = at();
    const short = "https://example.com/cat.jpg";
    expect(at(image(short)) - none).toBe(high);
    expect(at(image(short, "low")) - none).toBe(low);
    expect(at(image(short, "high"), image(short, "auto")) - none).toBe(2 * high);
    expect(at(image(`data:image/png;base64,${"A".repeat(400_000)}`)) - none).toBe(high);
  });

  it("stops beyond what there is room for, and says more than that", () => {
    const request = ask([{ role: "user", content: (NATURAL[0] ?? "").repeat(100) }]);
    const whole = tokenBound(request, named("o200k"), tokenizers, Infinity);
    const stopped = tokenBound(request, named("o200k"), tokenizers, 1_000);
    expect(stopped).toBeGreaterThan(1_000);
    expect(stopped).toBeLessThan(1_100);
    expect(tokenBound(request, named("o200k"), tokenizers, whole)).toBe(whole);
  });

  it("of labels counts what is read with each input", () => {
    const instructions = "Say which. ".repeat(200); // far more than what templates are allowed for
    const classification = { inputs: ["one", "two", "three"], labels: ["refund", "order"], instructions };
    const request = ask([], { classification, choices: 3 });
    const bound = byteBound(request, named(null));
    const once = bytesOf(instructions) + bytesOf(JSON.stringify(classification.labels));
    expect(bound).toBeGreaterThanOrEqual(3 * once + bytesOf("onetwothree"));
    const guess = promptGuess(request, named("o200k"), tokenizers);
    expect(guess).toBe(3 * (o200k.real(instructions) + 2) + 3);
    expect(guess).toBeLessThanOrEqual(bound);
  });

  it("is guessed from all that is written where nobody counts: calls of tools and their results, tools, images", () => {
    const long = "a word ".repeat(1_000);
    const guess = (request: ChatRequest) => promptGuess(request, named("o200k"), tokenizers);
    const call = { id: "c", type: "function" as const, function: { name: "f", arguments: long } };
    expect(guess(ask([{ role: "assistant", content: null, tool_calls: [call] }]))).toBe(o200k.real(long) + 1);
    expect(guess(ask([{ role: "tool", tool_call_id: "c", content: long }]))).toBe(o200k.real(long));
    const tool = { type: "function" as const, function: { name: "f", description: long } };
    expect(guess(ask([], { tools: [tool] }))).toBeGreaterThan(o200k.real(long));
    const image = { type: "image_url" as const, image_url: { url: "https://example.com/cat.jpg" } };
    expect(guess(ask([{ role: "user", content: [image] }]))).toBe(named(null).imageTokens.low);
  });

  it("of embeddings counts each input", () => {
    const request: EmbeddingRequest = {
      kind: "embeddings",
      model: "m",
      inputs: ["one two", "drei"],
      serviceTier: "default",
      stream: false,
    };
    expect(byteBound(request, named(null))).toBe(11 + 4);
    expect(promptGuess(request, named("o200k"), tokenizers)).toBe(o200k.real("one two") + o200k.real("drei"));
  });
});

/** Every text that a caller wrote into a value: not what its fields are called. */
function strings(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value !== "object" || value === null) return [];
  const fields = Object.entries(value).filter(([key]) => key !== "type" && key !== "role");
  return fields.flatMap(([, part]) => strings(part));
}
