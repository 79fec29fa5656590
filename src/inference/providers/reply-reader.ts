import { z } from "zod";
import { FIRST_ISSUE } from "../../first-issue";
import { type ChatCall, type ChatDelta, type FinishReason, ProviderError, type ProviderUsage } from "../provider";
import { readEvents } from "./sse";
import { reportedUsage, TokenCount } from "./token-count";

const Text = z.string().nullish();
const Anything = z.unknown().optional();

/** Both ways of writing a call: OpenAI's `function`, in pieces when streamed, and Workers AI's flat one. */
const ToolCallPart = z.object({
  index: z.int().nonnegative().nullish(),
  id: Text,
  function: z.object({ name: Text, arguments: Anything }).nullish(),
  name: Text,
  arguments: Anything,
});
const Message = z.object({
  content: Text,
  refusal: Text,
  reasoning_content: Anything,
  reasoning: Anything,
  tool_calls: z.array(ToolCallPart).nullish(),
});
const Choice = z.object({
  index: z.int().nonnegative().nullish(),
  delta: Message.nullish(),
  message: Message.nullish(),
  logprobs: z.object({ content: Anything }).nullish(),
  finish_reason: Text,
});

/** A whole reply or one chunk of a streamed one: OpenAI's `choices`, or the classic fields of Workers AI. */
const Piece = z.object({
  choices: z.array(Choice).nullish(),
  response: Anything,
  tool_calls: z.array(ToolCallPart).nullish(),
  finish_reason: Text,
  usage: Anything,
  error: Anything,
  errors: Anything,
});
type Piece = z.output<typeof Piece>;

export interface ReplyRules {
  /** True where a chunk that bears choices counts only itself in `usage` (newer models of Workers AI). */
  readonly usagePerChunk: boolean;
  /** True where a prompt of zero tokens stands for a count that was not made; else a provider's zero is zero. */
  readonly zeroPromptIsUncounted: boolean;
  /** What an error inside a reply means. */
  readonly failureOf: (error: unknown) => ProviderError;
}

/**
 * Reads a model's reply, whole or in chunks, into deltas. Ends are told last: only then is everything known that a
 * missing finish reason is derived from.
 */
export class ReplyReader {
  readonly #choices: readonly ChoiceReader[];
  #usage: ProviderUsage | undefined;
  #rejected: unknown;
  /** Workers AI closes with totals that belong to no choice. */
  #hasTotals = false;

  constructor(
    readonly call: Pick<ChatCall, "choices" | "maxOutputTokens">,
    readonly rules: ReplyRules,
  ) {
    this.#choices = Array.from({ length: call.choices }, (_, choice) => new ChoiceReader(choice));
  }

  /** Whether the model has told how every choice ended, or has summed the call up. */
  get isComplete(): boolean {
    return this.#hasTotals || this.#choices.every((choice) => choice.said !== undefined);
  }

  /** @throws ProviderError `broken` when the piece is malformed, or what an error in it means */
  *read(piece: unknown): Generator<ChatDelta> {
    const parsed = Piece.safeParse(piece, FIRST_ISSUE);
    if (!parsed.success) throw malformed(`the field ${parsed.error.issues[0]?.path.join(".")}`);
    const { choices, error, errors, usage } = parsed.data;
    if (error !== undefined && error !== null) throw this.rules.failureOf(error);
    if (Array.isArray(errors) && errors.length > 0) throw this.rules.failureOf(errors[0]);
    if (choices) for (const choice of choices) yield* this.#readChoice(choice);
    else yield* this.#readClassic(parsed.data);
    const isTotal = !this.rules.usagePerChunk || !choices?.some((choice) => choice.delta);
    if (isTotal) this.#readUsage(usage);
    if (!choices && this.#usage) this.#hasTotals = true;
  }

  /** What is missing leaves what was told before; what cannot be true is kept, to be told. */
  #readUsage(usage: unknown): void {
    if (usage === undefined || usage === null) return;
    const { data } = ChatUsage.safeParse(usage);
    if (!data) this.#rejected = usage;
    else if (data.prompt_tokens > 0 || !this.rules.zeroPromptIsUncounted) this.#usage = usageOf(data);
  }

