import { z } from "zod";
import { FIRST_ISSUE } from "../../first-issue";
import { type EmbeddingCall, type EmbeddingResult, ProviderError } from "../provider";
import { reportedUsage, TokenCount } from "./token-count";

const Usage = z.object({ prompt_tokens: TokenCount });

/** @throws ProviderError `broken` unless there is one finite vector of the model's dimensions for each input */
export function checkedVectors(vectors: readonly unknown[], usage: unknown, call: EmbeddingCall): EmbeddingResult {
  const { inputs, model } = call;
  const Vectors = z.array(z.array(z.number()).length(model.dimensions)).length(inputs.length);
  const { data } = Vectors.safeParse(vectors, FIRST_ISSUE);
  if (!data) {
    throw new ProviderError("broken", `the reply has not ${inputs.length} vectors of ${model.dimensions} numbers`);
  }
  const counted = Usage.safeParse(usage).data;
  const isRejected = !counted && usage !== undefined && usage !== null;
  const rejected = isRejected ? { usageRejected: reportedUsage(usage) } : {};
  return { vectors: data, promptTokens: counted?.prompt_tokens ?? null, ...rejected };
}
