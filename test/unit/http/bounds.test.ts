import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ApiError } from "../../../src/errors";
import { list, map, typedList } from "../../../src/http/bounded";
import { parseChat } from "../../../src/http/chat-request";
import { parseClassification } from "../../../src/http/classifications";
import { parseEmbedding } from "../../../src/http/embeddings";
import { moderations } from "../../../src/http/moderations";
import { parse } from "../../../src/http/parse";
import { messagesOf } from "../../../src/http/response-items";
import { parseResponse } from "../../../src/http/response-request";
import { parseUpdate } from "../../../src/http/stored-completions";

type Refusal = { readonly code: string; readonly message: string; readonly param: string | undefined };
function refusalOf(read: () => unknown): Refusal | undefined {
  try {
    read();
    return undefined;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { code: error.code, message: error.message, param: error.options.param };
  }
}
const many = <T>(count: number, of: T | ((index: number) => T)): T[] =>
  Array.from({ length: count }, (_, at) => (typeof of === "function" ? (of as (index: number) => T)(at) : of));
const mapOf = <T>(count: number, value: T, keyOf = (at: number) => `${at}`): Record<string, T> =>
  Object.fromEntries(many(count, (at) => [keyOf(at), value] as const));

const message = { role: "user", content: "hi" };
const chat = (more: object) => parseChat({ model: "m", messages: [message], ...more });
const response = (more: object) => parseResponse({ model: "m", input: "hi", ...more });
const functionTool = { type: "function", function: { name: "f" } };
const call = { id: "c", type: "function", function: { name: "f", arguments: "" } };

/** A field, what it takes at most, and what is one too many. */
const BOUNDS: readonly (readonly [string, string, number, (count: number) => unknown])[] = [
  ["messages of a chat", "messages", 10_000, (count) => chat({ messages: many(count, message) })],
  [
    "parts of a message",
    "messages[0].content",
    2_048,
    (count) => chat({ messages: [{ role: "user", content: many(count, { type: "text", text: "" }) }] }),
  ],
  [
    "calls of a message",
    "messages[0].tool_calls",
    128,
    (count) => chat({ messages: [{ role: "assistant", content: null, tool_calls: many(count, call) }] }),
  ],
  ["tools of a chat", "tools", 128, (count) => chat({ tools: many(count, functionTool) })],
  ["stop strings", "stop", 4, (count) => chat({ stop: many(count, "x") })],
  ["biases", "logit_bias", 1_024, (count) => chat({ logit_bias: mapOf(count, 1) })],
  ["labels of a chat", "metadata", 16, (count) => chat({ metadata: mapOf(count, "x") })],
  ["items of a response", "input", 10_000, (count) => response({ input: many(count, message) })],
  [
    "parts of an item",
    "input[0].content",
    2_048,
    (count) => response({ input: [{ role: "user", content: many(count, { type: "input_text", text: "" }) }] }),
  ],
  ["tools of a response", "tools", 128, (count) => response({ tools: many(count, { type: "function", name: "f" }) })],
  ["labels of a response", "metadata", 16, (count) => response({ metadata: mapOf(count, "x") })],
  ["includes", "include", 16, (count) => response({ include: many(count, "x") })],
  ["embedded texts", "input", 2_048, (count) => parseEmbedding({ model: "m", input: many(count, "x") })],
  ["judged texts", "input", 128, (count) => moderations.parse({ input: many(count, "x") })],
  ["judged parts", "input", 128, (count) => moderations.parse({ input: many(count, { type: "text", text: "" }) })],
  [
    "classified texts",
    "input",
    128,
    (count) => parseClassification({ model: "m", input: many(count, "x"), labels: ["a", "b"] }),
  ],
  [
    "classes",
    "labels",
    100,
    (count) => parseClassification({ model: "m", input: "x", labels: many(count, (at) => `label ${at}`) }),
  ],
  ["labels of what is stored", "metadata", 16, (count) => parseUpdate({ metadata: mapOf(count, "x") })],
];

