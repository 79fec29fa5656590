import { ApiError } from "../errors";
import type { Capability, ChatModel, EmbeddingModel, Model, ModelCatalogue } from "../inference/catalogue";
import type { Authenticated } from "../tenancy/authenticate";
import type { ModelCall } from "./model-call";
import type { ChatRequest, EmbeddingRequest, ModelRequest } from "./model-request";

/**
 * Public name or alias → catalogue entry. A model that the tenant or the end user may not call is answered as one
 * that does not exist.
 * @throws ApiError `model_not_found`, or `unsupported_parameter` for what the model cannot do
 */
export async function resolveModel(call: ModelCall): Promise<void> {
  const { request, ports, caller } = call;
  call.model = callableModel(ports.catalogue, caller, request);
}

/** The model of a request, while its caller may call it and it can do what is asked. @throws ApiError */
export function callableModel(catalogue: ModelCatalogue, caller: Authenticated, request: ModelRequest): Model {
  const model = catalogue.find(request.model);
  if (!model || !isCallable(caller, model)) throw modelNotFound(request.model);
  assertCan(model, request);
  return model;
}

/** The same without knowing who calls; undefined for a model that does not exist or cannot do it. */
export function findModel(catalogue: ModelCatalogue, request: ModelRequest): Model | undefined {
  const model = catalogue.find(request.model);
  try {
    if (model) assertCan(model, request);
    return model;
  } catch {
    return undefined;
  }
}

function assertCan(model: Model, request: ModelRequest): void {
  if (request.kind === "completions") assertChat(model, request);
  else if (request.kind === "embeddings") assertEmbedding(model, request);
  else if (model.task !== "moderation")
    throw new ApiError("invalid_value", `The model '${request.model}' does not judge texts.`, { param: "model" });
}

export const modelNotFound = (name: string) =>
  new ApiError("model_not_found", `The model '${name}' does not exist or you do not have access to it.`, {
    param: "model",
  });

/** Whether a caller may know of a model: its tenant's permissions, its region, and an end user's own list. */
export function isCallable({ policy, context }: Authenticated, model: Model): boolean {
  if (policy.allowedModels && !policy.allowedModels.includes(model.name)) return false;
  const { actor } = context;
  return isOneOf(model, actor.type === "end_user" ? actor.models : null);
}

/** Whether a list of public names or aliases has it; no list has all. */
export const isOneOf = (model: Model, names: readonly string[] | null) =>
  names === null || names.some((name) => name === model.name || model.aliases.includes(name));

function assertChat(model: Model, request: ChatRequest): asserts model is ChatModel {
  if (model.task !== "chat") {
    const message =
      model.task === "embedding"
        ? `The model '${request.model}' makes embeddings; call /v1/embeddings with it.`
        : `The model '${request.model}' judges texts; call /v1/moderations with it.`;
    throw new ApiError("invalid_value", message, { param: "model" });
  }
  const needs: [param: string, capability: Capability, needed: boolean][] = [
    ["tools", "tools", request.tools !== undefined && request.tools.length > 0],
    ["response_format", "json_object", request.responseFormat?.type === "json_object"],
    ["response_format", "json_schema", request.responseFormat?.type === "json_schema"],
    ["seed", "seed", request.seed !== undefined],
    ["stop", "stop", request.stop !== undefined],
    ["top_k", "top_k", request.topK !== undefined],
    ["repetition_penalty", "penalties", request.repetitionPenalty !== undefined],
    ["frequency_penalty", "penalties", request.frequencyPenalty !== undefined && request.frequencyPenalty !== 0],
    ["presence_penalty", "penalties", request.presencePenalty !== undefined && request.presencePenalty !== 0],
    ["logit_bias", "logit_bias", request.logitBias !== undefined && Object.keys(request.logitBias).length > 0],
    ["logprobs", "logprobs", request.logprobs === true],
    ["reasoning_effort", "reasoning", request.reasoningEffort !== undefined],
    ["messages", "tools", request.messages.some((message) => message.role === "tool" || message.tool_calls)],
  ];
  if (request.classification && model.classifier === null && !model.capabilities.includes("json_schema")) {
    const message = `The model '${request.model}' cannot classify: it neither weighs labels nor keeps a JSON schema.`;
    throw new ApiError("unsupported_parameter", message, { param: "model" });
  }
  if (hasImages(request) && !model.capabilities.includes("vision")) {
    const message = `The model '${request.model}' does not take images.`;
    throw new ApiError("unsupported_modality", message, { param: "messages" });
  }
  for (const [param, capability, needed] of needs) {
    if (needed && !model.capabilities.includes(capability)) throw unsupported(param, capability, request.model);
  }
}

function assertEmbedding(model: Model, request: EmbeddingRequest): asserts model is EmbeddingModel {
  if (model.task !== "embedding") {
    throw new ApiError("invalid_value", `The model '${request.model}' makes no embeddings.`, { param: "model" });
  }
  if (request.dimensions !== undefined && model.dimensions !== null && request.dimensions !== model.dimensions) {
    const message = `The model '${request.model}' makes vectors of ${model.dimensions} dimensions and no others.`;
    throw new ApiError("unsupported_parameter", message, { param: "dimensions" });
  }
}

const unsupported = (param: string, capability: Capability, model: string) =>
  new ApiError("unsupported_parameter", `'${param}' is not supported with the model '${model}' (${capability}).`, {
    param,
  });

const hasImages = (request: ChatRequest) =>
  request.messages.some(
    ({ content }) => Array.isArray(content) && content.some((part: { type: string }) => part.type === "image_url"),
  );
