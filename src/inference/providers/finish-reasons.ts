import { type FinishReason, ProviderError, type ProviderFailure } from "../provider";

/**
 * What servers call the end of an answer, lower case, words joined by underscores: OpenAI, vLLM, SGLang, TGI, llama.cpp,
 * Ollama, Mistral, DeepSeek, Zhipu, Gemini, Anthropic, Cohere, Bedrock and what stands in front of them.
 */
const ENDINGS: Readonly<Record<string, FinishReason>> = {
  ...all("stop", "stop", "eos", "eos_token", "eot", "end", "end_turn", "end_of_turn", "stop_sequence", "stop_token"),
  ...all("stop", "stop_word", "stop_str", "word", "complete", "completed", "done", "finished", "normal", "success"),
  ...all(
    "length",
    "length",
    "max_tokens",
    "max_length",
    "max_output_tokens",
    "max_new_tokens",
    "model_length",
    "limit",
  ),
  ...all("length", "max_completion_tokens", "model_context_window_exceeded", "context_length", "token_limit"),
  ...all("length", "length_limit", "max_token", "error_limit"),
  ...all("tool_calls", "tool_calls", "tool_call", "tool_use", "function_call", "function_calls", "tools"),
  ...all("content_filter", "content_filter", "content_filtered", "safety", "recitation", "blocklist", "spii"),
  ...all("content_filter", "prohibited_content", "image_safety", "model_armor", "guardrail_intervened", "refusal"),
  ...all("content_filter", "sensitive", "error_toxic", "content_policy", "blocked", "moderation", "guardrail"),
  ...all("content_filter", "image_prohibited_content", "image_recitation", "language"),
};

/** Endings that say that there is no whole answer, and why. Whatever is not listed anywhere is one of them. */
const INTERRUPTIONS: Readonly<Record<string, ProviderFailure>> = {
  ...all("capacity", "insufficient_system_resource", "overloaded", "load", "unload", "preempted"),
  ...all("timeout", "timeout", "time_limit", "max_time", "deadline_exceeded"),
};

function all<T>(meaning: T, ...words: readonly string[]): Record<string, T> {
  return Object.fromEntries(words.map((word) => [word, meaning]));
}

/**
 * How an answer ended; undefined while it has not.
 * @throws ProviderError for an answer that was interrupted, or ended in a way that nobody here understands: its text
 * may be half of one, which must not look whole
 */
export function endingOf(reason: unknown): FinishReason | undefined {
  if (reason === undefined || reason === null || reason === false) return undefined;
  const word = wordOf(reason);
  if (word === "" || word === "null" || word === "none" || word === "finish_reason_unspecified") return undefined;
  const known = Object.hasOwn(ENDINGS, word) ? ENDINGS[word] : undefined;
  if (known) return known;
  const failure = (Object.hasOwn(INTERRUPTIONS, word) ? INTERRUPTIONS[word] : undefined) ?? "broken";
  const shown = /^[a-z0-9_]{1,40}$/.test(word) ? word : "in no known words";
  throw new ProviderError(failure, `the model ended with: ${shown}`, { providerCode: shown.replaceAll(" ", "_") });
}

/** `FinishReason.MAX_TOKENS`, `maxTokens` and `max-tokens` are one word; TGI and others wrap it into an object. */
function wordOf(reason: unknown): string {
  if (typeof reason === "object" && reason !== null) {
    const { type, reason: inner } = reason as { type?: unknown; reason?: unknown };
    return typeof (inner ?? type) === "string" ? wordOf(inner ?? type) : "object";
  }
  return String(reason)
    .trim()
    .replace(/^finish_?reason[._]/i, "")
    .replace(/([a-z])([A-Z])/g, "$1_$2")
    .replace(/[\s-]+/g, "_")
    .toLowerCase();
}
