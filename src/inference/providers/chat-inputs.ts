import type { Dialect } from "../dialect";
import { type ChatCall, type ChatMessage, type ContentPart, ProviderError } from "../provider";

/** Parameters that every provider takes under the contract's own names. */
export function parametersOf(call: ChatCall): Record<string, unknown> {
  return {
    max_tokens: call.maxOutputTokens,
    temperature: call.temperature,
    top_p: call.topP,
    top_k: call.topK,
    // Each choice has a seed of its own, whatever wave it runs in.
    seed: call.seed === undefined ? undefined : call.seed + (call.firstChoice ?? 0),
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
  readonly reasoning_content?: string;
}

type Wanted = Partial<Pick<Dialect, "systemMessages" | "hasAlternatingRoles" | "passesReasoningBack">>;

/**
 * The conversation as open models know it: `developer` is their `system`.
 * @throws ProviderError `bad_input` for images that the model cannot see
 */
export function plainMessages({ messages, model }: ChatCall, dialect: Wanted = {}): PlainMessage[] {
  const canSee = model.capabilities.includes("vision");
  const plain = messages.map(
    ({ role, content, reasoning, ...rest }): PlainMessage => ({
      role: role === "developer" ? "system" : role,
      content: plainContent(content, canSee),
      ...rest,
      ...(dialect.passesReasoningBack && reasoning !== undefined ? { reasoning_content: reasoning } : {}),
    }),
  );
  const placed = withSystem(plain, dialect.systemMessages ?? "as_written");
  return dialect.hasAlternatingRoles ? alternating(placed) : placed;
}

function plainContent(content: ChatMessage["content"], canSee: boolean): PlainMessage["content"] {
  if (content === null || typeof content === "string") return content;
  const hasImages = content.some((part) => part.type === "image_url");
  if (!hasImages) return content.map(writtenIn).reduce(inLines, "");
  if (!canSee) throw new ProviderError("bad_input", "the model takes no images");
  return content;
}

/** Two parts are two texts: the last word of one must not run into the first of the next. */
const inLines = (text: string, next: string) =>
  text === "" || next === "" || /\s$/.test(text) || /^\s/.test(next) ? text + next : `${text}\n${next}`;
const writtenIn = (part: ContentPart) =>
  part.type === "text" ? part.text : part.type === "refusal" ? part.refusal : "";

/** Templates of many models take one message of the system, at the beginning, or none. */
function withSystem(messages: readonly PlainMessage[], place: Dialect["systemMessages"]): PlainMessage[] {
  const texts = messages.filter(({ role }) => role === "system").map(({ content }) => content);
  if (place === "as_written" || texts.length === 0) return [...messages];
  const others = messages.filter(({ role }) => role !== "system");
  const text = texts.filter((content) => typeof content === "string" && content !== "").join("\n\n");
  if (place === "one_first") return [{ role: "system", content: text }, ...others];
  const at = others.findIndex(({ role }) => role === "user");
  const first = others[at];
  if (!first) return [{ role: "user", content: text }, ...others];
  return others.with(at, { ...first, content: joined(text, first.content) });
}

/** Messages of one role in a row are one. */
function alternating(messages: readonly PlainMessage[]): PlainMessage[] {
  const merged: PlainMessage[] = [];
  for (const message of messages) {
    const last = merged.at(-1);
    const isMore = last?.role === message.role && (message.role === "user" || message.role === "assistant");
    if (!last || !isMore || last.tool_calls) merged.push(message);
    else merged[merged.length - 1] = { ...last, ...message, content: joined(last.content, message.content) };
  }
  return merged;
}

type Content = PlainMessage["content"];
function joined(first: Content, second: Content): Content {
  if (!first) return second;
  if (!second) return first;
  if (typeof first === "string" && typeof second === "string") return `${first}\n\n${second}`;
  const partsOf = (content: string | readonly ContentPart[]) =>
    typeof content === "string" ? [{ type: "text" as const, text: content }] : content;
  return [...partsOf(first), ...partsOf(second)];
}
