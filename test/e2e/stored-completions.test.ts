import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { streamFindings } from "../contract/contract";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

/** Stored chat completions through the unmodified official client. */
let platform: Platform;
let operator: Operator;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startPlatform();
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

const completions = (of = tenant) => of.client.chat.completions;
const ask = (metadata: Record<string, string>, of = tenant) =>
  completions(of).create({
    model: "gpt-4o-mini",
    messages: [
      { role: "system", content: "You are a support agent." },
      {
        role: "user",
        content: [
          { type: "text", text: "How do I " },
          { type: "text", text: "cancel?" },
        ],
      },
    ],
    max_completion_tokens: 4,
    temperature: 0,
    store: true,
    metadata,
  });
const ids = async (query: OpenAI.ChatCompletionListParams) => {
  const found: string[] = [];
  for await (const { id } of completions().list({ limit: 2, ...query })) found.push(id);
  return found;
};

describe("a stored completion", () => {
  it("is found with what was asked, and its messages are", async () => {
    const made = await ask({ ticket: "1" });
    const found = await completions().retrieve(made.id);
    expect(found).toMatchObject({ ...made, metadata: { ticket: "1" }, temperature: 0, max_completion_tokens: 4 });
    const messages = await completions().messages.list(made.id);
    expect(messages.data.map(({ role, content }) => [role, content])).toEqual([
      ["system", "You are a support agent."],
      ["user", "How do I cancel?"],
    ]);
    expect((await completions().messages.list(made.id, { limit: 1, order: "desc" })).has_more).toBe(true);
  });

  it("is stored as it was streamed", async () => {
    const stream = completions().stream({
      ...{ model: "tiny-support-lm", messages: [{ role: "user", content: "hello" }], temperature: 0 },
      ...{ store: true, stream_options: { include_usage: true } },
    });
    const final = await stream.finalChatCompletion();
    const found = await completions().retrieve(final.id);
    expect(found.choices[0]?.message.content).toBe(final.choices[0]?.message.content);
    expect(found.usage).toMatchObject({ ...final.usage });
    expect(streamFindings).toEqual([]);
  });

  it("is listed by label and model, oldest first, page by page", async () => {
    const own = [await ask({ a: "1", b: "x" }), await ask({ a: "1", b: "y" }), await ask({ a: "2", "b]'\"": "x" })];
    const [first, second, third] = own.map(({ id }) => id);
    expect(await ids({ metadata: { a: "1" } })).toEqual([first, second]);
    expect(await ids({ metadata: { a: "1", b: "y" } })).toEqual([second]);
    expect(await ids({ metadata: { "b]'\"": "x" } })).toEqual([third]);
    expect(await ids({ metadata: { a: "3" } })).toEqual([]);
    expect((await ids({ model: "gpt-4o-mini", order: "desc" }))[0]).toBe(third);
    expect(await ids({ model: "another" })).toEqual([]);
  });

  it("takes new labels, and is gone when it is deleted", async () => {
    const { id } = await ask({ a: "old" });
    expect((await completions().update(id, { metadata: { c: "new" } })).id).toBe(id);
    expect(await ids({ metadata: { c: "new" } })).toEqual([id]);
    expect(await ids({ metadata: { a: "old" } })).toEqual([]);
    expect(await completions().delete(id)).toMatchObject({ deleted: true });
    await expect(completions().retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(completions().messages.list(id)).rejects.toMatchObject({ status: 404 });
    expect(await ids({ metadata: { c: "new" } })).toEqual([]);
  });

  it("belongs to its tenant alone", async () => {
    const other = await operator.createTenant();
    const { id } = await ask({ mine: "yes" });
    for (const aim of [
      () => completions(other).retrieve(id),
      () => completions(other).update(id, { metadata: {} }),
      () => completions(other).delete(id),
      () => completions(other).messages.list(id),
    ]) {
      await expect(aim()).rejects.toMatchObject({ status: 404 });
    }
    await expect(completions(other).list({ after: id })).rejects.toMatchObject({ status: 400, param: "after" });
    expect((await completions(other).list()).data).toEqual([]);
    expect((await completions().retrieve(id)).id).toBe(id);
  });

  it("is refused before the model is paid for when it is too large, and not stored where nothing may be", async () => {
    const messages = [{ role: "user" as const, content: "a ".repeat(300_000) }];
    await expect(completions().create({ model: "tiny-support-lm", messages, store: true })).rejects.toMatchObject({
      status: 413,
      param: "messages",
    });
    const secret = await operator.createTenant();
    await operator.client.admin.organization.projects.dataRetention.update(secret.projectId, {
      retention_type: "zero_data_retention",
    });
    const { id } = await ask({}, secret);
    await expect(completions(secret).retrieve(id)).rejects.toMatchObject({ status: 404 });
  });

  it("that is refused holds nothing, though its call was admitted together with the question who calls", async () => {
    const fresh = await operator.createTenant({ tokensPerMinute: 10_000_000 }); // its key is new to the isolate
    const messages = [{ role: "user" as const, content: "a ".repeat(250_000) }];
    await expect(completions(fresh).create({ model: "tiny-support-lm", messages, store: true })).rejects.toMatchObject({
      status: 413,
    });
    const { in_flight } = await fresh.client.get<{ in_flight: { running: number } }>("/tenantry/limits");
    expect(in_flight.running).toBe(0);
  });

  it("is not what comes without store", async () => {
    const { id } = await completions().create({
      ...{ model: "tiny-support-lm", messages: [{ role: "user", content: "hi" }], max_completion_tokens: 2 },
    });
    await expect(completions().retrieve(id)).rejects.toMatchObject({ status: 404 });
  });
});
