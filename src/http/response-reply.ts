import type { ToldUsage } from "../pipeline/model-call";
import type { OutputItem } from "./response-output";
import type { ParsedResponse } from "./response-request";

export type ResponseStatus = "completed" | "failed" | "in_progress" | "cancelled" | "queued" | "incomplete";

/** What changes of a response while it is made. */
export interface ResponseState {
  readonly status: ResponseStatus;
  readonly output: readonly OutputItem[];
  readonly usage: ToldUsage | null;
  readonly completedAt: number | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly incompleteReason: "max_output_tokens" | "content_filter" | null;
}
export const UNDER_WAY: ResponseState = {
  ...{ status: "in_progress", output: [], usage: null, completedAt: null, error: null, incompleteReason: null },
};

/** What stays the same. */
export interface ResponseHead {
  readonly id: string;
  /** Unix seconds. */
  readonly createdAt: number;
  /** Public name of the model. */
  readonly model: string;
  readonly serviceTier: string;
  readonly store: boolean;
}

/** The contract's response object. */
export function responseToWire(head: ResponseHead, { asked }: ParsedResponse, state: ResponseState) {
  const format = asked.text?.format ?? { type: "text" };
  return {
    id: head.id,
    object: "response" as const,
    created_at: head.createdAt,
    status: state.status,
    completed_at: state.completedAt,
    background: asked.background ?? false,
    error: state.error,
    incomplete_details: state.incompleteReason === null ? null : { reason: state.incompleteReason },
    instructions: asked.instructions ?? null,
    max_output_tokens: asked.max_output_tokens ?? null,
    model: head.model,
    output: state.output,
    parallel_tool_calls: asked.parallel_tool_calls ?? true,
    previous_response_id: asked.previous_response_id ?? null,
    reasoning: { effort: asked.reasoning?.effort ?? null, summary: null },
    service_tier: head.serviceTier,
    store: head.store,
    temperature: asked.temperature ?? null,
    text: { format: format.type === "json_schema" ? { ...format, strict: format.strict ?? false } : format },
    tool_choice: asked.tool_choice ?? "auto",
    tools: (asked.tools ?? []).map(toolToWire),
    top_logprobs: asked.top_logprobs ?? 0,
    top_p: asked.top_p ?? null,
    truncation: "disabled" as const,
    ...(state.usage ? { usage: usageToWire(state.usage) } : {}),
    user: asked.user ?? undefined,
    safety_identifier: asked.safety_identifier ?? undefined,
    prompt_cache_key: asked.prompt_cache_key ?? undefined,
    metadata: asked.metadata ?? {},
  };
}
export type WireResponse = ReturnType<typeof responseToWire>;

const toolToWire = ({
  name,
  description,
  parameters,
  strict,
}: NonNullable<ParsedResponse["asked"]["tools"]>[number]) => ({
  ...{ type: "function" as const, name, description: description ?? null },
  ...{ parameters: parameters ?? null, strict: strict ?? null },
});

const usageToWire = ({ promptTokens, cachedTokens, completionTokens, reasoningTokens, billed }: ToldUsage) => ({
  input_tokens: promptTokens,
  input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
  output_tokens: completionTokens,
  output_tokens_details: { reasoning_tokens: reasoningTokens ?? 0 },
  total_tokens: promptTokens + completionTokens,
  ...(billed ? { billed: { input_tokens: billed.promptTokens, output_tokens: billed.completionTokens } } : {}),
});
