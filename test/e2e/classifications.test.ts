import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { LOCAL_CATALOGUE, type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let mock: MockUpstream;
let operator: Operator;
let tenant: TestTenant;
const MODEL = "tiny-support-lm";

beforeAll(async () => {
  mock = await MockUpstream.start();
  const models = [...LOCAL_CATALOGUE.models, upstreamModel("mock"), upstreamModel("plain", { capabilities: [] })];
  platform = await startPlatform({ vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "labels", models } } });
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(() => mock.script({}));

interface Reply {
  readonly data: readonly { index: number; label: string; scores: Record<string, number> | null }[];
  readonly usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}
const classify = (body: object) =>
  tenant.client.post<Reply>("/tenantry/classifications", { body: { model: MODEL, ...body }, maxRetries: 0 });

describe("a classification", () => {
  it("weighs the labels for each text, the same each time", async () => {
    const asked = {
      input: ["where is my parcel", "I want my money back"],
      labels: ["DELIVERY", "REFUND", "NEWSLETTER"],
    };
    const first = await classify(asked);
    expect(first.data.map(({ index, label }) => [index, label])).toEqual([
      [0, "DELIVERY"],
      [1, "REFUND"],
    ]);
    for (const { scores, label } of first.data) {
      const values = Object.values(scores ?? {});
      expect(values.reduce((sum, score) => sum + score, 0)).toBeCloseTo(1, 6);
      expect(scores?.[label]).toBe(Math.max(...values));
      expect(Object.keys(scores ?? {})).toEqual(asked.labels);
    }
    expect(await classify(asked)).toEqual(first);
  });

  it("follows instructions that the model was trained with", async () => {
    const { data } = await classify({
      input: "help me to see the status of my order",
      labels: ["cancel_order", "track_order"],
      instructions: "Classify the customer message. Answer with the intent name only.",
    });
    expect(data[0]?.label).toBe("track_order");
  });

  it("is answered by a schema where the model does not weigh labels, and bills what that took", async () => {
    mock.once({ text: '{"label":"b"}', usage: { prompt_tokens: 30, completion_tokens: 5, total_tokens: 35 } });
    mock.once({ text: '{"label":"a"}', usage: { prompt_tokens: 40, completion_tokens: 6, total_tokens: 46 } });
    const { data, usage } = await classify({ model: "mock", input: ["x", "y"], labels: ["a", "b"] });
    expect(data).toEqual([
      { index: 0, label: "b", scores: null },
      { index: 1, label: "a", scores: null },
    ]);
    expect(usage).toEqual({ prompt_tokens: 70, completion_tokens: 11, total_tokens: 81 });
    const body = mock.requests.at(-1)?.body as unknown as { response_format: { json_schema: { schema: unknown } } };
    expect(body.response_format.json_schema.schema).toMatchObject({ properties: { label: { enum: ["a", "b"] } } });
  });

  it("fails where a model does not keep to the labels", async () => {
    mock.script({ text: '{"label":"c"}' });
    await expect(classify({ model: "mock", input: "x", labels: ["a", "b"] })).rejects.toMatchObject({
      status: 502,
      code: "model_error",
    });
  });

  it("stands in the decisions and in the usage", async () => {
    const fresh = await operator.createTenant();
    const body = { model: MODEL, input: ["a", "b"], labels: ["x", "y"] };
    await fresh.client.post("/tenantry/classifications", { body });
    const { data } = await fresh.client.get<{ data: { route: string; outcome: string }[] }>("/tenantry/decisions");
    expect(data).toMatchObject([{ route: "/v1/tenantry/classifications", outcome: "completed" }]);
    expect(await operator.usage(fresh.projectId)).toMatchObject({ requests: 1 });
  });

  it.each([
    [{ labels: ["a"] }, "invalid_value", "labels"],
    [{ labels: ["a", "a"] }, "invalid_value", "labels"],
    [{ labels: ["a", " "] }, "invalid_value", "labels[1]"],
    [{ input: [] }, "invalid_value", "input"],
    [{ input: undefined }, "missing_required_parameter", "input"],
    [{ temperature: 1 }, "unknown_parameter", "temperature"],
    [{ model: "tiny-support-embed" }, "invalid_value", "model"],
    [{ model: "plain" }, "unsupported_parameter", "model"],
    [{ input: "word ".repeat(600) }, "context_length_exceeded", "input"],
  ])("is refused with what is wrong: %j", async (more, code, param) => {
    await expect(classify({ input: "x", labels: ["a", "b"], ...more })).rejects.toMatchObject({ code, param });
  });
});
