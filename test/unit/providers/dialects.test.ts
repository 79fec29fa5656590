import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ModelCatalogue } from "../../../src/inference/catalogue";
import { type DeclaredDialect, dialectOf } from "../../../src/inference/dialect";
import type { ChatCall, ChatMessage } from "../../../src/inference/provider";
import { LearnedDialects } from "../../../src/inference/providers/learned-dialects";
import { openaiCompatible } from "../../../src/inference/providers/openai-compatible";
import { MockUpstream } from "../../mock-upstream";
import {
  chatCall,
  chatModel,
  collected,
  embeddingModel,
  failureOf,
  finishesIn,
  never,
  textIn,
  toolCallsIn,
  usageIn,
} from "./calls";

type Sent = Readonly<Record<string, unknown>>;
/** Takes or refuses a request by what is in it; a refusal is a status and a body. */
type Server = (sent: Sent) => Refused | undefined;
interface Refused {
  readonly status: number;
  readonly body: unknown;
}

const whole = (content: unknown) => ({
  choices: [{ index: 0, message: { content }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 2 },
});
let sent: Sent[] = [];
let dialects = new LearnedDialects();
let nowMs = 0;
beforeEach(() => {
  sent = [];
  nowMs = 0;
  dialects = new LearnedDialects(() => nowMs);
});

const upstream = (server: Server, reply: unknown = whole("ok")) =>
  openaiCompatible({
    ...{ baseUrl: "http://upstream/v1", apiKey: null, timeoutMs: 20_000, dialects },
    fetch: async (_, init) => {
      const body = JSON.parse(String(init?.body)) as Sent;
      sent.push(body);
      const refused = server(body);
      return Response.json(refused?.body ?? reply, { status: refused?.status ?? 200 });
    },
  });
const model = (dialect?: DeclaredDialect) => ({
  ...chatModel("openai-compatible", "m", ["tools"]),
  ...(dialect ? { dialect } : {}),
});
const asked = async (server: Server, more: Partial<ChatCall> = {}, dialect?: DeclaredDialect) =>
  collected(await upstream(server).chat(chatCall(model(dialect), { stream: false, ...more }), never));

const refusal = (message: string, status = 400, more: object = {}): Refused => ({
  status,
  body: { error: { message, ...more } },
});
const without =
  (name: string, refused = refusal(`Unsupported parameter: '${name}' is not supported with this model.`)): Server =>
  (body) =>
    name in body ? refused : undefined;

const TOOLS = [{ type: "function" as const, function: { name: "f", parameters: {} } }];

describe("a parameter that a server refuses by name", () => {
  it.each<[string, Refused]>([
    [
      "OpenAI's words",
      refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", 400, { param: "max_tokens" }),
    ],
    [
      "a validator's",
      {
        status: 422,
        body: {
          detail: [{ type: "extra_forbidden", loc: ["body", "max_tokens"], msg: "Extra inputs are not permitted" }],
        },
      },
    ],
    ["plain words", { status: 400, body: "unknown field max_tokens" }],
  ])("is sent under its other name, in %s", async (_, refused) => {
    expect(textIn(await asked(without("max_tokens", refused)))).toBe("ok");
    expect(sent.map((body) => [body.max_tokens, body.max_completion_tokens])).toEqual([
      [100, undefined],
      [undefined, 100],
    ]);
  });

  it("is sent under neither where the server takes no cap at all, and under the old one again where that was declared wrong", async () => {
    const neither: Server = (body) => without("max_tokens")(body) ?? without("max_completion_tokens")(body);
    expect(textIn(await asked(neither))).toBe("ok");
    expect(sent).toHaveLength(3);
    sent = [];
    dialects = new LearnedDialects();
    await asked(without("max_completion_tokens"), {}, { output_cap: "max_completion_tokens" });
    expect(sent.at(-1)).toHaveProperty("max_tokens", 100);
  });

  it.each<[string, Partial<ChatCall>]>([
    ["stream_options", { stream: true }],
    ["parallel_tool_calls", { tools: TOOLS, parallelToolCalls: true }],
    ["seed", { seed: 7 }],
    ["temperature", { temperature: 1 }],
    ["logprobs", { logprobs: false }],
    ["tool_choice", { tools: TOOLS, toolChoice: "auto" }],
    ["response_format", { responseFormat: { type: "text" } }],
  ])("is left out where nobody gets less than they asked for: %s", async (name, more) => {
    expect(textIn(await asked(without(name), more))).toBe("ok");
    expect(sent.map((body) => name in body)).toEqual([true, false]);
  });

  it.each<[string, Partial<ChatCall>]>([
    ["temperature", { temperature: 0.2 }],
    ["logprobs", { logprobs: true }],
    ["response_format", { responseFormat: { type: "json_object" } }],
    ["tool_choice", { tools: TOOLS, toolChoice: "required" }],
    ["stop", { stop: ["x"] }],
  ])("is told to the caller where leaving it out would change the answer: %s", async (name, more) => {
    const failure = await failureOf(() => asked(without(name), more));
    expect([failure.failure, failure.detail.param, sent.length]).toEqual(["bad_input", name, 1]);
  });

  it("that limits calls to one is kept by us where the server does not know it", async () => {
    const call = (id: string) => ({ id, type: "function", function: { name: "f", arguments: "{}" } });
    const reply = { choices: [{ message: { tool_calls: [call("a"), call("b")] }, finish_reason: "tool_calls" }] };
    const server = upstream(without("parallel_tool_calls"), reply);
    const more = { stream: false, tools: TOOLS, parallelToolCalls: false };
    const deltas = await collected(await server.chat(chatCall(model(), more), never));
    expect(toolCallsIn(deltas)).toMatchObject([{ id: "a" }]);
  });

  it("several at once are corrected one by one, and a server that is never content fails", async () => {
    const strict: Server = (body) =>
      without("max_tokens")(body) ?? without("stream_options")(body) ?? without("seed")(body);
    expect(textIn(await asked(strict, { stream: true, seed: 1 }))).toBe("ok");
    expect(sent).toHaveLength(4);
    sent = [];
    const never = await failureOf(() => asked(() => refusal("unknown parameter seed, temperature"), { seed: 1 }));
    expect(never.failure).toBe("bad_input");
    expect(sent.length).toBeLessThanOrEqual(5);
  });

  it("is asked for again for nothing else: busy, forbidden or broken servers get one request", async () => {
    for (const status of [401, 403, 404, 429, 503]) {
      sent = [];
      await failureOf(() => asked(() => refusal("Unsupported parameter: 'max_tokens'", status)));
      expect(sent).toHaveLength(1);
    }
  });
});

describe("what was learned", () => {
  const strict = without("max_tokens");

  it("goes right at once from then on, at that endpoint and for that model only", async () => {
    await asked(strict);
    await asked(strict);
    expect(sent.map((body) => "max_tokens" in body)).toEqual([true, false, false]);
    const other = { ...model(), providerModel: "other" };
    await collected(await upstream(() => undefined).chat(chatCall(other, { stream: false }), never));
    expect(sent.at(-1)).toHaveProperty("max_tokens");
  });

  it("is not remembered where the correction did not help", async () => {
    await failureOf(() => asked((body) => strict(body) ?? refusal("boom", 500)));
    await asked(() => undefined);
    expect(sent.at(-1)).toHaveProperty("max_tokens");
  });

  it("is doubted after a few calls: believed for longer where it proves true, forgotten where it does not", async () => {
    for (let call = 0; call < 20; call++) await asked(strict);
    const tried = sent.map((body) => "max_tokens" in body);
    expect(tried.filter(Boolean).length).toBe(3); // at first, after 3 calls, after 6 more
    sent = [];
    for (let call = 0; call < 20; call++) await asked(() => undefined);
    expect(sent.at(-1)).toHaveProperty("max_tokens");
  });

  it("earns no longer trust by what another refusal teaches", () => {
    const trusted = () => {
      let calls = 0;
      while (calls < 100 && dialects.recall("e", "m").trusted) calls++;
      return calls;
    };
    const first = { ...dialectOf(), hasOneChoice: true };
    dialects.remember("e", "m", first);
    expect(trusted()).toBe(3);
    dialects.remember("e", "m", first);
    expect(trusted()).toBe(6);
    dialects.remember("e", "m", { ...first, omit: ["stream_options"] });
    expect(trusted()).toBe(3);
  });

  it("expires within the hour, and is bounded", () => {
    const learned = { ...dialectOf(), hasOneChoice: true };
    dialects.remember("e", "m", learned);
    expect(dialects.recall("e", "m")).toEqual({ trusted: learned });
    nowMs = 3_600_000;
    expect(dialects.recall("e", "m")).toEqual({});
    for (let at = 0; at < 1_000; at++) dialects.remember("e", `m${at}`, learned);
    expect(dialects.recall("e", "m0")).toEqual({});
    expect(dialects.recall("e", "m999")).toEqual({ trusted: learned });
  });
});

describe("what a catalogue declares", () => {
  it("is sent at once", async () => {
    const declared: DeclaredDialect = { output_cap: "max_completion_tokens", omit: ["stream_options"] };
    await asked(() => undefined, { stream: true }, declared);
    expect(sent).toHaveLength(1);
    expect(sent[0]).toMatchObject({ max_completion_tokens: 100 });
    expect(sent[0]).not.toHaveProperty("stream_options");
    expect(sent[0]).not.toHaveProperty("max_tokens");
  });

  it("is written in snake_case, and names of models may have colons", () => {
    const entry = {
      ...{ name: "hf.co/x/y:Q4_K_M", task: "chat", owned_by: "x", created: 0, provider: "openai-compatible" },
      ...{ provider_model: "hf.co/x/y:Q4_K_M", context_tokens: 10, default_max_output_tokens: 5, regions: ["global"] },
    };
    const parse = (more: object) => ModelCatalogue.parse({ version: "1", models: [{ ...entry, ...more }] });
    expect(parse({ dialect: { one_choice: true } }).find("hf.co/x/y:Q4_K_M")?.dialect).toEqual({ one_choice: true });
    expect(() => parse({ dialect: { one_choyce: true } })).toThrow();
    expect(() => parse({ name: "ft:base:tenant" })).toThrow();
    expect(() => parse({ name: "a b" })).toThrow();
  });
});

describe("a cap that the caller never set", () => {
  const roomFor = (prompt: number, context: number, words: (total: number, cap: number) => string): Server => {
    return (body) => {
      const cap = Number(body.max_tokens ?? 0);
      return prompt + cap > context ? refusal(words(prompt + cap, cap)) : undefined;
    };
  };
  const wordings: [string, (total: number, cap: number) => string][] = [
    ["vLLM", (total) => `This model's maximum context length is 2048 tokens. However, you requested ${total} tokens`],
    [
      "OpenAI",
      (total, cap) =>
        `This model's maximum context length is 2048 tokens. However, you requested ${total} tokens (${total - cap} in the messages, ${cap} in the completion).`,
    ],
    [
      "newer vLLM",
      (total, cap) =>
        `'max_tokens' or 'max_completion_tokens' is too large: ${cap}. This model's maximum context length is 2048 tokens and your request has ${total - cap} input tokens (${cap} > 2048 - ${total - cap}).`,
    ],
    [
      "TGI",
      (total, cap) =>
        `Input validation error: \`inputs\` tokens + \`max_new_tokens\` must be <= 2048. Given: ${total - cap} \`inputs\` tokens and ${cap} \`max_new_tokens\``,
    ],
  ];
  it.each(wordings)("is lowered to what the context leaves, in the words of %s", async (_, words) => {
    await asked(roomFor(2_000, 2_048, words), { isCapDefault: true });
    expect(sent.map((body) => body.max_tokens)).toEqual([100, 48]);
  });

  it("is left to the server where it does not say how much there is", async () => {
    await asked(
      roomFor(2_000, 2_048, () => "the request exceeds the context"),
      { isCapDefault: true },
    );
    expect(sent.map((body) => body.max_tokens)).toEqual([100, undefined]);
  });

  it("stays, and fails, where the caller did set it, or the prompt alone is too long", async () => {
    for (const [prompt, isCapDefault] of [
      [2_000, false],
      [3_000, true],
    ] as const) {
      const failure = await failureOf(() => asked(roomFor(prompt, 2_048, wordings[0]?.[1] as never), { isCapDefault }));
      expect(failure.failure).toBe("context_length");
    }
  });
});

describe("parts of a message", () => {
  it("are joined so that two texts stay two, and one text that was cut in its middle stays one", async () => {
    const partsOf = (...texts: readonly string[]) => texts.map((text) => ({ type: "text" as const, text }));
    for (const [parts, expected] of [
      [partsOf("Explain the code", "def f()"), "Explain the code\ndef f()"],
      [partsOf("be ", "brief"), "be brief"],
      [partsOf("a\n", "b", "", "c"), "a\nb\nc"],
    ] as const) {
      await asked(() => undefined, { messages: [{ role: "user", content: parts }] });
      expect(sent.at(-1)?.messages).toEqual([{ role: "user", content: expected }]);
    }
  });
});

describe("templates that know fewer roles", () => {
  const messages: ChatMessage[] = [
    { role: "system", content: "Be brief." },
    { role: "developer", content: "The folder is /tmp." },
    { role: "user", content: "hi" },
    { role: "user", content: "there" },
  ];
  const roles = (body: Sent | undefined) =>
    ((body?.messages ?? []) as { role: string; content: string }[]).map(({ role, content }) => [role, content]);

  it("get one message of the system, at the beginning", async () => {
    const server: Server = (body) =>
      roles(body).some(([role], at) => role === "system" && at > 0)
        ? refusal("System message must be at the beginning.", 500)
        : undefined;
    await asked(server, { messages });
    expect(roles(sent.at(-1))).toEqual([
      ["system", "Be brief.\n\nThe folder is /tmp."],
      ["user", "hi"],
      ["user", "there"],
    ]);
  });

  it("get it in the user's first message where they know no system", async () => {
    const server: Server = (body) =>
      roles(body).some(([role]) => role === "system") ? refusal("System role not supported") : undefined;
    await asked(server, { messages });
    expect(roles(sent.at(-1))[0]).toEqual(["user", "Be brief.\n\nThe folder is /tmp.\n\nhi"]);
  });

  it("get roles that alternate", async () => {
    const server: Server = (body) =>
      roles(body).some(([role], at) => at > 0 && role === roles(body)[at - 1]?.[0])
        ? refusal("Conversation roles must alternate user/assistant/user/assistant/...")
        : undefined;
    await asked(server, { messages });
    expect(roles(sent.at(-1))).toEqual([
      ["system", "Be brief.\n\nThe folder is /tmp."],
      ["user", "hi\n\nthere"],
    ]);
  });
});

describe("reasoning of earlier messages", () => {
  const messages: ChatMessage[] = [
    { role: "assistant", content: "a", reasoning: "hm" },
    { role: "user", content: "hi" },
  ];
  const bears = (body: Sent | undefined) => JSON.stringify(body).includes("reasoning_content");

  it("is sent where the server wants it back, by declaration or because it says so", async () => {
    await asked(() => undefined, { messages });
    expect(bears(sent.at(-1))).toBe(false);
    await asked(() => undefined, { messages }, { reasoning_passed_back: true });
    expect(bears(sent.at(-1))).toBe(true);
    const wants: Server = (body) =>
      bears(body) ? undefined : refusal("The reasoning_content in the thinking mode must be passed back to the API.");
    await asked(wants, { messages });
    expect(bears(sent.at(-1))).toBe(true);
  });
});

describe("several choices of a server that knows one", () => {
  it.each<[string, Server, DeclaredDialect | undefined, unknown[]]>([
    ["ignores n", () => undefined, undefined, [3, undefined, undefined]],
    ["refuses n", without("n"), undefined, [3, undefined, undefined, undefined]],
    ["is declared so", () => undefined, { one_choice: true }, [undefined, undefined, undefined]],
  ])("that %s are a call each, with ends and one usage of all at the end", async (_, server, declared, n) => {
    const deltas = await asked(server, { choices: 3, seed: 5 }, declared);
    expect([0, 1, 2].map((choice) => textIn(deltas, choice))).toEqual(["ok", "ok", "ok"]);
    expect(finishesIn(deltas).map(({ choice }) => choice)).toEqual([0, 1, 2]);
    expect(usageIn(deltas)).toEqual({ type: "usage", promptTokens: 9, cachedTokens: 0, completionTokens: 6 });
    expect(deltas.at(-1)).toMatchObject({ type: "usage" });
    expect(sent.map((body) => body.n)).toEqual(n);
    expect(sent.slice(-3).map((body) => body.seed)).toEqual([5, 6, 7]);
  });

  it("is asked so from then on, and an answer with all of them is left as it is", async () => {
    await asked(() => undefined, { choices: 2 });
    sent = [];
    await asked(() => undefined, { choices: 2 });
    expect(sent.map((body) => body.n)).toEqual([undefined, undefined]);
  });

  it("has no usage where one of its calls tells none", async () => {
    let calls = 0;
    const server = openaiCompatible({
      ...{ baseUrl: "http://upstream/v1", apiKey: null, timeoutMs: 20_000, dialects },
      fetch: async () => Response.json(calls++ === 0 ? whole("ok") : { choices: whole("ok").choices }),
    });
    const deltas = await collected(await server.chat(chatCall(model(), { stream: false, choices: 2 }), never));
    expect(usageIn(deltas)).toBeUndefined();
  });
});

describe("embeddings of a server", () => {
  let mock: MockUpstream;
  beforeEach(async () => {
    mock = await MockUpstream.start();
  });
  afterEach(() => mock.stop());

  it("have the length that they have, where the catalogue does not know it; of one call, all the same", async () => {
    const anyLength = { ...embeddingModel("openai-compatible", 3), dimensions: null };
    const provider = openaiCompatible({ baseUrl: mock.url, apiKey: null, timeoutMs: 20_000, fetch });
    for (const dimensions of [1, 384, 1_536]) {
      mock.script({ dimensions });
      const { vectors } = await provider.embed({ model: anyLength, inputs: ["a", "b"] }, never);
      expect(vectors.map(({ length }) => length)).toEqual([dimensions, dimensions]);
    }
    const wanted = { model: anyLength, inputs: ["a"], dimensions: 256 };
    expect((await failureOf(() => provider.embed(wanted, never))).failure).toBe("broken");
    expect(mock.requests.at(-1)?.body).toMatchObject({ dimensions: 256 });
    const mixed = upstream(() => undefined, { data: [{ embedding: [1, 2] }, { embedding: [1] }] });
    expect((await failureOf(() => mixed.embed({ model: anyLength, inputs: ["a", "b"] }, never))).failure).toBe(
      "broken",
    );
  });

  it("are asked for again without a format that the server does not know", async () => {
    const server = upstream(without("encoding_format"), { data: [{ embedding: [1, 2, 3] }] });
    const { vectors } = await server.embed({ model: embeddingModel("openai-compatible", 3), inputs: ["a"] }, never);
    expect(vectors).toEqual([[1, 2, 3]]);
  });
});
