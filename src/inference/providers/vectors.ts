import { z } from "zod";
import { FIRST_ISSUE } from "../../first-issue";
import { type EmbeddingCall, type EmbeddingResult, ProviderError } from "../provider";
import { reportedUsage, TokenCount } from "./token-count";

const Usage = z.object({ prompt_tokens: TokenCount });

/**
 * @throws ProviderError `broken` unless there is one finite vector for each input, all of the length that was asked for
 * or that is the model's; where neither is known, all of one length
 */
export function checkedVectors(vectors: readonly unknown[], usage: unknown, call: EmbeddingCall): EmbeddingResult {
  const { inputs, model } = call;
  const [first] = vectors;
  const length = call.dimensions ?? model.dimensions ?? (Array.isArray(first) ? Math.max(1, first.length) : 1);
  const Vectors = z.array(z.array(z.number()).length(length)).length(inputs.length);
  const { data } = Vectors.safeParse(vectors, FIRST_ISSUE);
  if (!data) {
    throw new ProviderError("broken", `the reply has not ${inputs.length} vectors of ${length} numbers`);
  }
  const counted = Usage.safeParse(usage).data;
  const isRejected = !counted && usage !== undefined && usage !== null;
  const rejected = isRejected ? { usageRejected: reportedUsage(usage) } : {};
  return { vectors: data, promptTokens: counted?.prompt_tokens ?? null, ...rejected };
}
