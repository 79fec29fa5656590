import type { Verdict } from "../guard/moderation";
import type { ChatModel, EmbeddingModel, ModerationModel } from "./catalogue";

/** One door for all model providers: a call in our words, a stream of deltas out, errors of one kind. */
export interface Provider {
  /**
   * Runs one chat call. Deltas come as the model makes them; with `call.stream` false a provider may deliver
   * everything at once. Exactly one `finish` per choice; at most one `usage`, after the last `finish`.
   * @param signal aborts the model's work; the iterable then ends by throwing
   * @throws ProviderError before the first delta, or while iterating
   */
  chat(call: ChatCall, signal: AbortSignal): Promise<AsyncIterable<ChatDelta>>;
  /** How likely each label is, in the order of the labels; for models that have a `classifier`. @throws ProviderError */
  classify?(call: ClassificationCall, signal: AbortSignal): Promise<readonly number[]>;
  /** Judges texts, each by itself; for models of moderation. @throws ProviderError */
  moderate?(call: ModerationCall, signal: AbortSignal): Promise<ModerationResult>;
  /** @returns one vector per input, in order; @throws ProviderError */
  embed(call: EmbeddingCall, signal: AbortSignal): Promise<EmbeddingResult>;
}

/** A message as the contract writes it, after validation. */
export interface ChatMessage {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool";
  readonly content: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: readonly ToolCall[];
  /** What the model thought before it said this; goes to a provider only where its dialect wants it back. */
  readonly reasoning?: string;
}
export type ContentPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "refusal"; readonly refusal: string }
  | { readonly type: "image_url"; readonly image_url: { readonly url: string; readonly detail?: string } };
export interface ToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}
export interface FunctionTool {
  readonly type: "function";
  readonly function: {
    readonly name: string;
    readonly description?: string;
    readonly parameters?: Readonly<Record<string, unknown>>;
    readonly strict?: boolean | null;
  };
}
export type ToolChoice =
  | "none"
  | "auto"
  | "required"
  | { readonly type: "function"; readonly function: { readonly name: string } };
export type ResponseFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
      readonly type: "json_schema";
      readonly json_schema: {
        readonly name: string;
        readonly description?: string;
        readonly schema?: Readonly<Record<string, unknown>>;
        readonly strict?: boolean | null;
      };
    };

export interface ChatCall {
  readonly model: ChatModel;
  readonly messages: readonly ChatMessage[];
  /** Per choice; always set, because the reservation was made for it. */
  readonly maxOutputTokens: number;
  /** The caller named no cap: where prompt and cap together exceed the model's context, a smaller one may be sent. */
  readonly isCapDefault?: boolean;
  readonly choices: number;
  /** Number of the first of them, where a call's choices run in several waves: each has a seed of its own. */
  readonly firstChoice?: number;
  readonly stream: boolean;
  /** Calls with the same one may share what was computed of their prompts' common beginning. */
  readonly affinity?: string;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly frequencyPenalty?: number;
  readonly presencePenalty?: number;
  readonly repetitionPenalty?: number;
  readonly logitBias?: Readonly<Record<string, number>>;
  readonly logprobs?: boolean;
  readonly topLogprobs?: number;
  readonly reasoningEffort?: string;
  readonly responseFormat?: ResponseFormat;
  readonly tools?: readonly FunctionTool[];
  readonly toolChoice?: ToolChoice;
  readonly parallelToolCalls?: boolean;
}

export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

export type ChatDelta =
  | { readonly type: "text"; readonly choice: number; readonly text: string; readonly logprobs?: unknown }
  /** The model declines, in its own words. */
  | { readonly type: "refusal"; readonly choice: number; readonly text: string; readonly logprobs?: unknown }
  /** What the model thinks before it answers; counts as its output. */
  | { readonly type: "reasoning"; readonly choice: number; readonly text: string }
  | {
      readonly type: "tool_call";
      readonly choice: number;
      /** Position among the choice's tool calls; id and name come with its first delta, and only there. */
      readonly index: number;
      /** Unique within the choice. */
      readonly id?: string;
      readonly name?: string;
      readonly arguments: string;
    }
  | { readonly type: "finish"; readonly choice: number; readonly reason: FinishReason }
  | ({ readonly type: "usage" } & ProviderUsage)
  /** The provider reported a usage that cannot be true: negative, broken, or beyond any model. */
  | { readonly type: "usage_rejected"; readonly reported: string };

export interface ProviderUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  /** Part of the completion's tokens; undefined where the provider does not tell. */
  readonly reasoningTokens?: number;
}

/** Of runs that all had the same prompt: it counts once. */
export function usageOfOnePrompt(usages: readonly ProviderUsage[]): ProviderUsage {
  const promptTokens = Math.max(...usages.map((usage) => usage.promptTokens));
  return {
    promptTokens,
    cachedTokens: Math.max(...usages.map((usage) => usage.cachedTokens)),
    completionTokens: usages.reduce((sum, usage) => sum + usage.completionTokens, 0),
    ...(usages.some(({ reasoningTokens }) => reasoningTokens !== undefined)
      ? { reasoningTokens: usages.reduce((sum, usage) => sum + (usage.reasoningTokens ?? 0), 0) }
      : {}),
  };
}

export interface ClassificationCall {
  readonly model: ChatModel;
  readonly text: string;
  readonly labels: readonly string[];
  /** In place of the system's message. */
  readonly instruction?: string;
}

export interface ModerationCall {
  readonly model: ModerationModel;
  readonly inputs: readonly string[];
}
export interface ModerationResult {
  readonly verdicts: readonly Verdict[];
  /** Null where the provider reports none. */
  readonly promptTokens: number | null;
}

export interface EmbeddingCall {
  readonly model: EmbeddingModel;
  readonly inputs: readonly string[];
  /** Length of the vectors that the caller wants; undefined leaves it to the model. */
  readonly dimensions?: number;
}
export interface EmbeddingResult {
  readonly vectors: readonly (readonly number[])[];
  /** Null where the provider reports none. */
  readonly promptTokens: number | null;
  /** What it reported instead, where that cannot be true. */
  readonly usageRejected?: string;
}

export type ProviderFailure =
  | "bad_input" // the provider refused this request: the caller's to mend
  | "context_length"
  | "capacity" // no room now, try again
  | "quota" // the platform's own quota at the provider
  | "unknown_model" // our catalogue names something the provider does not have
  | "unauthorized" // our credentials
  | "timeout"
  | "aborted" // by our own signal
  | "broken"; // anything else: connection lost, malformed reply, 5xx

/** The one error that leaves a provider. Its message is for the log; callers are shown text of our own. */
export class ProviderError extends Error {
  constructor(
    readonly failure: ProviderFailure,
    message: string,
    readonly detail: {
      readonly providerCode?: string;
      readonly retryAfterMs?: number;
      /** Of `bad_input`: the parameter that the provider refuses, by the contract's name. */
      readonly param?: string;
      /** It is the schema in that parameter that the model cannot keep. */
      readonly isSchema?: boolean;
    } = {},
  ) {
    super(message);
    this.name = "ProviderError";
  }
}
