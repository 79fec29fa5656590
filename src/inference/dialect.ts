import { z } from "zod";

/**
 * What an OpenAI-compatible server takes, where servers differ. A catalogue entry may declare any part of it; what it
 * does not declare is learned from refusals.
 */
export const DeclaredDialect = z.strictObject({
  /** How the cap of the output is called; `none` for servers that take no cap. */
  output_cap: z.enum(["max_tokens", "max_completion_tokens", "none"]).optional(),
  /** Fields of the request that are never sent, such as `stream_options`. */
  omit: z.array(z.string().min(1).max(64)).max(32).optional(),
  /** Where the messages of the system go: as written, as one at the beginning, or into the user's first message. */
  system_messages: z.enum(["as_written", "one_first", "in_user"]).optional(),
  /** Two messages of one role in a row become one: some chat templates know nothing else. */
  alternating_roles: z.boolean().optional(),
  /** `reasoning_content` of earlier messages is sent: some servers want it, some refuse it. */
  reasoning_passed_back: z.boolean().optional(),
  /** The server answers with one choice whatever `n` says: several choices are several calls. */
  one_choice: z.boolean().optional(),
  /** The text begins with `<think>…</think>`, which is reasoning. */
  think_tags: z.boolean().optional(),
});
export type DeclaredDialect = z.output<typeof DeclaredDialect>;

export interface Dialect {
  readonly outputCap: "max_tokens" | "max_completion_tokens" | "none";
  readonly omit: readonly string[];
  readonly systemMessages: "as_written" | "one_first" | "in_user";
  readonly hasAlternatingRoles: boolean;
  readonly passesReasoningBack: boolean;
  readonly hasOneChoice: boolean;
  readonly hasThinkTags: boolean;
}

/** What is not declared is what most servers take. */
export const dialectOf = (declared: DeclaredDialect = {}): Dialect => ({
  // The old name: Ollama, llama.cpp and vLLM have always known it, `max_completion_tokens` only of late or never.
  outputCap: declared.output_cap ?? "max_tokens",
  omit: declared.omit ?? [],
  systemMessages: declared.system_messages ?? "as_written",
  hasAlternatingRoles: declared.alternating_roles ?? false,
  passesReasoningBack: declared.reasoning_passed_back ?? false,
  hasOneChoice: declared.one_choice ?? false,
  hasThinkTags: declared.think_tags ?? false,
});
