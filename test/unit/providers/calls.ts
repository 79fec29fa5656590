import fc from "fast-check";
import type { Capability, ChatModel, EmbeddingModel } from "../../../src/inference/catalogue";
import { type ChatCall, type ChatDelta, ProviderError } from "../../../src/inference/provider";

const entry = {
  aliases: [],
  ownedBy: "somebody",
  createdSeconds: 0,
  endpoint: null,
  contextTokens: 4_096,
  maxInFlight: null,
  tokenizer: null,
  regions: ["global"] as ["global"],
};

export const chatModel = (provider: ChatModel["provider"], providerModel: string, capabilities: Capability[] = []) =>
  ({
    ...entry,
    name: "public",
    task: "chat",
    provider,
    providerModel,
    capabilities,
    defaultMaxOutputTokens: 256,
    imageTokens: { low: 85, high: 1_445 },
    classifier: null,
  }) satisfies ChatModel;

export const embeddingModel = (provider: EmbeddingModel["provider"], dimensions: number) =>
  ({
    ...entry,
    name: "public-embed",
    task: "embedding",
    provider,
    providerModel: "embed-1",
    capabilities: [],
    dimensions,
  }) satisfies EmbeddingModel;

export const chatCall = (model: ChatModel, more: Partial<ChatCall> = {}): ChatCall => ({
  model,
  messages: [{ role: "user", content: "hi" }],
  maxOutputTokens: 100,
  choices: 1,
  stream: true,
  ...more,
});

export const never = new AbortController().signal;

export async function collected(output: AsyncIterable<ChatDelta>): Promise<ChatDelta[]> {
  const deltas: ChatDelta[] = [];
  for await (const delta of output) deltas.push(delta);
  return deltas;
}

export const textIn = (deltas: readonly ChatDelta[], choice = 0) =>
  deltas.map((delta) => (delta.type === "text" && delta.choice === choice ? delta.text : "")).join("");
export const finishesIn = (deltas: readonly ChatDelta[]) =>
  deltas.flatMap((delta) => (delta.type === "finish" ? [delta] : []));
export const usageIn = (deltas: readonly ChatDelta[]) => deltas.find((delta) => delta.type === "usage");
export const toolCallsIn = (deltas: readonly ChatDelta[]) =>
  deltas.flatMap((delta) => (delta.type === "tool_call" ? [delta] : []));

/** The ProviderError that `work` ends with; anything else fails the test. */
export async function failureOf(work: () => Promise<unknown>): Promise<ProviderError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ProviderError) return error;
    throw error;
  }
  throw new Error("expected a ProviderError, and nothing was thrown");
}

/** `bytes` cut at the given places. */
export function pieces(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((start, index) => bytes.slice(start, places[index] ?? bytes.length));
}

/** A text's bytes as a stream, cut at the given places. */
export const streamOf = (text: string, cuts: readonly number[] = []) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces(new TextEncoder().encode(text), cuts)) if (piece.length > 0) controller.enqueue(piece);
      controller.close();
    },
  });

export const anyCuts = fc.array(fc.nat({ max: 100_000 }), { maxLength: 60 });
