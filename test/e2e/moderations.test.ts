import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startPlatform();
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

describe("moderations through the official client", () => {
  it("judge each text, and say why", async () => {
    const { results, model } = await tenant.client.moderations.create({
      model: "omni-moderation-latest",
      input: ["Where is my order?", "I am going to kill you"],
    });
    expect(model).toBe("tenantry-rules");
    expect(results.map(({ flagged }) => flagged)).toEqual([false, true]);
    expect(results[1]).toMatchObject({
      categories: { "harassment/threatening": true, sexual: false },
      reasons: ["harassment.threat"],
    });
  });

  it("take the default model, one text, and parts as one", async () => {
    expect((await tenant.client.moderations.create({ input: "hello" })).results).toHaveLength(1);
    const parts = [
      { type: "text" as const, text: "I am going to" },
      { type: "text" as const, text: "kill you" },
    ];
    const { results } = await tenant.client.moderations.create({ input: parts });
    expect(results.map(({ flagged }) => flagged)).toEqual([true]);
  });

  it("are counted, recorded and paid for as every call", async () => {
    const fresh = await operator.createTenant();
    await fresh.client.moderations.create({ input: "hello there" });
    const { data } = await fresh.client.get<{ data: object[] }>("/tenantry/decisions");
    expect(data).toMatchObject([{ route: "/v1/moderations", outcome: "completed", model: "tenantry-rules" }]);
    const usage = await operator.client.admin.organization.usage.moderations({
      start_time: Math.floor(Date.now() / 1000) - 3_600,
      project_ids: [fresh.projectId],
    });
    expect(usage.data.flatMap(({ results }) => results)).toMatchObject([{ num_model_requests: 1 }]);
  });

  it.each([
    [{ input: [{ type: "image_url", image_url: { url: "https://x/y.png" } }] }, "unsupported_modality", "input[0]"],
    [{ input: [] }, "invalid_value", "input"],
    [{}, "missing_required_parameter", "input"],
    [{ input: "x", model: "tiny-support-lm" }, "invalid_value", "model"],
    [{ input: "x", model: "nothing" }, "model_not_found", "model"],
  ])("refuse %j by name", async (body, code, param) => {
    await expect(tenant.client.post("/moderations", { body })).rejects.toMatchObject({ code, param });
  });

  it("leave the other doors closed to a model that judges", async () => {
    const messages = [{ role: "user" as const, content: "x" }];
    await expect(tenant.client.chat.completions.create({ model: "tenantry-rules", messages })).rejects.toMatchObject({
      status: 400,
      param: "model",
    });
    await expect(tenant.client.embeddings.create({ model: "tenantry-rules", input: "x" })).rejects.toMatchObject({
      status: 400,
      param: "model",
    });
  });
});
