import type { ChatCall, ChatDelta, FinishReason, ProviderUsage } from "../provider";

/** What both an OpenAI-compatible server and the newer models of Workers AI answer with. */
export interface OpenAiChunk {
  readonly choices?: readonly OpenAiChoice[];
  readonly usage?: unknown;
}
interface OpenAiChoice {
  readonly index?: number;
  readonly delta?: OpenAiMessage;
  readonly message?: OpenAiMessage;
  readonly logprobs?: { readonly content?: unknown } | null;
  readonly finish_reason?: string | null;
}
interface OpenAiMessage {
  readonly content?: string | null;
  readonly tool_calls?: readonly OpenAiToolCall[] | null;
}
interface OpenAiToolCall {
  readonly index?: number;
  readonly id?: string;
  readonly function?: { readonly name?: string; readonly arguments?: string };
}

/** Deltas of one chunk, or of a whole reply. */
export function* deltasOf(chunk: OpenAiChunk, choiceOffset = 0): Generator<ChatDelta> {
  for (const choice of chunk.choices ?? []) {
    const index = (choice.index ?? 0) + choiceOffset;
    const message = choice.delta ?? choice.message;
    if (typeof message?.content === "string" && message.content !== "") {
      const logprobs = choice.logprobs?.content;
      yield { type: "text", choice: index, text: message.content, ...(logprobs ? { logprobs } : {}) };
    }
    for (const [position, call] of (message?.tool_calls ?? []).entries()) {
      yield {
        type: "tool_call",
        choice: index,
        index: call.index ?? position,
        arguments: call.function?.arguments ?? "",
        ...(call.id ? { id: call.id } : {}),
        ...(call.function?.name ? { name: call.function.name } : {}),
      };
    }
    if (choice.finish_reason) yield { type: "finish", choice: index, reason: finishReason(choice.finish_reason) };
  }
}

function finishReason(reason: string): FinishReason {
  switch (reason) {
    case "length":
    case "tool_calls":
    case "content_filter":
      return reason;
    default:
      return "stop";
  }
}

/** A provider's usage, or undefined where it is missing or absurd: then the tap's own count stands in. */
export function usageOf(usage: unknown): ProviderUsage | undefined {
  if (typeof usage !== "object" || usage === null) return undefined;
  const { prompt_tokens, completion_tokens, prompt_tokens_details } = usage as Record<string, unknown>;
  const cached = (prompt_tokens_details as { cached_tokens?: unknown } | null | undefined)?.cached_tokens ?? 0;
  const promptTokens = prompt_tokens;
  const completionTokens = completion_tokens ?? 0;
  if (!isCount(promptTokens) || !isCount(completionTokens) || !isCount(cached)) return undefined;
  return { promptTokens, completionTokens, cachedTokens: Math.min(cached, promptTokens) };
}

const MAX_TOKENS = 100_000_000;
const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= MAX_TOKENS;

/** Parameters that every provider takes under the contract's own names. */
export function sharedParameters(call: ChatCall): Record<string, unknown> {
  const parameters = {
    max_tokens: call.maxOutputTokens, // older servers know no max_completion_tokens
    temperature: call.temperature,
    top_p: call.topP,
    top_k: call.topK,
    seed: call.seed,
    stop: call.stop,
    frequency_penalty: call.frequencyPenalty,
    presence_penalty: call.presencePenalty,
    repetition_penalty: call.repetitionPenalty,
    tools: call.tools,
    tool_choice: call.toolChoice,
  };
  return Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== undefined));
}
