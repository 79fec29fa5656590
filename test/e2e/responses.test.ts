import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { streamFindings } from "../contract/contract";
import { LOCAL_CATALOGUE, type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** Responses through the unmodified official client; each reply and each event is checked against the contract. */
let platform: Platform;
let mock: MockUpstream;
let operator: Operator;
let tenant: TestTenant;
const MODEL = "tiny-support-lm";
const MOCK = "mock";

beforeAll(async () => {
  mock = await MockUpstream.start();
  const models = [...LOCAL_CATALOGUE.models, upstreamModel(MOCK)];
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "responses", models } };
  platform = await startPlatform({ vars });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(() => mock.script({}));

const responses = () => tenant.client.responses;
const tools = [
  {
    type: "function" as const,
    name: "look_up",
    description: "Looks an order up.",
    parameters: {
      ...{ type: "object", properties: { order: { type: "string" } }, required: ["order"] },
      additionalProperties: false,
    },
    strict: true,
  },
];
const stored = async (asked: OpenAI.Responses.ResponseCreateParamsNonStreaming, client = tenant.client) =>
  ((await client.responses.create(asked)) as { store?: boolean }).store;
const lastPrompt = () =>
  mock.requests.at(-1)?.body.messages as { role: string; content: unknown; tool_calls?: unknown }[];

describe("a response", () => {
  it("answers a text from the embedded model, with usage and what was asked", async () => {
    const response = await responses().create({
      model: "gpt-4o-mini",
      input: "How do I cancel my order?",
      temperature: 0,
      max_output_tokens: 24,
      metadata: { ticket: "7" },
    });
    expect(response).toMatchObject({
      object: "response",
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      model: MODEL,
      metadata: { ticket: "7" },
      usage: { input_tokens: 12, output_tokens: 24, total_tokens: 36 },
    });
    expect(response.output_text.length).toBeGreaterThan(10);
    const whole = await responses().create({ model: MODEL, input: "hello", temperature: 0 });
    expect(whole).toMatchObject({ status: "completed", incomplete_details: null, error: null });
    expect(whole.completed_at).toBeGreaterThanOrEqual(whole.created_at);
  });

  it("streams the contract's events in order, each with its number, and ends with the whole", async () => {
    const stream = await responses().create({
      model: MODEL,
      input: "How do I cancel my order?",
      temperature: 0,
      max_output_tokens: 400,
      stream: true,
    });
    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    for await (const event of stream) events.push(event);
    const types = events.map(({ type }) => type);
    const middle = types.filter((type) => type === "response.output_text.delta");
    expect(middle.length).toBeGreaterThan(15);
    expect(types).toEqual([
      ...["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"],
      ...middle,
      ...["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"],
    ]);
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, at) => at));
    const text = events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join("");
    const last = events.at(-1);
    if (last?.type !== "response.completed") throw new Error("no end");
    expect(last.response.output[0]).toMatchObject({ type: "message", content: [{ text }] });
    expect(await responses().retrieve(last.response.id)).toMatchObject({ id: last.response.id, status: "completed" });
    expect(streamFindings).toEqual([]);
  });

  it("works with the client's own streaming helper", async () => {
    const stream = responses().stream({ model: MODEL, input: "hello", temperature: 0 });
    let heard = "";
    stream.on("response.output_text.delta", ({ delta }) => {
      heard += delta;
    });
    const final = await stream.finalResponse();
    expect(heard.length).toBeGreaterThan(5);
    expect(final.output_text).toBe(heard);
  });

  it("keeps a JSON schema, also through the client's parser", async () => {
    const schema = {
      ...{ type: "object" as const, additionalProperties: false, required: ["intent"] },
      properties: { intent: { type: "string", enum: ["cancel_order", "track_order"] } },
    };
    const parsed = await responses().parse({
      model: MODEL,
      input: "where is my parcel",
      text: { format: { type: "json_schema", name: "intent", schema, strict: true } },
    });
    expect(["cancel_order", "track_order"]).toContain((parsed.output_parsed as unknown as { intent: string }).intent);
  });

  it("puts instructions first, and does not carry them over", async () => {
    const first = await responses().create({ model: MOCK, input: "one", instructions: "Speak like a pirate." });
    expect(lastPrompt()).toEqual([
      { role: "system", content: "Speak like a pirate." },
      { role: "user", content: "one" },
    ]);
    await responses().create({ model: MOCK, input: "two", previous_response_id: first.id });
    expect(lastPrompt().map(({ role }) => role)).toEqual(["user", "assistant", "user"]);
  });
});

