import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Capability } from "../../../src/inference/catalogue";
import type { ChatCall } from "../../../src/inference/provider";
import { seedOf, workersAiInputs } from "../../../src/inference/providers/workers-ai-inputs";
import { chatCall, chatModel, failureOf } from "./calls";

const LLAMA = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";
const GLM = "@cf/zai-org/glm-4.7-flash";

const inputs = (more: Partial<ChatCall>, providerModel = LLAMA, capabilities: Capability[] = []) =>
  workersAiInputs(chatCall(chatModel("workers-ai", providerModel, capabilities), more), 0);

describe("what Workers AI is asked", () => {
  it("holds the cap always, and nothing that was not asked for", () => {
    expect(inputs({ stream: false, maxOutputTokens: 33 })).toEqual({
      messages: [{ role: "user", content: "hi" }],
      max_tokens: 33,
    });
  });

  it("names parameters as the contract does", () => {
    const asked = {
      temperature: 0.5,
      topP: 0.9,
      topK: 5,
      seed: 3,
      stop: ["x"],
      frequencyPenalty: 0.1,
      presencePenalty: 0.2,
      repetitionPenalty: 1.1,
      logitBias: { "5": 1 },
      logprobs: true,
      topLogprobs: 2,
      parallelToolCalls: false,
    };
    expect(inputs(asked)).toMatchObject({
      stream: true,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 5,
      seed: 3,
      stop: ["x"],
      frequency_penalty: 0.1,
      presence_penalty: 0.2,
      repetition_penalty: 1.1,
      logit_bias: { "5": 1 },
      logprobs: true,
      top_logprobs: 2,
      parallel_tool_calls: false,
    });
  });

  it("keeps top_p above the zero that Workers AI refuses", () => {
    expect(inputs({ topP: 0 })).toMatchObject({ top_p: 0.001 });
  });

  it("turns developer into system and joins parts of text", () => {
    const messages: ChatCall["messages"] = [
      {
        role: "developer",
        content: [
          { type: "text", text: "be " },
          { type: "text", text: "brief" },
        ],
      },
      { role: "assistant", content: [{ type: "refusal", refusal: "no" }] },
      { role: "user", content: "hi" },
    ];
    expect(inputs({ messages })).toMatchObject({
      messages: [
        { role: "system", content: "be brief" },
        { role: "assistant", content: "no" },
        { role: "user", content: "hi" },
      ],
    });
  });

  it("shows images only to a model that sees", async () => {
    const content = [
      { type: "text" as const, text: "what?" },
      { type: "image_url" as const, image_url: { url: "data:image/png;base64,AA==" } },
    ];
    const messages = [{ role: "user" as const, content }];
    expect(inputs({ messages }, LLAMA, ["vision"])).toMatchObject({ messages: [{ role: "user", content }] });
    expect((await failureOf(async () => inputs({ messages }))).failure).toBe("bad_input");
  });

  it("completes tools as classic models require, and tells a tool's result by the tool's name", () => {
    const asked = inputs({
      tools: [{ type: "function", function: { name: "look_up" } }],
      toolChoice: "required",
      messages: [
        { role: "user", content: "look" },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "call_1", type: "function", function: { name: "look_up", arguments: "{}" } }],
        },
        { role: "tool", tool_call_id: "call_1", content: "found" },
      ],
    });
    expect(asked).toMatchObject({
      tools: [
        {
          type: "function",
          function: { name: "look_up", description: "look_up", parameters: { type: "object", properties: {} } },
        },
      ],
      tool_choice: "required",
    });
    expect((asked.messages as unknown[]).slice(1)).toEqual([
      {
        role: "assistant",
        content: "",
        tool_calls: [{ id: "call_1", type: "function", function: { name: "look_up", arguments: "{}" } }],
      },
      { role: "tool", content: "found", tool_call_id: "call_1", name: "look_up" },
    ]);
  });

  it("asks for strict tools where the caller did, and never says that they are not", () => {
    const asked = (strict?: boolean | null) =>
      inputs({ tools: [{ type: "function", function: { name: "f", ...(strict === undefined ? {} : { strict }) } }] });
    const toolIn = ({ tools }: Record<string, unknown>) => (tools as { function: object }[])[0]?.function;
    expect(toolIn(asked(true))).toHaveProperty("strict", true);
    for (const strict of [false, null, undefined]) expect(toolIn(asked(strict))).not.toHaveProperty("strict");
  });

  it("has no tools where the caller's list is empty", () => {
    expect(inputs({ tools: [], toolChoice: "auto" })).not.toHaveProperty("tools");
  });

  it("withholds the tools from a call that must not use them", () => {
    const asked = inputs({ tools: [{ type: "function", function: { name: "look_up" } }], toolChoice: "none" });
    expect(asked).not.toHaveProperty("tools");
    expect(asked).not.toHaveProperty("tool_choice");
  });

  it("hands Llama the bare schema and newer models OpenAI's envelope, and never streams JSON mode", () => {
    const schema = { type: "object", properties: { a: { type: "number" } } };
    const responseFormat = { type: "json_schema" as const, json_schema: { name: "answer", schema } };
    expect(inputs({ responseFormat })).toMatchObject({ response_format: { type: "json_schema", json_schema: schema } });
    expect(inputs({ responseFormat }, GLM)).toMatchObject({ response_format: responseFormat });
    expect(inputs({ responseFormat: { type: "json_object" } })).toMatchObject({
      response_format: { type: "json_object" },
    });
    expect(inputs({ responseFormat })).not.toHaveProperty("stream");
    const plain = inputs({ responseFormat: { type: "text" } });
    expect(plain).toMatchObject({ stream: true });
    expect(plain).not.toHaveProperty("response_format");
  });

  it.each([
    ["none", { chat_template_kwargs: { enable_thinking: false } }],
    ["minimal", { reasoning_effort: "low" }],
    ["medium", { reasoning_effort: "medium" }],
    ["xhigh", { reasoning_effort: "high" }],
  ])("translates the reasoning effort %s", (reasoningEffort, expected) => {
    expect(inputs({ reasoningEffort }, GLM)).toMatchObject(expected);
  });
});

describe("the seeds of a call's choices", () => {
  const anySeed = fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -20, max: 20 }));

  it("are whole numbers that Workers AI takes, distinct, and the same each time", () => {
    fc.assert(
      fc.property(anySeed, (seed) => {
        const seeds = Array.from({ length: 128 }, (_, choice) => seedOf(seed, choice));
        expect(seeds.every((one) => Number.isInteger(one) && one >= 1 && one <= 9_999_999_999)).toBe(true);
        expect(new Set(seeds).size).toBe(seeds.length);
        expect(seeds[5]).toBe(seedOf(seed, 5));
      }),
    );
  });

  it("begin with the caller's own wherever Workers AI takes it", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 9_999_999_999 }), (seed) => seedOf(seed, 0) === seed));
  });

  it("are absent where the caller gave none", () => {
    const call = chatCall(chatModel("workers-ai", GLM), { choices: 3 });
    expect(workersAiInputs(call, 2)).not.toHaveProperty("seed");
  });
});
