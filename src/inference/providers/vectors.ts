import { z } from "zod";
import { type EmbeddingCall, type EmbeddingResult, ProviderError } from "../provider";
import { TokenCount } from "./token-count";

const Usage = z.object({ prompt_tokens: TokenCount });

/** @throws ProviderError `broken` unless there is one finite vector of the model's dimensions for each input */
export function checkedVectors(vectors: readonly unknown[], usage: unknown, call: EmbeddingCall): EmbeddingResult {
  const { inputs, model } = call;
  const Vectors = z.array(z.array(z.number()).length(model.dimensions)).length(inputs.length);
  const { data } = Vectors.safeParse(vectors);
  if (!data) {
    throw new ProviderError("broken", `the reply has not ${inputs.length} vectors of ${model.dimensions} numbers`);
  }
  return { vectors: data, promptTokens: Usage.safeParse(usage).data?.prompt_tokens ?? null };
}