describe("a request", () => {
  it.each(BOUNDS)("may have so many %s, and no more: '%s' is named with its %i", (_, param, most, read) => {
    expect(refusalOf(() => read(most))).toBeUndefined();
    const refusal = refusalOf(() => read(most + 1));
    expect(refusal).toMatchObject({ code: "invalid_value", param });
    expect(refusal?.message).toContain(`at most ${most} `);
  });

  it("may have a schema of 65,536 characters for its reply, strict or not", () => {
    const schemaOf = (characters: number) => ({ description: "x".repeat(characters - '{"description":""}'.length) });
    const asChat = (size: number) =>
      chat({ response_format: { type: "json_schema", json_schema: { name: "x", schema: schemaOf(size) } } });
    const asResponse = (size: number) =>
      response({ text: { format: { type: "json_schema", name: "x", schema: schemaOf(size) } } });
    for (const [read, param] of [
      [asChat, "response_format.json_schema.schema"],
      [asResponse, "text.format.schema"],
    ] as const) {
      expect(refusalOf(() => read(65_536))).toBeUndefined();
      expect(refusalOf(() => read(65_537))).toMatchObject({ code: "invalid_value", param });
    }
  });

  it("is told the first of its mistakes, and nothing it wrote at any length", () => {
    const long = "k".repeat(5_000);
    for (const read of [
      () => chat({ [long]: 1 }),
      () => chat({ metadata: { [long]: 1 } }),
      () => chat({ messages: [{ role: "user", content: "", [long]: 1 }] }),
      () => response({ input: [{ type: `mcp_${long}` }] }),
      () => response({ tools: [{ type: long }] }),
      () => response({ tools: [{ type: "function", name: "f" }], tool_choice: { type: long } }),
      () =>
        chat({
          tools: [
            {
              ...{ type: "function" },
              function: {
                ...{ name: "f", strict: true },
                parameters: { type: "object", properties: { [long]: { type: "none" } }, required: [long] },
              },
            },
          ],
        }),
    ]) {
      const refusal = refusalOf(read);
      expect((refusal?.message.length ?? 9_999) + (refusal?.param?.length ?? 0)).toBeLessThan(1_000);
    }
  });
});

describe("a list", () => {
  /** A value that notes that somebody looked at it. */
  function watched(count: number, element: unknown) {
    let looked = 0;
    const elements = new Proxy(many(count, element), {
      get(target, key, receiver) {
        if (typeof key === "string" && /^\d+$/.test(key)) looked++;
        return Reflect.get(target, key, receiver);
      },
    });
    return { elements, looked: () => looked };
  }
  const ofTexts = list(z.string(), { max: 10 });
  const ofEither = z.union([z.string(), list(z.string(), { max: 10 }), list(z.number(), { max: 10 })]);
  const typed = typedList(10, () => z.strictObject({ type: z.literal("a") }));

  it.each([
    ["alone", ofTexts],
    ["as one of several", ofEither],
    ["of elements by their type", typed],
  ])("that is too long is refused before any of its elements is looked at: %s", (_, schema) => {
    const { elements, looked } = watched(1_000, 0);
    expect(refusalOf(() => parse(z.object({ x: schema }), { x: elements }))).toMatchObject({ param: "x" });
    expect(looked()).toBe(0);
  });

  it.each([
    ["alone", ofTexts, null],
    ["of elements by their type", typed, { type: "b" }],
    ["with no bound of its own", z.array(z.string()), null],
  ])("is read up to its first mistake: %s", (_, schema, mistake) => {
    const { elements, looked } = watched(10, mistake);
    expect(refusalOf(() => parse(z.object({ x: schema }), { x: elements }))?.param).toMatch(/^x\[0\]/);
    expect(looked()).toBeLessThanOrEqual(2);
  });

  it("that is none, or is missing, is told as such", () => {
    for (const schema of [ofTexts, typed]) {
      expect(refusalOf(() => parse(z.object({ x: schema }), { x: 5 }))).toMatchObject({
        code: "invalid_value",
        param: "x",
      });
      expect(refusalOf(() => parse(z.object({ x: schema }), {}))?.code).toBe("missing_required_parameter");
    }
    expect(parse(z.object({ x: map(z.string(), z.string(), { max: 1 }).nullish() }), { x: null })).toEqual({ x: null });
  });
});

describe("calls of functions, one after another", () => {
  it("become one message, each in its place, and change nothing that was given", () => {
    const item = (at: number) => ({ type: "function_call" as const, call_id: `c${at}`, name: "f", arguments: "" });
    const items = many(3_000, item);
    const before = JSON.stringify(items);
    const messages = messagesOf([
      { role: "assistant", content: "so" },
      ...items,
      { role: "user", content: "x" },
      item(1),
    ]);
    expect(messages.map(({ role }) => role)).toEqual(["assistant", "user", "assistant"]);
    expect(messages[0]?.tool_calls?.map(({ id }) => id)).toEqual(items.map(({ call_id }) => call_id));
    expect(messages[2]?.tool_calls).toHaveLength(1);
    expect(JSON.stringify(items)).toBe(before);
  });
});
