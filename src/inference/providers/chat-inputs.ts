import { type ChatCall, type ChatMessage, type ContentPart, ProviderError } from "../provider";

/** Parameters that every provider takes under the contract's own names. */
export function parametersOf(call: ChatCall): Record<string, unknown> {
  return {
    // The old name: Ollama, llama.cpp and vLLM have always known it, `max_completion_tokens` only of late or never.
    max_tokens: call.maxOutputTokens,
    temperature: call.temperature,
    top_p: call.topP,
    top_k: call.topK,
    seed: call.seed,
    stop: call.stop,
    frequency_penalty: call.frequencyPenalty,
    presence_penalty: call.presencePenalty,
    repetition_penalty: call.repetitionPenalty,
    logit_bias: call.logitBias,
    logprobs: call.logprobs,
    top_logprobs: call.topLogprobs,
    parallel_tool_calls: call.parallelToolCalls,
  };
}

/** What was not asked for is not sent: some servers take `null` for a value. */
export function withoutUndefined(inputs: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(inputs).filter(([, value]) => value !== undefined));
}

export interface PlainMessage {
  readonly role: "system" | "user" | "assistant" | "tool";
  /** Parts only where images are among them: many chat templates know nothing but strings. */
  readonly content: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: ChatMessage["tool_calls"];
}

/**
 * The conversation as open models know it: `developer` is their `system`.
 * @throws ProviderError `bad_input` for images that the model cannot see
 */
export function plainMessages({ messages, model }: ChatCall): PlainMessage[] {
  const canSee = model.capabilities.includes("vision");
  return messages.map(({ role, content, ...rest }) => ({
    role: role === "developer" ? "system" : role,
    content: plainContent(content, canSee),
    ...rest,
  }));
}

function plainContent(content: ChatMessage["content"], canSee: boolean): PlainMessage["content"] {
  if (content === null || typeof content === "string") return content;
  const hasImages = content.some((part) => part.type === "image_url");
  if (!hasImages) return content.map(writtenIn).join("");
  if (!canSee) throw new ProviderError("bad_input", "the model takes no images");
  return content;
}

const writtenIn = (part: ContentPart) =>
  part.type === "text" ? part.text : part.type === "refusal" ? part.refusal : "";
