import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InferenceUpstreamError } from "../../local-ai/errors";
import { parseBatch, parseClassification, parseEmbeddings, parseTextGeneration } from "../../local-ai/inputs";

function errorOf(parse: (inputs: unknown) => unknown, inputs: unknown): Error {
  try {
    parse(inputs);
  } catch (error) {
    return error as Error;
  }
  throw new Error("was accepted");
}

describe("inputs", () => {
  it("have Workers AI's defaults", () => {
    expect(parseTextGeneration({ prompt: "hi" })).toMatchObject({
      max_tokens: 256,
      temperature: 0.6,
      top_p: 1,
      raw: false,
      stream: false,
      stop: [],
    });
  });

  it.each([
    ["nothing", undefined],
    ["a string", "hi"],
    ["neither messages nor prompt", {}],
    ["both", { prompt: "a", messages: [{ role: "user", content: "b" }] }],
    ["no messages", { messages: [] }],
    ["an unknown role", { messages: [{ role: "tool", content: "a" }] }],
    ["an image", { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "a" } }] }] }],
    ["a number as prompt", { prompt: 5 }],
    ["no tokens", { prompt: "a", max_tokens: 0 }],
    ["half a token", { prompt: "a", max_tokens: 1.5 }],
    ["a temperature that is no number", { prompt: "a", temperature: Number.NaN }],
    ["an infinite penalty", { prompt: "a", presence_penalty: Number.POSITIVE_INFINITY }],
    ["too many stop strings", { prompt: "a", stop: Array.from({ length: 17 }, () => "x") }],
    ["tools", { prompt: "a", tools: [] }],
    ["a response format that there is not", { prompt: "a", response_format: { type: "xml" } }],
    ["a schema that is none", { prompt: "a", response_format: { type: "json_schema", json_schema: 5 } }],
    ["an adapter without a name", { prompt: "a", lora: "" }],
  ])("are refused as bad input: %s", (_, inputs) => {
    expect(errorOf(parseTextGeneration, inputs)).toMatchObject({
      name: "InferenceUpstreamError",
      message: expect.stringMatching(/^5006: [^\n]+$/),
    });
  });

  it("are refused in few words, however much is wrong with them", () => {
    const messages = Array.from({ length: 200 }, () => ({ role: "user", content: 5 }));
    expect(errorOf(parseTextGeneration, { messages }).message.length).toBeLessThan(300);
  });

  it("take a schema as it is, and in OpenAI's envelope of name and schema", () => {
    const schema = { type: "object", properties: { name: { type: "string" } } };
    for (const json_schema of [schema, { name: "person", schema }])
      expect(parseTextGeneration({ prompt: "a", response_format: { type: "json_schema", json_schema } }).json).toEqual({
        type: "json_schema",
        json_schema: schema,
      });
    expect(parseTextGeneration({ prompt: "a", response_format: { type: "text" } }).json).toBeUndefined();
  });

  it.each([[{}], [{ text: 5 }], [{ text: [] }], [{ text: [""] }], [{ text: Array.from({ length: 101 }, () => "a") }]])(
    "of embeddings are refused as bad input: %j",
    (inputs) => {
      expect(errorOf(parseEmbeddings, inputs).message).toMatch(/^5006: /);
    },
  );

  it.each([
    ["messages", parseTextGeneration, 256],
    ["stop", parseTextGeneration, 16],
    ["text", parseEmbeddings, 100],
    ["text", (inputs: unknown) => parseClassification(inputs), 100],
    ["labels", (inputs: unknown) => parseClassification(inputs), 100],
    ["requests", (inputs: unknown) => parseBatch(inputs), 1_000],
  ])("'%s' is counted before anything in it is looked at", (name, read, most) => {
    let looked = 0;
    const list = new Proxy(Array(most + 1).fill(0), {
      get(target, key, receiver) {
        if (typeof key === "string" && /^\d+$/.test(key)) looked++;
        return Reflect.get(target, key, receiver);
      },
    });
    expect(errorOf(read, { [name]: list }).message).toContain(`more than ${most} elements`);
    expect(looked).toBe(0);
  });

  it("of any kind are accepted or refused, never anything else", () => {
    const keys = ["messages", "prompt", "text", "stop", "stream", "max_tokens", "lora"] as const;
    const anything = fc.anything({ withTypedArray: true, withNullPrototype: true });
    const inputs = fc.oneof(anything, fc.dictionary(fc.constantFrom(...keys), anything));
    fc.assert(
      fc.property(inputs, (value) => {
        for (const parse of [parseTextGeneration, parseEmbeddings]) {
          try {
            parse(value);
          } catch (error) {
            expect(error).toBeInstanceOf(InferenceUpstreamError);
          }
        }
      }),
    );
  });
});
