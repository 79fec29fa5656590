import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** What is reserved, told and booked where a provider counts in its own way, or not at all. */
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;

beforeAll(async () => {
  mock = await MockUpstream.start();
  const models = [
    upstreamModel("mock", { capabilities: ["vision", "tools"], image_tokens: { low: 100, high: 1_500 } }),
    upstreamModel("newer", { tokenizer: "o200k" }),
  ];
  platform = await startPlatform({
    bundle: "production",
    vars: {
      UPSTREAM_URL: mock.url,
      MODEL_CATALOGUE: { version: "1", models },
      PRICES: {
        ...{ price_version: "1", cost_version: "1" },
        models: { mock: { price: { input: 10, output: 40 }, cost: { input: 5, output: 20 } } },
      },
    },
  });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

const image = (url: string) => ({ type: "image_url" as const, image_url: { url } });
const ask = (tenant: TestTenant, content: unknown, more: object = {}) =>
  fetch(`${platform.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content }], max_tokens: 20, ...more }),
  });
const lastBooked = async ({ client }: TestTenant) => {
  const { data } = (await client.get("/tenantry/decisions?limit=5")) as { data: { kind: string; usage: object }[] };
  return data.find(({ kind }) => kind === "model_call")?.usage;
};
const reports = (prompt_tokens: number, completion_tokens: number, text = "ok") =>
  mock.script({ text, usage: { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens } });

describe("a prompt", () => {
  it("whose bytes are above the limit is admitted where its tokens fit, and refused with a true number where they do not", async () => {
    const tenant = await operator.createTenant({ tokensPerMinute: 14_000, model: "mock" });
    reports(10_510, 1);
    const text = "some words are here ".repeat(2_100);
    const reply = await ask(tenant, text);
    expect(reply.status).toBe(200);
    expect(await lastBooked(tenant)).toEqual({ prompt_tokens: 10_510, completion_tokens: 1 });
    const again = await ask(tenant, text);
    expect(again.status).toBe(429);
    expect(Number(again.headers.get("retry-after"))).toBeGreaterThan(0);
    const never = await ask(tenant, text.repeat(2));
    expect(never.status).toBe(429);
    expect(never.headers.get("x-should-retry")).toBe("false");
    const { data } = (await tenant.client.get("/tenantry/decisions?limit=10")) as { data: { outcome: string }[] };
    expect(data.map(({ outcome }) => outcome).filter((outcome) => outcome === "completed")).toHaveLength(1);
  });

  it("with an image is reserved by the image's tokens, however long its data is, and booked as its provider counts", async () => {
    const tenant = await operator.createTenant({ tokensPerMinute: 4_000, model: "mock" });
    reports(1_180, 3);
    const data = `data:image/jpeg;base64,${Buffer.alloc(300 * 1_024, 7).toString("base64")}`;
    for (const url of [data, "https://example.com/cat.jpg"]) {
      expect((await ask(tenant, [{ type: "text", text: "what is it?" }, image(url)])).status).toBe(200);
      expect(await lastBooked(tenant)).toEqual({ prompt_tokens: 1_180, completion_tokens: 3 });
    }
    expect((await ask(tenant, [image(data), image(data), image(data)])).status).toBe(429);
  });

  it("with images never passes a budget", async () => {
    const tenant = await operator.createTenant();
    const limits = [{ scope: "project", metric: "spend", window: "day", limit: 40_000, mode: "hard" }];
    const set = await fetch(`${platform.url}/v1/tenantry/projects/${tenant.projectId}/limits`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.adminKey}` },
      body: JSON.stringify({ limits }),
    });
    expect(set.status).toBe(200);
    reports(1_490, 3);
    let served = 0;
    for (let calls = 0; calls < 6; calls++) {
      served += (await ask(tenant, [image("https://example.com/cat.jpg")])).status === 200 ? 1 : 0;
    }
    expect(served).toBe(2); // 1,490 × 10 + 3 × 40 micro-dollars each
  });
});

describe("what is told is what is booked", () => {
  it.each([
    { case: "an ordinary count", prompt: 20, completion: 7 },
    { case: "a prompt that the provider made longer", prompt: 32_100, completion: 7 },
    { case: "a cap that was ignored", prompt: 20, completion: 5_000 },
    { case: "nothing at all beside an answer", prompt: 0, completion: 0 },
  ])("with $case, whole and streamed", async ({ prompt, completion }) => {
    const tenant = await operator.createTenant();
    reports(prompt, completion, "several words of an answer that are certainly more than nothing");
    const { usage } = (await (await ask(tenant, "hi")).json()) as { usage: Record<string, number> };
    expect(await lastBooked(tenant)).toEqual({
      ...{ prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens },
    });
    expect(usage.prompt_tokens).toBeGreaterThan(0);
    expect(usage.completion_tokens).toBeGreaterThan(0);
    if (prompt > 0) expect(usage).toMatchObject({ prompt_tokens: prompt, completion_tokens: completion });
    const isOver = prompt > 1_000 || completion > 20;
    expect("billed" in usage).toBe(isOver);
    if (isOver) {
      const { billed } = usage as unknown as { billed: { prompt_tokens: number; completion_tokens: number } };
      expect(billed.prompt_tokens).toBeLessThan(100);
      expect(billed.completion_tokens).toBeLessThanOrEqual(20);
    }
    const spent = (await tenant.client.get("/tenantry/limits")) as { limits: { unit: string; settled: number }[] };
    for (const { unit, settled } of spent.limits) if (unit === "tokens") expect(settled).toBeLessThan(150);
    const stream = await tenant.client.chat.completions.create({
      ...{ model: "mock", messages: [{ role: "user", content: "hi" }], max_tokens: 20, stream: true },
      stream_options: { include_usage: true },
    });
    let last: { prompt_tokens: number; completion_tokens: number } | undefined;
    for await (const chunk of stream) last = chunk.usage ?? last;
    expect(await lastBooked(tenant)).toEqual({
      ...{ prompt_tokens: last?.prompt_tokens, completion_tokens: last?.completion_tokens },
    });
  });
});

