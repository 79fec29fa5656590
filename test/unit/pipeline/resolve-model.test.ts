import { describe, expect, it } from "vitest";
import { ApiError } from "../../../src/errors";
import type { ChatRequest, ModelRequest } from "../../../src/pipeline/model-request";
import { checkResidency } from "../../../src/pipeline/residency";
import { callableModel, findModel, isCallable, isOneOf, resolveModel } from "../../../src/pipeline/resolve-model";
import { CATALOGUE, callerWith, callOf, chatRequest } from "./calls";

const refusal = (request: ModelRequest, caller = callerWith()) => {
  try {
    return callableModel(CATALOGUE, caller, request).name;
  } catch (error) {
    return error instanceof ApiError ? `${error.code} ${error.options.param}` : String(error);
  }
};
const endUser = (models: readonly string[] | null) =>
  ({ type: "end_user", keyId: "key_1", subject: "u", models, requestsPerMinute: null }) as const;
const inputs = { serviceTier: "default", stream: false, inputs: ["x"] } as const;

describe("a model", () => {
  it("is found by its name or an alias, and by nothing else", async () => {
    expect(refusal(chatRequest())).toBe("plain");
    expect(refusal(chatRequest({ model: "alias" }))).toBe("plain");
    for (const model of ["p", "Plain", "", "constructor"]) {
      expect(refusal(chatRequest({ model }))).toBe("model_not_found model");
      expect(findModel(CATALOGUE, chatRequest({ model }))).toBeUndefined();
    }
    const call = callOf(chatRequest({ model: "alias" }));
    await resolveModel(call);
    expect(call.model.name).toBe("plain");
  });

  it("that the tenant or its end user may not call does not exist for them, under an alias either", () => {
    expect(refusal(chatRequest(), callerWith({ allowedModels: ["able"] }))).toBe("model_not_found model");
    expect(refusal(chatRequest({ model: "alias" }), callerWith({ allowedModels: ["able"] }))).toBe(
      "model_not_found model",
    );
    expect(refusal(chatRequest({ model: "alias" }), callerWith({ allowedModels: ["plain"] }))).toBe("plain");
    expect(refusal(chatRequest(), callerWith({ actor: endUser(["able"]) }))).toBe("model_not_found model");
    expect(refusal(chatRequest(), callerWith({ actor: endUser([]) }))).toBe("model_not_found model");
    expect(refusal(chatRequest(), callerWith({ actor: endUser(["alias"]) }))).toBe("plain");
    expect(refusal(chatRequest(), callerWith({ actor: endUser(null) }))).toBe("plain");
    // What the tenant may not, its end user may not either.
    const both = callerWith({ actor: endUser(["plain"]), allowedModels: ["able"] });
    const plain = CATALOGUE.find("plain") as NonNullable<ReturnType<typeof CATALOGUE.find>>;
    expect(isCallable(both, plain)).toBe(false);
    expect([isOneOf(plain, null), isOneOf(plain, []), isOneOf(plain, ["alias"])]).toEqual([true, false, true]);
  });

  it("that promises nothing for the tenant's region does not exist there", async () => {
    const caller = callerWith();
    const abroad = { ...caller, context: { ...caller.context, region: "eu" } } as typeof caller;
    const call = callOf(chatRequest(), {}, { caller: abroad });
    await resolveModel(call);
    await expect(checkResidency(call)).rejects.toMatchObject({ code: "model_not_found" });
    const here = callOf(chatRequest());
    await resolveModel(here);
    await expect(checkResidency(here)).resolves.toBeUndefined();
  });

  it("of another task is refused by name", () => {
    for (const model of ["embed", "safe"]) expect(refusal(chatRequest({ model }))).toBe("invalid_value model");
    expect(refusal({ ...inputs, kind: "embeddings", model: "plain" })).toBe("invalid_value model");
    expect(refusal({ ...inputs, kind: "embeddings", model: "embed" })).toBe("embed");
    expect(refusal({ ...inputs, kind: "embeddings", model: "embed", dimensions: 3 })).toBe("embed");
    expect(refusal({ ...inputs, kind: "embeddings", model: "embed", dimensions: 2 })).toBe(
      "unsupported_parameter dimensions",
    );
    expect(refusal({ ...inputs, kind: "moderations", model: "plain" })).toBe("invalid_value model");
    expect(refusal({ ...inputs, kind: "moderations", model: "safe" })).toBe("safe");
  });

  const tool = { type: "function", function: { name: "f", parameters: {} } };
  it.each<[string, Partial<Record<keyof ChatRequest, unknown>>]>([
    ["tools", { tools: [tool] }],
    ["response_format", { responseFormat: { type: "json_object" } }],
    ["response_format", { responseFormat: { type: "json_schema" } }],
    ["seed", { seed: 0 }],
    ["stop", { stop: ["x"] }],
    ["top_k", { topK: 1 }],
    ["repetition_penalty", { repetitionPenalty: 1 }],
    ["frequency_penalty", { frequencyPenalty: 0.1 }],
    ["presence_penalty", { presencePenalty: -1 }],
    ["logit_bias", { logitBias: { "1": 1 } }],
    ["messages", { messages: [{ role: "tool", content: "x", tool_call_id: "c" }] }],
  ])("that cannot do it refuses %s by name, and one that can takes it", (param, asked) => {
    expect(refusal(chatRequest(asked as Partial<ChatRequest>))).toBe(`unsupported_parameter ${param}`);
    expect(findModel(CATALOGUE, chatRequest(asked as Partial<ChatRequest>))).toBeUndefined();
    expect(refusal(chatRequest({ ...(asked as Partial<ChatRequest>), model: "able" }))).toBe("able");
  });

  it("takes no images, logprobs, reasoning or labels that it has nothing for", () => {
    const image = [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:x" } }] }];
    expect(refusal(chatRequest({ messages: image } as unknown as Partial<ChatRequest>))).toBe(
      "unsupported_modality messages",
    );
    expect(refusal(chatRequest({ logprobs: true }))).toBe("unsupported_parameter logprobs");
    expect(refusal(chatRequest({ reasoningEffort: "low" } as Partial<ChatRequest>))).toBe(
      "unsupported_parameter reasoning_effort",
    );
    const classification = { inputs: ["x"], labels: ["a"] };
    expect(refusal(chatRequest({ classification }))).toBe("unsupported_parameter model");
    expect(refusal(chatRequest({ classification, model: "judge" }))).toBe("judge");
    expect(refusal(chatRequest({ classification, model: "able" }))).toBe("able");
  });

  it("is asked for nothing by parameters that say nothing", () => {
    const nothing = { tools: [], frequencyPenalty: 0, presencePenalty: 0, logitBias: {}, logprobs: false };
    expect(refusal(chatRequest(nothing as Partial<ChatRequest>))).toBe("plain");
  });
});
