import OpenAI from "openai";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MockUpstream } from "../../mock-upstream";

let mock: MockUpstream;
beforeEach(async () => {
  mock = await MockUpstream.start();
});
afterEach(async () => {
  await mock.stop();
});

const client = () => new OpenAI({ baseURL: mock.url, apiKey: "any", maxRetries: 0 });
const ask = { model: "m", messages: [{ role: "user" as const, content: "hi" }] };

describe("the mock upstream", () => {
  it("is understood by the official client: whole, streamed, embeddings, models", async () => {
    const whole = await client().chat.completions.create({ ...ask, n: 2 });
    expect(whole.choices.map(({ message }) => message.content)).toEqual(Array(2).fill("one two three four five"));
    const streamed = client().chat.completions.stream({ ...ask, n: 2 });
    expect((await streamed.finalChatCompletion()).choices.map(({ message }) => message.content)).toEqual(
      Array(2).fill("one two three four five"),
    );
    mock.script({ dimensions: 5 });
    const { data } = await client().embeddings.create({ model: "m", input: ["a", "b"], encoding_format: "float" });
    expect(data.map(({ embedding }) => embedding.length)).toEqual([5, 5]);
    mock.script({ text: "x" }, "by-name");
    expect((await client().models.list()).data.map(({ id }) => id)).toEqual(["mock", "by-name"]);
  });

  it("does what it was told: once, then by model, then in general", async () => {
    mock.script({ text: "general" });
    mock.script({ text: "named" }, "m");
    mock.once({ text: "once" });
    const said = async (model: string) =>
      (await client().chat.completions.create({ ...ask, model })).choices[0]?.message.content;
    expect([await said("m"), await said("m"), await said("other")]).toEqual(["once", "named", "general"]);
  });

  it("counts calls, tokens, those in flight, and clients that left early; not the connections it cut itself", async () => {
    mock.script({ tokens: 3, hangAfter: 2 });
    const stop = new AbortController();
    const streams = await Promise.all(
      [0, 1].map(() => client().chat.completions.create({ ...ask, stream: true }, { signal: stop.signal })),
    );
    await mock.until(({ completionTokens }) => completionTokens === 4);
    expect(mock.counters).toMatchObject({ calls: 2, inFlight: 2, maxInFlight: 2, aborted: 0 });
    stop.abort();
    for (const stream of streams) stream.controller.abort();
    await mock.until(({ aborted, inFlight }) => aborted === 2 && inFlight === 0);
    mock.script({ cutAfter: 1 });
    const cut = await client().chat.completions.create({ ...ask, stream: true });
    const said: unknown[] = [];
    const read = async () => {
      for await (const chunk of cut) said.push(chunk.choices[0]?.delta.content);
    };
    await expect(read()).rejects.toThrow();
    expect(said).toEqual(["one"]);
    await mock.until(({ inFlight }) => inFlight === 0);
    expect(mock.counters).toMatchObject({ calls: 3, aborted: 2, maxInFlight: 2 });
    expect(mock.requests).toHaveLength(3);
  });
});
