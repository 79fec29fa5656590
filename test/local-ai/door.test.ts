import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Door, openDoor } from "./door";

const EMBEDDING_MODEL = "@local/tiny-support-lm-embed";
const CLASSIFICATION_MODEL = "@local/tiny-support-lm-classify";
const question = { messages: [{ role: "user", content: "How do I reset my password?" }], temperature: 0 };
const stream = { ...question, stream: true, max_tokens: 400 };
/** Goes on for as long as it may: buffers on the way take all of it, so a reader that stands still does not stop it. */
const LONG = { ...stream, temperature: 5, seed: 3, max_tokens: 490 };

let door: Door;
beforeAll(async () => {
  door = await openDoor();
}, 30_000);
afterAll(() => door.stop());

const running = async (count: number) => {
  await vi.waitFor(async () => expect((await door.meter()).running).toBe(count), { timeout: 5_000 });
};
/** Reads the first event, so that the generation is under way. */
const begun = async (response: Response) => {
  const reader = response.body?.getReader();
  await reader?.read();
  return reader;
};

describe("the stand-in for Workers AI", () => {
  it("answers in the classic shape and counts what it counts", async () => {
    const before = await door.meter();
    const reply = (await (await door.run({ inputs: { ...question, max_tokens: 20 } })).json()) as { response: string };
    const usage = { prompt_tokens: 12, completion_tokens: 20, total_tokens: 32 };
    expect(reply).toEqual({ response: expect.any(String), finish_reason: "length", usage });
    expect(reply.response.length).toBeGreaterThan(20);
    const { calls, promptTokens, completionTokens } = before;
    expect(await door.meter()).toEqual({
      calls: calls + 1,
      promptTokens: promptTokens + 12,
      completionTokens: completionTokens + 20,
      running: 0,
    });
  });

  it("streams the same text, event by event as it is made", async () => {
    const { response } = (await (await door.run({ inputs: { ...question, max_tokens: 60 } })).json()) as {
      response: string;
    };
    const body = (await door.run({ inputs: { ...stream, max_tokens: 60 } })).body as ReadableStream<Uint8Array>;
    const chunks: string[] = [];
    for await (const chunk of body) chunks.push(new TextDecoder().decode(chunk));
    expect(chunks.length).toBeGreaterThan(1); // how many events a read brings depends on who is faster
    const events = chunks.join("").trimEnd().split("\n\n");
    expect(events.at(-1)).toBe("data: [DONE]");
    expect(events.length).toBeGreaterThan(30);
    const data = events.slice(0, -1).map((event) => JSON.parse(event.slice(6)) as { response: string });
    expect(data.map((event) => event.response).join("")).toBe(response);
  });

  it("embeds into vectors of 192 dimensions and length 1", async () => {
    const inputs = { text: ["where is my refund", "hello"] };
    const reply = (await (await door.run({ model: EMBEDDING_MODEL, inputs })).json()) as {
      shape: number[];
      data: number[][];
      usage: { prompt_tokens: number; total_tokens: number };
    };
    expect(reply).toMatchObject({ shape: [2, 192], pooling: "mean" });
    expect(reply.usage.total_tokens).toBe(reply.usage.prompt_tokens);
    for (const vector of reply.data) {
      expect(vector).toHaveLength(192);
      expect(Math.hypot(...vector)).toBeCloseTo(1, 6);
    }
  });

  it.each([
    ["an unknown model", { model: "@cf/meta/llama", inputs: question }, /^5007: /],
    ["a model that is no string", { model: { a: 1 }, inputs: question }, /^5007: /],
    ["inputs that are no object", { inputs: null }, /^5006: /],
    ["an adapter that there is not", { inputs: { ...question, lora: "a" } }, /^3042: /],
    ["a stream of JSON", { inputs: { ...stream, response_format: { type: "json_object" } } }, /^5006: /],
    ["a batch that there is not", { inputs: { request_id: "a" } }, /^3042: /],
    ["a batch without requests", { inputs: question, options: { queueRequest: true } }, /^5006: /],
    ["one label alone", { model: CLASSIFICATION_MODEL, inputs: { text: "hi", labels: ["a"] } }, /^5006: /],
    ["a prompt beyond the context", { inputs: { prompt: "hello ".repeat(600) } }, /^5021: .+ limit \(512\)\.$/],
    ["a text beyond the context", { model: EMBEDDING_MODEL, inputs: { text: "hello ".repeat(600) } }, /^5021: /],
    ["a megabyte without a space", { inputs: { prompt: "a".repeat(1_000_000) } }, /^5021: /],
  ])("throws Workers AI's error for %s", async (_, call, message) => {
    const response = await door.run(call);
    expect(response.status).toBe(500);
    expect(await response.json()).toEqual({
      name: "InferenceUpstreamError",
      message: expect.stringMatching(message),
    });
  });

  it("classifies by how likely each label is, whatever their order", async () => {
    const labels = ["ACCOUNT", "REFUND", "DELIVERY", "NEWSLETTER"];
    const ask = async (of: readonly string[]) =>
      (await (
        await door.run({ model: CLASSIFICATION_MODEL, inputs: { text: "I want my money back", labels: of } })
      ).json()) as { label: string; score: number }[];
    const judged = await ask(labels);
    expect(judged[0]?.label).toBe("REFUND");
    expect(judged.map(({ label }) => label).sort()).toEqual(labels.toSorted());
    expect(judged.reduce((sum, { score }) => sum + score, 0)).toBeCloseTo(1, 9);
    expect(judged.map(({ score }) => score)).toEqual(judged.map(({ score }) => score).sort((a, b) => b - a));
    expect(await ask(labels.toReversed())).toEqual(judged);
  });

  it("shares what was computed of a prompt's beginning with the same affinity, and tells how much", async () => {
    const text = "I ordered a lamp two weeks ago and it has still not arrived, what can I do about that now?";
    const inputs = { messages: [{ role: "user", content: text }], temperature: 0, max_tokens: 5 };
    const ask = async (affinity: string) => {
      const options = { extraHeaders: { "x-session-affinity": affinity } };
      const reply = (await (await door.run({ inputs, options })).json()) as {
        response: string;
        usage: { prompt_tokens_details?: { cached_tokens: number } };
      };
      return [reply.response, reply.usage.prompt_tokens_details?.cached_tokens ?? 0];
    };
    const [response, cached] = await ask("acme");
    expect(cached).toBe(0);
    expect(await ask("acme")).toEqual([response, 32]);
    expect(await ask("globex")).toEqual([response, 0]);
  });

  it("answers in JSON that satisfies a schema, as an object, however few tokens there are", async () => {
    const json_schema = {
      type: "object",
      properties: { intent: { enum: ["get_refund", "cancel_order"] }, urgent: { type: "boolean" } },
      required: ["intent", "urgent"],
      additionalProperties: false,
    };
    const messages = [
      { role: "system", content: "Extract the intent and the entities. Reply in JSON." },
      { role: "user", content: "I want my money back" },
    ];
    const ask = async (more: object) =>
      (await (
        await door.run({ inputs: { messages, response_format: { type: "json_schema", json_schema }, ...more } })
      ).json()) as { response?: unknown; message?: string };
    expect((await ask({ temperature: 0 })).response).toEqual({ intent: "get_refund", urgent: expect.any(Boolean) });
    for (let seed = 0; seed < 5; seed++)
      expect((await ask({ temperature: 5, seed, max_tokens: 50 })).response).toEqual({
        intent: expect.stringMatching(/^(get_refund|cancel_order)$/),
        urgent: expect.any(Boolean),
      });
    expect((await ask({ max_tokens: 10 })).message).toMatch(/^5024: JSON Mode couldn't be met/);
    expect((await ask({ response_format: { type: "json_schema", json_schema: { pattern: "a" } } })).message).toMatch(
      /^5006: .*'pattern'/,
    );
    const free = await ask({ response_format: { type: "json_object" }, temperature: 5, seed: 1 });
    expect(typeof free.response).toBe("object");
  });

  it("cuts max_tokens to what the context has left", async () => {
    const inputs = { prompt: " the".repeat(500), raw: true, max_tokens: 400, temperature: 5, seed: 1 };
    expect(await (await door.run({ inputs })).json()).toMatchObject({
      finish_reason: "length",
      usage: { prompt_tokens: 501, completion_tokens: 11, total_tokens: 512 },
    });
  });

  it("stops generating when the client leaves its stream", async () => {
    const abort = new AbortController();
    const before = (await door.meter()).completionTokens;
    await begun(await door.run({ inputs: LONG, signal: abort.signal }));
    abort.abort();
    await running(0);
    const { completionTokens } = await door.meter();
    expect(completionTokens - before).toBeLessThan(400);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await door.meter()).completionTokens).toBe(completionTokens);
  });

  it("frees the place of a stream that nobody read", async () => {
    await door.drop({ inputs: stream });
    await running(0);
  });

  it("runs 16 at once, lets the next wait in line, and refuses who does not wait", async () => {
    const abort = new AbortController();
    const call = { inputs: LONG, signal: abort.signal };
    await Promise.all(Array.from({ length: 16 }, async () => begun(await door.run(call))));
    expect((await door.meter()).running).toBe(16);
    const refused = await door.run({ inputs: question, options: { rejectIfBusy: true } });
    expect(await refused.json()).toMatchObject({ message: expect.stringMatching(/^3040: /) });
    const refusedStream = await door.run({ inputs: stream, options: { rejectIfBusy: true } });
    expect(refusedStream.status).toBe(500); // an error of the call, not of a stream that was promised
    let isAnswered = false;
    const waiting = door.run({ inputs: { ...question, max_tokens: 2 } }).finally(() => {
      isAnswered = true;
    });
    expect((await door.meter()).running).toBe(16);
    expect(isAnswered).toBe(false);
    abort.abort();
    expect((await waiting).status).toBe(200);
    await running(0);
  }, 20_000);
});