  *#readChoice({ index, delta, message, logprobs, finish_reason }: z.output<typeof Choice>): Generator<ChatDelta> {
    const choice = this.#choices[index ?? 0];
    if (!choice) throw malformed(`choice ${index} of ${this.#choices.length}`);
    const written = delta ?? message;
    if (written) {
      yield* choice.text(written.content ?? written.refusal ?? "", logprobs?.content);
      // Thinking is the model's work and counts as its output, but is nobody's to read: a delta without text lets
      // the tap count it while it streams.
      if (delta && [delta.reasoning_content, delta.reasoning].some(isText)) yield choice.silentWork();
      for (const part of written.tool_calls ?? []) yield* choice.toolCall(part);
    }
    if (finish_reason) choice.finish(finish_reason);
  }

  *#readClassic({ response, tool_calls, finish_reason }: Piece): Generator<ChatDelta> {
    const choice = this.#choices[0] as ChoiceReader; // classic calls have one choice
    yield* choice.text(textOf(response), undefined);
    for (const part of tool_calls ?? []) yield* choice.toolCall(part);
    if (finish_reason) choice.finish(finish_reason);
  }

  /** One finish for each choice, then the usage if there was any. */
  *end(): Generator<ChatDelta> {
    const isFull = this.#choices.length === 1 && (this.#usage?.completionTokens ?? 0) >= this.call.maxOutputTokens;
    for (const choice of this.#choices) yield choice.end(isFull ? "length" : "stop");
    if (this.#usage) yield { type: "usage", ...this.#usage };
    else if (this.#rejected !== undefined) yield { type: "usage_rejected", reported: reportedUsage(this.#rejected) };
  }
}

/** Of one choice: each piece is looked for among them. */
const MAX_TOOL_CALLS = 1_024;

class ChoiceReader {
  said: FinishReason | undefined;
  /** The sender's index of each tool call, in order of appearance: ours is the position here. */
  readonly #calls: { readonly key: number | undefined; readonly id: string | undefined }[] = [];

  constructor(readonly choice: number) {}

  *text(text: string, logprobs: unknown): Generator<ChatDelta> {
    const scored = Array.isArray(logprobs) && logprobs.length > 0 ? { logprobs } : {};
    if (text !== "" || "logprobs" in scored) yield { type: "text", choice: this.choice, text, ...scored };
  }

  silentWork(): ChatDelta {
    return { type: "text", choice: this.choice, text: "" };
  }

  /** Id and name go out with the first piece only: some servers repeat them, some change them on the way. */
  *toolCall({ index, id, ...part }: z.output<typeof ToolCallPart>): Generator<ChatDelta> {
    const { name, arguments: given } = part.function ?? part;
    const text = textOf(given);
    const known = this.#known(index ?? undefined, id ?? undefined, name);
    if (known !== -1) {
      if (text !== "") yield { type: "tool_call", choice: this.choice, index: known, arguments: text };
      return;
    }
    if (!name) {
      if (text === "") return; // an empty piece that closes a call
      throw malformed("a tool call without a name");
    }
    if (this.#calls.length >= MAX_TOOL_CALLS) throw malformed(`more than ${MAX_TOOL_CALLS} tool calls`);
    this.#calls.push({ key: index ?? undefined, id: id ?? undefined });
    const opening = { name, arguments: text, ...(id ? { id } : {}) };
    yield { type: "tool_call", choice: this.choice, index: this.#calls.length - 1, ...opening };
  }

  #known(key: number | undefined, id: string | undefined, name: string | null | undefined): number {
    if (key !== undefined) return this.#calls.findIndex((call) => call.key === key);
    if (id !== undefined) return this.#calls.findIndex((call) => call.id === id);
    return name ? -1 : this.#calls.length - 1; // without index and id, a name opens a call and the rest goes on
  }

  finish(reason: string): void {
    this.said ??= finishReason(reason);
  }

  end(derived: FinishReason): ChatDelta {
    const said = this.said ?? derived;
    // Some servers say `stop` after tool calls, and classic models say nothing.
    const isCalling = this.#calls.length > 0 && (said === "stop" || this.said === undefined);
    return { type: "finish", choice: this.choice, reason: isCalling ? "tool_calls" : said };
  }
}

function finishReason(reason: string): FinishReason {
  switch (reason) {
    case "length":
    case "max_tokens":
      return "length";
    case "tool_calls":
    case "function_call":
      return "tool_calls";
    case "content_filter":
      return "content_filter";
    case "error":
      throw new ProviderError("broken", "the model says that it failed");
    default:
      return "stop";
  }
}

/** JSON mode answers with a value, and streams of classic models know tokens that look like numbers. */
const textOf = (value: unknown): string =>
  typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value);
const isText = (value: unknown) => typeof value === "string" && value !== "";

const malformed = (what: string) => new ProviderError("broken", `the reply is malformed: ${what}`);

const ChatUsage = z.object({
  prompt_tokens: TokenCount,
  completion_tokens: TokenCount,
  prompt_tokens_details: z.object({ cached_tokens: TokenCount.nullish() }).nullish(),
});

function usageOf(data: z.output<typeof ChatUsage>): ProviderUsage {
  const { prompt_tokens: promptTokens, completion_tokens: completionTokens, prompt_tokens_details: details } = data;
  return { promptTokens, completionTokens, cachedTokens: Math.min(details?.cached_tokens ?? 0, promptTokens) };
}

/** Events that a reply may have beside one for each token: openings, endings, usage, heartbeats. */
const SPARE_EVENTS = 1_024;

/** A streamed reply. @throws ProviderError `broken` when it breaks off, is malformed, or goes on without an end */
export async function* streamedReply(bytes: AsyncIterable<Uint8Array>, reply: ReplyReader): AsyncGenerator<ChatDelta> {
  const { choices, maxOutputTokens } = reply.call;
  let eventsLeft = SPARE_EVENTS + 2 * choices * maxOutputTokens;
  let isDone = false;
  for await (const { type, data } of readEvents(bytes)) {
    isDone = data === "[DONE]";
    if (isDone) break;
    if (data === "") continue;
    if (eventsLeft-- === 0) throw new ProviderError("broken", "the stream goes on without an end");
    const piece = parsedJson(data);
    if (type === "error") throw reply.rules.failureOf(piece);
    yield* reply.read(piece);
  }
  if (!isDone && !reply.isComplete) throw new ProviderError("broken", "the stream ended before the reply did");
  yield* reply.end();
}

/** @throws ProviderError `broken` */
export function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw malformed("no JSON"); // the parser's own message quotes the text
  }
}
