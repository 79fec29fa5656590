import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { embed, embedMany, generateText, type LanguageModel, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { checked, streamFindings } from "../contract/contract";
import { LOCAL_CATALOGUE, type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** The clients that people use, unmodified; each reply on their way is checked against the contract. */
let platform: Platform;
let mock: MockUpstream;
let tenant: TestTenant;
const fetchChecked = checked(fetch);
const CHAT = "tiny-support-lm";
const EMBEDDING = "tiny-support-embed";
const MOCK = "mock";

beforeAll(async () => {
  mock = await MockUpstream.start();
  const models = [...LOCAL_CATALOGUE.models, upstreamModel(MOCK)];
  platform = await startPlatform({ vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "sdks", models } } });
  tenant = await new Operator(platform.url, platform.adminKey).createTenant();
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(() => mock.script({}));

const settings = () => ({ baseURL: `${platform.url}/v1`, apiKey: tenant.key, fetch: fetchChecked });
const Intent = z.object({ intent: z.enum(["cancel_order", "track_order"]) });
const QUESTION = "How do I cancel my order?";

/** The model asks for the tool once, then answers in words. */
function toolThenText(): void {
  mock.once({ toolCalls: [{ name: "look_up", arguments: '{"order":"7"}' }] });
  mock.script({ text: "It is at sea." });
}

const AI_SDK: readonly (readonly [name: string, model: (id: string) => LanguageModel])[] = [
  ["@ai-sdk/openai, by responses", (id) => createOpenAI(settings())(id)],
  ["@ai-sdk/openai, by chat", (id) => createOpenAI(settings()).chat(id)],
  [
    "@ai-sdk/openai-compatible",
    (id) =>
      createOpenAICompatible({ name: "tenantry", ...settings(), supportsStructuredOutputs: true, includeUsage: true })(
        id,
      ),
  ],
];

describe.each(AI_SDK)("the AI SDK with %s", (_, modelOf) => {
  it("writes and streams a text, the same", async () => {
    const asked = { model: modelOf(CHAT), prompt: QUESTION, temperature: 0, maxOutputTokens: 24 };
    const { text, usage, finishReason } = await generateText(asked);
    expect(text.length).toBeGreaterThan(10);
    expect([usage.inputTokens, usage.outputTokens, finishReason]).toEqual([12, 24, "length"]);
    const stream = streamText(asked);
    const pieces: string[] = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(5);
    expect(pieces.join("")).toBe(text);
    expect((await stream.usage).outputTokens).toBe(24);
    expect(streamFindings).toEqual([]);
  });

  it("gets an object of its schema", async () => {
    const { output } = await generateText({
      model: modelOf(CHAT),
      prompt: "where is my parcel",
      output: Output.object({ schema: Intent }),
    });
    expect(["cancel_order", "track_order"]).toContain(output.intent);
  });

  it("runs a tool and goes on with what it gave", async () => {
    toolThenText();
    const look_up = tool({
      description: "Looks an order up.",
      inputSchema: z.object({ order: z.string() }),
      execute: async ({ order }) => `order ${order} is at sea`,
    });
    const { text, steps } = await generateText({
      model: modelOf(MOCK),
      prompt: "Where is order 7?",
      tools: { look_up },
      stopWhen: stepCountIs(3),
    });
    expect([text, steps.length]).toEqual(["It is at sea.", 2]);
    expect(steps[0]?.toolResults[0]?.output).toBe("order 7 is at sea");
  });
});

describe("the AI SDK", () => {
  it("embeds", async () => {
    const model = createOpenAI(settings()).embedding(EMBEDDING);
    expect((await embed({ model, value: "late parcel" })).embedding).toHaveLength(192);
    expect((await embedMany({ model, values: ["a", "b"] })).embeddings).toHaveLength(2);
  });
});

const LANGCHAIN = [
  ["by chat", false],
  ["by responses", true],
] as const;

describe.each(LANGCHAIN)("LangChain, %s", (_, useResponsesApi) => {
  const modelOf = (model: string, maxTokens?: number) =>
    new ChatOpenAI({
      ...{ model, temperature: 0, useResponsesApi, apiKey: tenant.key, ...(maxTokens ? { maxTokens } : {}) },
      configuration: settings(),
    });

  it("writes and streams a text", async () => {
    const model = modelOf(CHAT, 24);
    const whole = (await model.invoke(QUESTION)).text;
    expect(whole.length).toBeGreaterThan(10);
    let streamed = "";
    for await (const chunk of await model.stream(QUESTION)) streamed += chunk.text;
    expect(streamed).toBe(whole);
  });

  it("gets an object of its schema", async () => {
    const structured = modelOf(CHAT).withStructuredOutput(Intent, {
      name: "intent",
      method: "jsonSchema",
      strict: true,
    });
    expect(["cancel_order", "track_order"]).toContain((await structured.invoke("where is my parcel")).intent);
  });

  it("calls a tool and reads its result", async () => {
    toolThenText();
    const lookUp = langchainTool(async () => "at sea", {
      ...{ name: "look_up", description: "Looks an order up.", schema: z.object({ order: z.string() }) },
    });
    const model = modelOf(MOCK).bindTools([lookUp]);
    const asked = new HumanMessage("Where is order 7?");
    const called = await model.invoke([asked]);
    const [call] = called.tool_calls ?? [];
    expect(call).toMatchObject({ name: "look_up", args: { order: "7" } });
    const result = new ToolMessage({ content: "at sea", tool_call_id: call?.id ?? "" });
    expect((await model.invoke([asked, called, result])).text).toBe("It is at sea.");
  });
});

describe("LangChain", () => {
  it("embeds", async () => {
    const embeddings = new OpenAIEmbeddings({ model: EMBEDDING, apiKey: tenant.key, configuration: settings() });
    expect(await embeddings.embedQuery("late parcel")).toHaveLength(192);
  });
});

describe("the official client", () => {
  it("runs tools by itself", async () => {
    toolThenText();
    const client = new OpenAI(settings());
    const runner = client.chat.completions.runTools({
      model: MOCK,
      messages: [{ role: "user", content: "Where is order 7?" }],
      tools: [
        {
          type: "function",
          function: {
            ...{ name: "look_up", description: "Looks an order up.", parse: JSON.parse },
            parameters: { type: "object", properties: { order: { type: "string" } } },
            function: async ({ order }: { order: string }) => `order ${order} is at sea`,
          },
        },
      ],
    });
    expect(await runner.finalContent()).toBe("It is at sea.");
    const last = mock.requests.at(-1)?.body.messages ?? [];
    expect(last.at(-1)).toMatchObject({ role: "tool", content: "order 7 is at sea" });
  });
});
