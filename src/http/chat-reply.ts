import type { FinishReason } from "../inference/provider";
import type { Output, ToldUsage } from "../pipeline/model-call";
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
  refusal: string | null;
  reasoning: string | null;
  readonly toolCalls: { id: string; type: "function"; function: { name: string; arguments: string } }[];
  logprobs: unknown[];
  refusalLogprobs: unknown[];
  /** Undefined until the model has said how it ended. */
  finishReason: FinishReason | undefined;
}

/** The contract's usage object. */
export function usageToWire(usage: ToldUsage) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    // Left out where the provider does not tell: a zero would be a false number.
    ...(usage.reasoningTokens === undefined
      ? {}
      : { completion_tokens_details: { reasoning_tokens: usage.reasoningTokens } }),
    ...(usage.billed
      ? { billed: { prompt_tokens: usage.billed.promptTokens, completion_tokens: usage.billed.completionTokens } }
      : {}),
  };
}

/** Collects an output, delta by delta, into the contract's choices. */
export class ChatChoices {
  readonly #choices: readonly Choice[];

  constructor(count: number) {
    this.#choices = Array.from({ length: count }, () => ({
      ...{ content: null, refusal: null, reasoning: null, finishReason: undefined },
      ...{ toolCalls: [], logprobs: [], refusalLogprobs: [] },
    }));
  }

  push(delta: Output): void {
    if (!("choice" in delta)) return;
    const choice = this.#choices[delta.choice];
    if (!choice) throw new TypeError(`provider answered with choice ${delta.choice} of ${this.#choices.length}`);
    if (delta.type === "finish") choice.finishReason = delta.reason;
    else if (delta.type === "reasoning") choice.reasoning = (choice.reasoning ?? "") + delta.text;
    else if (delta.type === "refusal") {
      choice.refusal = (choice.refusal ?? "") + delta.text;
      if (Array.isArray(delta.logprobs)) choice.refusalLogprobs.push(...delta.logprobs);
    } else if (delta.type === "text") {
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
    return this.#choices.map(({ content, refusal, reasoning, toolCalls, finishReason, ...scores }, index) => {
      if (finishReason === undefined) throw new TypeError(`choice ${index} has no end`);
      const mayBeNull = toolCalls.length > 0 || refusal !== null;
      return {
        index,
        message: {
          role: "assistant" as const,
          content: mayBeNull ? content : (content ?? ""),
          refusal,
          ...(reasoning === null ? {} : { reasoning_content: reasoning }),
          ...(toolCalls.length > 0 ? { tool_calls: toolCalls } : {}),
        },
        logprobs: logprobsToWire(scores.logprobs, scores.refusalLogprobs),
        finish_reason: finishReason,
      };
    });
  }
}

function logprobsToWire(content: unknown, refusal: unknown) {
  const [ofContent, ofRefusal] = [content, refusal].map((list) =>
    Array.isArray(list) && list.length > 0 ? list : null,
  );
  return ofContent || ofRefusal ? { content: ofContent ?? null, refusal: ofRefusal ?? null } : null;
}

/** The contract's whole reply. */
export const completionToWire = (head: ChatReplyHead, choices: ChatChoices, usage: ToldUsage) => ({
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
    const logprobs = logprobsToWire(delta.logprobs, null);
    return { index, delta: { ...role, content: delta.text }, logprobs, finish_reason: null };
  }
  if (delta.type === "refusal") {
    const logprobs = logprobsToWire(null, delta.logprobs);
    return { index, delta: { ...role, refusal: delta.text }, logprobs, finish_reason: null };
  }
  if (delta.type === "reasoning")
    return { index, delta: { ...role, reasoning_content: delta.text }, logprobs: null, finish_reason: null };
  const named = delta.name === undefined ? {} : { name: delta.name };
  const opening = delta.name === undefined ? {} : { id: delta.id ?? newId("toolCall"), type: "function" as const };
  const call = { index: delta.index, ...opening, function: { ...named, arguments: delta.arguments } };
  return { index, delta: { ...role, tool_calls: [call] }, logprobs: null, finish_reason: null };
}