describe("a batch", () => {
  const poll = async (by: Door, id: string, model?: string) =>
    (await (await by.run({ ...(model ? { model } : {}), inputs: { request_id: id } })).json()) as {
      status?: string;
      responses?: { id: number; success: boolean; external_reference?: string; result?: object; error?: string }[];
      usage?: { total_tokens: number };
    };
  const queue = async (by: Door, requests: readonly object[], model?: string) =>
    (await (
      await by.run({ ...(model ? { model } : {}), inputs: { requests }, options: { queueRequest: true } })
    ).json()) as { status: string; model: string; request_id: string };

  it("is queued, worked off, and fetched by its id, each request with its reference or its error", async () => {
    const requests = [
      { ...question, max_tokens: 5, external_reference: "first" },
      { prompt: "", external_reference: "wrong" },
      { prompt: "hello", max_tokens: 3 },
    ];
    const queued = await queue(door, requests);
    expect(queued).toEqual({ status: "queued", model: "@local/tiny-support-lm", request_id: expect.any(String) });
    await vi.waitFor(async () => expect((await poll(door, queued.request_id)).responses).toBeDefined(), 5_000);
    const { responses, usage } = await poll(door, queued.request_id);
    expect(responses).toEqual([
      {
        id: 0,
        success: true,
        external_reference: "first",
        result: expect.objectContaining({ finish_reason: "length" }),
      },
      { id: 1, success: false, external_reference: "wrong", error: expect.stringMatching(/^5006: /) },
      { id: 2, success: true, result: expect.objectContaining({ usage: expect.anything() }) },
    ]);
    expect(usage?.total_tokens).toBeGreaterThan(20);
  });

  it("is worked off after a restart", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-batch-"));
    const first = await openDoor(folder);
    const requests = Array.from({ length: 100 }, (_, seed) => ({
      prompt: "hello",
      temperature: 5,
      seed,
      max_tokens: 60,
    }));
    const { request_id: id } = await queue(first, requests);
    await first.stop();
    const second = await openDoor(folder);
    await vi.waitFor(async () => expect((await poll(second, id)).responses).toHaveLength(100), 10_000);
    await second.stop();
    rmSync(folder, { recursive: true });
  }, 30_000);
});

describe("its meter", () => {
  it("goes on where it was after a restart", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-meter-"));
    const first = await openDoor(folder);
    await first.run({ inputs: { ...question, max_tokens: 3 } });
    const reading = await first.meter();
    await first.stop();
    const second = await openDoor(folder);
    expect(await second.meter()).toEqual(reading);
    await second.stop();
    rmSync(folder, { recursive: true });
    expect(reading).toEqual({ calls: 1, promptTokens: 12, completionTokens: 3, running: 0 });
  }, 30_000);
});