describe("function tools", () => {
  it("are called, answered and streamed", async () => {
    mock.script({ toolCalls: [{ name: "look_up", arguments: '{"order":"7"}' }] });
    const asked = await responses().create({ model: MOCK, input: "Where is order 7?", tools });
    const [call] = asked.output;
    if (call?.type !== "function_call") throw new Error(`got ${call?.type}`);
    expect(call).toMatchObject({ name: "look_up", arguments: '{"order":"7"}', status: "completed" });
    mock.script({ text: "It is at sea." });
    const answered = await responses().create({
      model: MOCK,
      tools,
      previous_response_id: asked.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "at sea" }],
    });
    expect(answered.output_text).toBe("It is at sea.");
    expect(lastPrompt()).toMatchObject([
      { role: "user" },
      { role: "assistant", tool_calls: [{ id: call.call_id, function: { name: "look_up" } }] },
      { role: "tool", content: "at sea", tool_call_id: call.call_id },
    ]);
    mock.script({ toolCalls: [{ name: "look_up", arguments: '{"order":"8"}' }] });
    const stream = await responses().create({ model: MOCK, input: "And 8?", tools, stream: true });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types.filter((type, at) => type !== types[at - 1])).toEqual([
      ...["response.created", "response.in_progress", "response.output_item.added"],
      ...["response.function_call_arguments.delta", "response.function_call_arguments.done"],
      ...["response.output_item.done", "response.completed"],
    ]);
    expect(streamFindings).toEqual([]);
  });

  it.each([
    [{ tools: [{ type: "web_search" }] }, "unsupported_tool", "tools[0].type"],
    [{ tools, tool_choice: { type: "file_search" } }, "unsupported_tool", "tool_choice.type"],
    [{ input: [{ type: "computer_call", id: "x" }] }, "unsupported_tool", "input[0].type"],
    [
      { input: [{ role: "user", content: [{ type: "input_file", file_id: "file-1" }] }] },
      "unsupported_modality",
      "input[0].content[0]",
    ],
    [{ model: MODEL, tools }, "unsupported_parameter", "tools"],
    [
      { model: MODEL, input: [{ role: "user", content: [{ type: "input_image", image_url: "https://x/y.png" }] }] },
      "unsupported_modality",
      "input",
    ],
    [{ reasoning: { effort: "high" }, model: MODEL }, "unsupported_parameter", "reasoning.effort"],
    [
      { text: { format: { type: "json_schema", name: "x", strict: true, schema: { type: "object" } } } },
      "invalid_value",
      "text.format.schema",
    ],
    [
      { tools: [{ type: "function", name: "f", strict: true, parameters: { type: "string" } }] },
      "invalid_value",
      "tools[0].parameters",
    ],
    [{ conversation: "conv_1" }, "unsupported_parameter", "conversation"],
    [{ input: [{ role: "user", content: 7 }] }, "invalid_value", "input[0].content"],
    [{ input: [] }, "invalid_value", "input"],
    [{ hello: 1 }, "unknown_parameter", "hello"],
    [{ tool_choice: "required" }, "invalid_value", "tool_choice"],
  ])("and what no model here takes is refused by name: %j", async (more, code, param) => {
    const body = { model: MOCK, input: "x", ...more };
    await expect(tenant.client.post("/responses", { body })).rejects.toMatchObject({ status: 400, code, param });
  });
});

