import type { FinishReason } from "../inference/provider";
import type { CallUsage, Output } from "../pipeline/model-call";
import { newId } from "../tenancy/ids";

/** What every chunk or reply of one chat call carries. */
export interface ChatReplyHead {
  readonly id: string;
  readonly created: number;
  /** Public name of the model that answered. */
  readonly model: string;
  readonly service_tier: string;
}

interface Choice {
  content: string | null;
  readonly toolCalls: { id: string; type: "function"; function: { name: string; arguments: string } }[];
  logprobs: unknown[];
  finishReason: FinishReason;
}

/** The contract's usage object. */
export function usageToWire(usage: CallUsage) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
  };
}

/** Collects an output, delta by delta, into the contract's choices. */
export class ChatChoices {
  readonly #choices: readonly Choice[];

  constructor(count: number) {
    const empty = (): Choice => ({ content: null, toolCalls: [], logprobs: [], finishReason: "stop" });
    this.#choices = Array.from({ length: count }, empty);
  }

  push(delta: Output): void {
    if (!("choice" in delta)) return;
    const choice = this.#choices[delta.choice];
    if (!choice) throw new TypeError(`provider answered with choice ${delta.choice} of ${this.#choices.length}`);
    if (delta.type === "finish") choice.finishReason = delta.reason;
    else if (delta.type === "text") {
      choice.content = (choice.content ?? "") + delta.text;
      if (Array.isArray(delta.logprobs)) choice.logprobs.push(...delta.logprobs);
    } else {
      const known = choice.toolCalls[delta.index];
      if (known) known.function.arguments += delta.arguments;
      else {
        const named = { name: delta.name ?? "", arguments: delta.arguments };
        choice.toolCalls[delta.index] = { id: delta.id ?? newId("toolCall"), type: "function", function: named };
      }
    }
  }

  toWire() {
    return this.#choices.map((choice, index) => ({
      index,
      message: {
        role: "assistant" as const,
        content: choice.toolCalls.length > 0 ? choice.content : (choice.content ?? ""),
        refusal: null,
        ...(choice.toolCalls.length > 0 ? { tool_calls: choice.toolCalls } : {}),
      },
      logprobs: choice.logprobs.length > 0 ? { content: choice.logprobs, refusal: null } : null,
      finish_reason: choice.finishReason,
    }));
  }
}

/** The contract's whole reply. */
export const completionToWire = (head: ChatReplyHead, choices: ChatChoices, usage: CallUsage) => ({
  ...head,
  object: "chat.completion" as const,
  choices: choices.toWire(),
  usage: usageToWire(usage),
});
export type WireCompletion = ReturnType<typeof completionToWire>;

/** One delta as the choice of a chunk; undefined for what has no chunk of its own. */
export function choiceToChunk(delta: Output, isFirstOfChoice: boolean) {
  if (!("choice" in delta)) return undefined;
  const role = isFirstOfChoice ? { role: "assistant" as const } : {};
  const index = delta.choice;
  if (delta.type === "finish") return { index, delta: { ...role }, logprobs: null, finish_reason: delta.reason };
  if (delta.type === "text") {
    const logprobs = Array.isArray(delta.logprobs) ? { content: delta.logprobs, refusal: null } : null;
    return { index, delta: { ...role, content: delta.text }, logprobs, finish_reason: null };
  }
  const named = delta.name === undefined ? {} : { name: delta.name };
  const opening = delta.name === undefined ? {} : { id: delta.id ?? newId("toolCall"), type: "function" as const };
  const call = { index: delta.index, ...opening, function: { ...named, arguments: delta.arguments } };
  return { index, delta: { ...role, tool_calls: [call] }, logprobs: null, finish_reason: null };
}
