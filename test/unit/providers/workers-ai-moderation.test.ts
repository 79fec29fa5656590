import { describe, expect, it } from "vitest";
import type { ModerationModel } from "../../../src/inference/catalogue";
import { ModelCatalogue } from "../../../src/inference/catalogue";
import catalogue from "../../../src/inference/models.json";
import { workersAi } from "../../../src/inference/providers/workers-ai";

const model = ModelCatalogue.parse(catalogue).find("omni-moderation-latest") as ModerationModel;
const never = new AbortController().signal;

/** What the binding was asked, and the verdict on what it answered. */
async function judged(response: unknown, usage?: object) {
  const asked: unknown[] = [];
  const ai = {
    run: async (...call: unknown[]) => {
      asked.push(call);
      return { response, ...(usage ? { usage } : {}) };
    },
  };
  return { asked, result: await workersAi(ai).moderate?.({ model, inputs: ["a text"] }, never) };
}

/** Replies in the shapes of Workers AI's "llama-guard-3-8b". */
describe("Llama Guard on Workers AI", () => {
  it("is asked for JSON, one text at a time", async () => {
    const { asked } = await judged({ safe: true, categories: [] });
    expect(asked).toEqual([
      [
        "@cf/meta/llama-guard-3-8b",
        {
          messages: [{ role: "user", content: "a text" }],
          response_format: { type: "json_object" },
          temperature: 0,
        },
      ],
    ]);
  });

  it.each([
    [{ safe: true, categories: [] }, []],
    [{ safe: true }, []],
    [{ safe: false, categories: ["S1", "S10"] }, ["llama-guard.S1", "llama-guard.S10"]],
    ["safe", []],
    ["\n\nsafe", []],
    ["unsafe\nS2,S9", ["llama-guard.S2", "llama-guard.S9"]],
  ])("says in %j what it found", async (response, reasons) => {
    const { result } = await judged(response, { prompt_tokens: 200 });
    expect(result?.verdicts[0]?.reasons).toEqual(reasons);
    expect(result?.promptTokens).toBe(200);
  });

  it.each([undefined, null, "perhaps", { safe: "yes" }, { categories: [] }, 7])(
    "is broken where it answers %j: nothing is safe by accident",
    async (response) => {
      await expect(judged(response)).rejects.toMatchObject({ failure: "broken" });
    },
  );
});