describe("a conversation", () => {
  it("goes on from a stored response, branch by branch", async () => {
    const first = await responses().create({ model: MOCK, input: "one" });
    const second = await responses().create({ model: MOCK, input: "two", previous_response_id: first.id });
    await responses().create({ model: MOCK, input: "three", previous_response_id: second.id });
    const said = () =>
      lastPrompt()
        .filter(({ role }) => role === "user")
        .map(({ content }) => JSON.stringify(content));
    expect(said().map((text) => /one|two|three/.exec(text)?.[0])).toEqual(["one", "two", "three"]);
    await responses().create({ model: MOCK, input: "other", previous_response_id: first.id });
    expect(said().map((text) => /one|two|other/.exec(text)?.[0])).toEqual(["one", "other"]);
  });

  it("takes references to its items", async () => {
    const first = await responses().create({ model: MOCK, input: "one" });
    const [item] = first.output;
    await responses().create({
      model: MOCK,
      input: [
        { type: "item_reference", id: item?.id ?? "" },
        { role: "user", content: "again" },
      ],
    });
    expect(lastPrompt().map(({ role }) => role)).toEqual(["assistant", "user"]);
    await expect(
      responses().create({ model: MOCK, input: [{ type: "item_reference", id: "msg_nothing" }] }),
    ).rejects.toMatchObject({ status: 404, param: "input[0].id" });
  });

  it("lists what went in, page by page", async () => {
    const { id } = await responses().create({
      model: MOCK,
      input: [
        { role: "developer", content: "be kind" },
        { role: "user", content: [{ type: "input_text", text: "hi" }] },
        { role: "user", content: "there" },
      ],
    });
    const page = await responses().inputItems.list(id, { order: "asc", limit: 2 });
    expect(page.data.map((item) => (item.type === "message" ? item.role : item.type))).toEqual(["developer", "user"]);
    const all: string[] = [];
    for await (const item of responses().inputItems.list(id, { limit: 1 })) all.push(item.id ?? "");
    expect(new Set(all).size).toBe(3);
  });

  it("ends when its response is deleted", async () => {
    const { id } = await responses().create({ model: MOCK, input: "one" });
    await responses().delete(id);
    await expect(responses().retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(responses().delete(id)).rejects.toMatchObject({ status: 404 });
    await expect(responses().create({ model: MOCK, input: "two", previous_response_id: id })).rejects.toMatchObject({
      status: 400,
      code: "previous_response_not_found",
      param: "previous_response_id",
    });
  });

  it("belongs to its tenant, and an end user's to that end user", async () => {
    const { id } = await responses().create({ model: MOCK, input: "one" });
    const other = await operator.createTenant();
    await expect(other.client.responses.retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(
      other.client.responses.create({ model: MOCK, input: "two", previous_response_id: id }),
    ).rejects.toMatchObject({ code: "previous_response_not_found" });
    const clientOfUser = async (subject: string) => {
      const minted = await tenant.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } });
      return new OpenAI({ baseURL: `${platform.url}/v1`, apiKey: minted.value });
    };
    const [ann, ben] = [await clientOfUser("ann"), await clientOfUser("ben")];
    const anns = await ann.responses.create({ model: MOCK, input: "mine" });
    expect((await ann.responses.retrieve(anns.id)).id).toBe(anns.id);
    expect((await responses().retrieve(anns.id)).id).toBe(anns.id); // the tenant's own server
    for (const foreign of [anns.id, id])
      await expect(ben.responses.retrieve(foreign)).rejects.toMatchObject({ status: 404 });
    await expect(ben.responses.delete(anns.id)).rejects.toMatchObject({ status: 404 });
  });
});

describe("what is kept", () => {
  it("is nothing without store, and nothing of a project that keeps no data", async () => {
    const unstored = await responses().create({ model: MOCK, input: "one", store: false });
    expect(await stored({ model: MOCK, input: "one", store: false })).toBe(false);
    await expect(responses().retrieve(unstored.id)).rejects.toMatchObject({ status: 404 });
    const secret = await operator.createTenant();
    const { dataRetention } = operator.client.admin.organization.projects;
    expect(await dataRetention.retrieve(secret.projectId)).toMatchObject({ type: "organization_default" });
    for (const retention_type of ["zero_data_retention", "enhanced_zero_data_retention"] as const) {
      await dataRetention.update(secret.projectId, { retention_type });
      await expect.poll(() => stored({ model: MOCK, input: "x", store: true }, secret.client)).toBe(false);
    }
    const { id } = await secret.client.responses.create({ model: MOCK, input: "one" });
    await expect(secret.client.responses.retrieve(id)).rejects.toMatchObject({ status: 404 });
    await dataRetention.update(secret.projectId, { retention_type: "none" });
    await expect.poll(() => stored({ model: MOCK, input: "x" }, secret.client)).toBe(true);
  });
});

