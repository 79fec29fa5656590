import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startPlatform({ bundle: "local" });
  tenant = await new Operator(platform.url, platform.adminKey).createTenant();
});
afterAll(() => platform.stop());

const schema = {
  type: "object",
  properties: { intent: { enum: ["get_refund", "cancel_order", "track_order"] }, urgent: { type: "boolean" } },
  required: ["intent", "urgent"],
  additionalProperties: false,
};
const ask = (stream: boolean) => ({
  model: "gpt-4o-mini",
  messages: [
    { role: "system" as const, content: "Extract the intent and the entities. Reply in JSON." },
    { role: "user" as const, content: "I want my money back" },
  ],
  response_format: { type: "json_schema" as const, json_schema: { name: "intent", schema, strict: true } },
  stream,
});

describe("response_format with a schema", () => {
  it("is kept by the embedded model, whole and streamed", async () => {
    const whole = await tenant.client.chat.completions.create({ ...ask(false), stream: false });
    expect(JSON.parse(whole.choices[0]?.message.content ?? "")).toEqual({
      intent: "get_refund",
      urgent: expect.any(Boolean),
    });
    let text = "";
    for await (const chunk of await tenant.client.chat.completions.create({ ...ask(true), stream: true }))
      text += chunk.choices[0]?.delta.content ?? "";
    expect(JSON.parse(text)).toHaveProperty("intent");
  });

  it("may list thousands of values", async () => {
    const values = Array.from({ length: 6_000 }, (_, at) => `v${at}`);
    const schema = { type: "object", properties: { one: { enum: values } }, required: ["one"] };
    const many = { name: "many", schema };
    const whole = await tenant.client.chat.completions.create({
      ...ask(false),
      stream: false,
      response_format: { type: "json_schema", json_schema: many },
    });
    expect(values).toContain(JSON.parse(whole.choices[0]?.message.content ?? "").one);
  });

  it("that is too large for any model is refused with its name and its bound", async () => {
    const large = { name: "large", schema: { enum: Array.from({ length: 9_000 }, (_, at) => `value ${at}`) } };
    const asked = tenant.client.chat.completions.create({
      ...ask(false),
      stream: false,
      response_format: { type: "json_schema", json_schema: large },
    });
    await expect(asked).rejects.toMatchObject({
      ...{ status: 400, code: "invalid_value", param: "response_format.json_schema.schema" },
      message: expect.stringContaining("65536 characters"),
    });
  });

  it("that cannot be promised is refused as bad input", async () => {
    const bad = { name: "a", schema: { type: "string", pattern: "^a" } };
    const asked = tenant.client.chat.completions.create({
      ...ask(false),
      stream: false,
      response_format: { type: "json_schema", json_schema: bad },
    });
    await expect(asked).rejects.toMatchObject({
      ...{ status: 400, code: "model_refused_input", param: "response_format" },
    });
  });
});