describe("a stream that is cut into single characters", () => {
  const text = "The quick brown fox jumps over the lazy dog and runs away into the deep forest.";
  const chunks = (usage: object | null, end = true) => {
    const chunk = (delta: object, finish: string | null, more = {}) =>
      `data: ${JSON.stringify({ id: "u", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: finish }], ...more })}\n\n`;
    const told = usage ? `data: ${JSON.stringify({ choices: [], usage })}\n\n` : "";
    return [
      ...[...text].map((content) => chunk({ content }, null)),
      end ? chunk({}, "stop") : "",
      told,
      "data: [DONE]\n\n",
    ];
  };
  const answer = (usage: object | null) =>
    mock.script({ rawBody: chunks(usage).join(""), headers: { "content-type": "text/event-stream" } });
  const stream = (tenant: TestTenant, model: string) =>
    tenant.client.chat.completions
      .stream({
        model,
        messages: [{ role: "user", content: "hi" }],
        max_tokens: 40,
        stream_options: { include_usage: true },
      })
      .finalChatCompletion();

  it("is neither cut nor billed by its pieces", async () => {
    const tenant = await operator.createTenant();
    for (const model of ["mock", "newer"]) {
      answer({ prompt_tokens: 10, completion_tokens: 18, total_tokens: 28 });
      const told = await stream(tenant, model);
      expect(told.choices[0]).toMatchObject({ finish_reason: "stop", message: { content: text } });
      expect(told.usage).toMatchObject({ prompt_tokens: 10, completion_tokens: 18 });
      answer(null);
      const counted = await stream(tenant, model);
      expect(counted.choices[0]).toMatchObject({ finish_reason: "stop", message: { content: text } });
      expect(counted.usage?.completion_tokens).toBe(17); // as the real tokenizers count it
      expect(await lastBooked(tenant)).toMatchObject({ completion_tokens: 17 });
    }
  });

  it("is billed as its text when its caller leaves", async () => {
    const tenant = await operator.createTenant();
    mock.script({ text: [...text].join(" "), tokenMs: 2, usage: null });
    const abort = new AbortController();
    const reply = await fetch(`${platform.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${tenant.key}` },
      body: JSON.stringify({
        model: "newer",
        messages: [{ role: "user", content: "hi" }],
        stream: true,
        max_tokens: 100,
      }),
      signal: abort.signal,
    });
    const reader = reply.body?.getReader();
    let read = "";
    while (read.split('"content"').length < 12) read += new TextDecoder().decode((await reader?.read())?.value);
    abort.abort();
    const outcome = async () =>
      ((await tenant.client.get("/tenantry/decisions?limit=1")) as { data: { outcome: string }[] }).data[0]?.outcome;
    await expect.poll(outcome).toBe("cancelled");
    const booked = (await lastBooked(tenant)) as { completion_tokens: number };
    expect(booked.completion_tokens).toBeGreaterThanOrEqual(10);
    expect(booked.completion_tokens).toBeLessThan(100);
  });
});

describe("embeddings of token ids", () => {
  it("are those of the text that they stand for; what is no text is refused with advice", async () => {
    const local = await startPlatform();
    try {
      const { client, key } = await new Operator(local.url, local.adminKey).createTenant();
      const vectors = async (input: string | string[] | number[] | number[][]) =>
        (await client.embeddings.create({ model: "text-embedding-3-small", input })).data.map(
          ({ embedding }) => embedding,
        );
      expect(await vectors([15_339, 1_917])).toEqual(await vectors("hello world"));
      expect(await vectors([[15_339, 1_917], [15_339]])).toEqual(await vectors(["hello world", "hello"]));
      const refused = async (input: unknown) => {
        const reply = await fetch(`${local.url}/v1/embeddings`, {
          method: "POST",
          headers: { authorization: `Bearer ${key}` },
          body: JSON.stringify({ model: "tiny-support-embed", input }),
        });
        return {
          status: reply.status,
          ...((await reply.json()) as { error: { param: string; message: string } }).error,
        };
      };
      expect(await refused([100_300])).toMatchObject({ status: 400, param: "input" });
      expect(await refused([[15_339], [100_300]])).toMatchObject({ status: 400, param: "input[1]" });
      expect((await refused([[15_339], [100_300]])).message).toContain("Send the text itself");
      expect(await refused([15_339, "a"])).toMatchObject({ status: 400 });
      expect(await refused("word ".repeat(5_000))).toMatchObject({ status: 400, param: "input" });
    } finally {
      await local.stop();
    }
  });
});