describe("a model that fails", () => {
  it("before its first token is an error reply, and afterwards a failed response", async () => {
    mock.script({ status: 500 });
    await expect(
      responses().create({ model: MOCK, input: "x", stream: true }, { maxRetries: 0 }),
    ).rejects.toMatchObject({
      status: 502,
      code: "model_error",
    });
    mock.script({ tokens: 10, cutAfter: 3 });
    const stream = await responses().create({ model: MOCK, input: "x", stream: true });
    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    for await (const event of stream) events.push(event);
    expect(events.at(-1)).toMatchObject({
      type: "response.failed",
      response: { status: "failed", error: { code: "server_error" } },
    });
    expect(streamFindings).toEqual([]);
  });
});

describe("a response in the background", () => {
  const background = (more: object = {}) =>
    responses().create({ model: MOCK, input: "take your time", background: true, ...more });
  const until = (id: string, status: string) =>
    expect.poll(async () => (await responses().retrieve(id)).status, { timeout: 10_000 }).toBe(status);

  it("is queued at once, made without its caller, and then there with its usage", async () => {
    mock.script({ text: "at last", firstByteMs: 200 });
    const queued = await background({ metadata: { a: "b" } });
    expect(queued).toMatchObject({ status: "queued", output: [], background: true });
    await until(queued.id, "completed");
    const made = await responses().retrieve(queued.id);
    expect(made.output_text ?? JSON.stringify(made.output)).toContain("at last");
    expect(made).toMatchObject({ background: true, metadata: { a: "b" } });
    expect(made.usage?.output_tokens).toBeGreaterThan(0);
    const next = await responses().create({ model: MOCK, input: "and?", previous_response_id: queued.id });
    expect(next.previous_response_id).toBe(queued.id);
    const { data } = await tenant.client.get<{ data: { route: string; api_key_id: string }[] }>("/tenantry/decisions");
    expect(data[1]).toMatchObject({ route: "/v1/responses", outcome: "completed", api_key_id: tenant.keyId });
  });

  it("is cancelled in the middle, and the model is told", async () => {
    mock.script({ tokens: 1_000, tokenMs: 20 });
    const { id } = await background();
    await until(id, "in_progress");
    await expect.poll(() => mock.counters.inFlight).toBe(1);
    expect((await responses().cancel(id)).status).toBe("cancelled");
    await expect.poll(() => mock.counters.inFlight).toBe(0);
    expect((await responses().cancel(id)).status).toBe("cancelled"); // over is over
    const { id: whole } = await responses().create({ model: MOCK, input: "x", max_output_tokens: 16 });
    await expect(responses().cancel(whole)).rejects.toMatchObject({ status: 409 });
  });

  it("says what went wrong", async () => {
    mock.script({ status: 500 });
    const { id } = await background();
    await until(id, "failed");
    expect((await responses().retrieve(id)).error).toMatchObject({ code: "server_error" });
  });

  it("is refused at once for what its model cannot do, and where nothing may be kept", async () => {
    await expect(background({ model: "nothing" })).rejects.toMatchObject({ status: 404, param: "model" });
    await expect(background({ model: MODEL, tools })).rejects.toMatchObject({ status: 400, param: "tools" });
    await expect(background({ store: false })).rejects.toMatchObject({ status: 400, param: "background" });
    await expect(background({ stream: true })).rejects.toMatchObject({ status: 400, param: "stream" });
  });

  it("waits in its tenant's line when many are asked for, and all are made", async () => {
    mock.script({ text: "done", firstByteMs: 50 });
    const ids = await Promise.all(Array.from({ length: 40 }, async () => (await background()).id));
    for (const id of ids) await until(id, "completed");
  }, 30_000);

  it("is gone when it is deleted in the middle", async () => {
    mock.script({ tokens: 1_000, tokenMs: 20 });
    const { id } = await background();
    await until(id, "in_progress");
    await responses().delete(id);
    await expect(responses().retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect.poll(() => mock.counters.inFlight).toBe(0);
  });
});
