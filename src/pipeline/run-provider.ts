import { ApiError } from "../errors";
import {
  type ChatCall,
  type EmbeddingResult,
  type ModerationResult,
  ProviderError,
  type ProviderFailure,
} from "../inference/provider";
import { promptAffinity } from "./affinity";
import { classify } from "./classify";
import { failOver } from "./dispatch";
import type { ModelCall, Output } from "./model-call";
import { type AskForChoices, inWaves } from "./waves";

/** Calls the model. The reservation's cap goes with it, whatever the caller asked for. */
export async function runProvider(call: ModelCall): Promise<void> {
  const { model, request, ports, reservation } = call;
  if (request.kind === "embeddings" && model.task === "embedding") {
    const { inputs, dimensions } = request;
    const asked = { model, inputs, ...(dimensions === undefined ? {} : { dimensions }) };
    const embed = () => ports.providerOf(model, call.endpoint?.url).embed(asked, call.signal);
    call.output = withFailover(call, () => embeddings(async () => embed()));
  } else if (request.kind === "moderations" && model.task === "moderation") {
    const { inputs } = request;
    const provider = () => ports.providerOf(model, call.endpoint?.url);
    call.output = withFailover(call, () =>
      moderation(async () => provider().moderate?.({ model, inputs }, call.signal)),
    );
  } else if (request.kind === "completions" && model.task === "chat") {
    const { kind: _, serviceTier: __, classification, ...asked } = request;
    if (classification) {
      const judge = () =>
        classify(ports.providerOf(model, call.endpoint?.url), model, classification, reservation, call.signal);
      call.output = withFailover(call, judge);
      return;
    }
    const affinity = await promptAffinity(call.caller.context, model.name, asked.messages);
    const cap = { maxOutputTokens: reservation.outputTokens, isCapDefault: asked.maxOutputTokens === undefined };
    const chat: ChatCall = { ...asked, model, ...cap, affinity };
    const ask: AskForChoices = async (firstChoice, choices) =>
      ports.providerOf(model, call.endpoint?.url).chat({ ...chat, firstChoice, choices }, call.signal);
    // Nothing runs before the first delta is asked for: by then the settlement is armed.
    call.output = withFailover(call, () => inWaves(ask, chat.choices, call.sequences));
  } else {
    throw new TypeError(`model ${model.name} cannot answer ${request.kind}`);
  }
}

/** Another endpoint takes over as long as nothing of the answer is out; after the first token, never. */
async function* withFailover(call: ModelCall, run: () => AsyncGenerator<Output>): AsyncGenerator<Output> {
  for (;;) {
    let hasBegun = false;
    try {
      for await (const delta of run()) {
        hasBegun = true;
        yield delta;
      }
      return;
    } catch (error) {
      const outcome = call.endpoint && !call.signal.aborted ? endpointOutcome(error) : undefined;
      if (!outcome) throw error;
      const restMs = (error as ProviderError).detail.retryAfterMs ?? 1_000;
      if (!hasBegun && (await failOver(call, outcome, restMs))) continue;
      call.endpointFailed = outcome === "failed";
      throw error;
    }
  }
}

/** What a failure says of the endpoint; undefined where it says something of the request. */
function endpointOutcome(error: unknown): "failed" | "busy" | undefined {
  if (!(error instanceof ProviderError)) return undefined;
  if (error.failure === "capacity" || error.failure === "quota") return "busy";
  return error.failure === "broken" || error.failure === "timeout" ? "failed" : undefined;
}

async function* embeddings(run: () => Promise<EmbeddingResult>): AsyncGenerator<Output> {
  const { vectors, promptTokens, usageRejected } = await run();
  yield { type: "vectors", vectors };
  if (promptTokens !== null) yield { type: "usage", promptTokens, completionTokens: 0, cachedTokens: 0 };
  else if (usageRejected !== undefined) yield { type: "usage_rejected", reported: usageRejected };
}

async function* moderation(run: () => Promise<ModerationResult | undefined>): AsyncGenerator<Output> {
  const result = await run();
  if (!result) throw new TypeError("the catalogue names a provider that judges nothing");
  yield { type: "verdicts", verdicts: result.verdicts };
  const { promptTokens } = result;
  if (promptTokens !== null) yield { type: "usage", promptTokens, completionTokens: 0, cachedTokens: 0 };
}

const schemaRefused = (param: string) =>
  new ApiError(
    "model_refused_input",
    `The model cannot keep the schema in '${param}': it is too large for it, no reply within the token limit satisfies it, or it uses a keyword that the model does not know.`,
    { param },
  );

/** What a caller is told of a provider's failure: in our words, with none of the provider's. */
export function providerFailed(error: ProviderError): ApiError {
  const retryAfter = { "retry-after": String(Math.max(1, Math.ceil((error.detail.retryAfterMs ?? 1000) / 1000))) };
  switch (error.failure) {
    case "bad_input": {
      const { param, isSchema } = error.detail;
      if (param !== undefined && isSchema) return schemaRefused(param);
      if (param !== undefined) {
        const message = `The model does not take '${param}' as it is asked for: leave it out, or give it another value.`;
        return new ApiError("unsupported_parameter", message, { param });
      }
      return new ApiError(
        "model_refused_input",
        "The model does not take this request as it is. Check its parameters.",
      );
    }
    case "context_length":
      return new ApiError(
        "context_length_exceeded",
        "The messages and the requested output exceed the model's context.",
        {
          param: "messages",
        },
      );
    case "capacity":
    case "quota":
      return new ApiError("model_overloaded", "The model has no capacity right now. Try again shortly.", {
        headers: retryAfter,
      });
    case "timeout":
      return new ApiError("model_timeout", "The model did not answer in time.");
    case "aborted":
      return new ApiError("client_closed_request", "The request was cancelled.");
    case "unknown_model":
    case "unauthorized":
    case "broken":
      return new ApiError(
        "model_error",
        "The model failed to answer. Try again; if it persists, quote the request id.",
      );
  }
}

/** Failures that are the platform's business: logged, because the caller is told no more than it needs. */
export const OPERATOR_FAILURES: ReadonlySet<ProviderFailure> = new Set([
  "quota",
  "unknown_model",
  "unauthorized",
  "broken",
]);
