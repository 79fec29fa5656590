import { type ChatCall, type ChatDelta, ProviderError } from "../provider";
import { ChoiceReader, type ChoiceRules } from "./choice-reader";
import { type Fields, fieldsOf, listOf, malformed, positionOf } from "./reply-shapes";
import { readEvents, type ServerEvent } from "./sse";
import { UsageReader } from "./usage-reader";

export interface ReplyRules extends Partial<ChoiceRules> {
  /** True where a chunk that bears choices counts only itself in `usage` (newer models of Workers AI). */
  readonly usagePerChunk: boolean;
  /** True where a prompt of zero tokens stands for a count that was not made; else a provider's zero is zero. */
  readonly zeroPromptIsUncounted: boolean;
  /** What an error inside a reply means. */
  readonly failureOf: (error: unknown) => ProviderError;
}

/**
 * Reads a model's reply, whole or in chunks: OpenAI's `choices`, or the classic fields of Workers AI. Tolerant in what
 * it takes, exact in the deltas that it gives. Ends are told last: only then is everything known that a missing finish
 * reason is derived from.
 */
export class ReplyReader {
  readonly #choices: readonly ChoiceReader[];
  readonly #usage: UsageReader;
  /** Workers AI closes with totals that belong to no choice. */
  #hasTotals = false;

  constructor(
    readonly call: Pick<ChatCall, "choices" | "maxOutputTokens">,
    readonly rules: ReplyRules,
  ) {
    const { hasThinkTags = false, hasOneCall = false, newCallId = randomCallId } = rules;
    const own = { hasThinkTags, hasOneCall, newCallId };
    this.#choices = Array.from({ length: call.choices }, (_, choice) => new ChoiceReader(choice, own));
    this.#usage = new UsageReader(rules.zeroPromptIsUncounted);
  }

  /** Whether the model has told how every choice ended that it began, or has summed the call up. */
  get isComplete(): boolean {
    const begun = this.#begun;
    return this.#hasTotals || (begun.length > 0 && begun.every((choice) => choice.hasEnded));
  }

  /** Choices that were asked for, and that the provider never began: it takes no `n`, or not so many. */
  get missing(): readonly number[] {
    return this.#choices.filter((choice) => !choice.hasBegun).map(({ choice }) => choice);
  }

  get hasUsage(): boolean {
    return this.#usage.usage !== undefined;
  }

  get #begun(): readonly ChoiceReader[] {
    return this.#choices.filter((choice) => choice.hasBegun);
  }

  /** @throws ProviderError `broken` when the piece is malformed, or what an error in it means */
  *read(piece: unknown): Generator<ChatDelta> {
    const fields = fieldsOf(piece);
    if (!fields) throw malformed("no object");
    const error = errorIn(fields);
    if (error !== undefined) throw this.rules.failureOf(error);
    const isChat = fields.choices !== undefined && fields.choices !== null;
    const choices = listOf(fields.choices, "choices").map((choice) => fieldsOf(choice) ?? {});
    const positions = positionsOf(choices);
    for (const [at, choice] of choices.entries()) yield* this.#choiceAt(positions[at] ?? 0).read(choice);
    if (!isChat && ["response", "tool_calls", "finish_reason"].some((name) => name in fields))
      yield* (this.#choices[0] as ChoiceReader).readClassic(fields); // classic calls have one choice
    this.#readUsage(fields, choices);
    if (!isChat && this.rules.usagePerChunk && this.#usage.usage) this.#hasTotals = true;
  }

  /** Of a piece that came after the end, only the usage counts. */
  readLate(piece: unknown): void {
    const fields = fieldsOf(piece) ?? {};
    this.#readUsage(
      fields,
      listOf(fields.choices, "choices").map((choice) => fieldsOf(choice) ?? {}),
    );
  }

  #readUsage(piece: Fields, choices: readonly Fields[]): void {
    if (this.rules.usagePerChunk && choices.some(({ delta }) => delta)) return;
    this.#usage.read(piece.usage ?? fieldsOf(piece.x_groq)?.usage ?? choices.find((choice) => choice.usage)?.usage);
  }

  #choiceAt(position: number): ChoiceReader {
    const choice = this.#choices[position];
    if (!choice) throw malformed(`choice ${position} of ${this.#choices.length}`);
    return choice;
  }

  /** What was held back, one finish for each choice, then the usage if there was any. @throws ProviderError `broken` */
  *end(): Generator<ChatDelta> {
    if (this.#begun.length === 0 && !this.#hasTotals) throw new ProviderError("broken", "the reply says nothing");
    const completed = this.#usage.usage?.completionTokens ?? 0;
    const derived = this.#choices.length === 1 && completed >= this.call.maxOutputTokens ? "length" : "stop";
    const choices = this.#hasTotals && this.#begun.length === 0 ? this.#choices : this.#begun;
    for (const choice of choices) yield* choice.close(derived);
    for (const choice of choices) yield { type: "finish", choice: choice.choice, reason: choice.finish(derived) };
    yield* this.#usage.told();
  }
}

/** By their index; by their order where indexes are missing, or one comes twice. */
function positionsOf(choices: readonly Fields[]): readonly number[] {
  const told = choices.map(({ index }) => positionOf(index));
  const isClear = told.every((index) => index !== undefined) && new Set(told).size === told.length;
  return isClear ? (told as number[]) : choices.length === 1 ? [told[0] ?? 0] : choices.map((_, at) => at);
}

function errorIn(piece: Fields): unknown {
  const { error, errors, object, type } = piece;
  if (error !== undefined && error !== null && error !== "" && error !== false) return error;
  if (Array.isArray(errors) && errors.length > 0) return errors[0];
  return object === "error" || type === "error" ? piece : undefined;
}

/** As OpenAI's: `call_` and 24 characters that nobody guesses. */
const randomCallId = () => `call_${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`;

/** Events that a reply may have beside those of its tokens: openings, endings, usage, heartbeats. */
const SPARE_EVENTS = 1_024;
/** Some servers send every character by itself, and a token may be a long word. */
const EVENTS_PER_TOKEN = 32;

/** A streamed reply without its end. @throws ProviderError `broken` when it breaks off, is malformed, or has no end */
export async function* streamedDeltas(bytes: AsyncIterable<Uint8Array>, reply: ReplyReader): AsyncGenerator<ChatDelta> {
  const { choices, maxOutputTokens } = reply.call;
  let eventsLeft = SPARE_EVENTS + EVENTS_PER_TOKEN * choices * maxOutputTokens;
  const events = readEvents(bytes);
  try {
    for (let step = await events.next(); !step.done; step = await events.next()) {
      const { type, data } = step.value;
      if (data.trim().toUpperCase() === "[DONE]") return await readLateUsage(events, reply);
      if (data.trim() === "" || HEARTBEAT.test(type)) continue;
      if (eventsLeft-- === 0) throw new ProviderError("broken", "the stream goes on without an end");
      const piece = parsedJson(data);
      if (type === "error") throw reply.rules.failureOf(fieldsOf(piece)?.error ?? piece);
      yield* reply.read(piece);
    }
  } finally {
    void events.return(undefined).catch(() => {}); // not awaited: a step may be under way in a stream that stays open
  }
  if (!reply.isComplete) throw new ProviderError("broken", "the stream ended before the reply did");
}

/** Milliseconds that a reply which has ended waits for its usage: some servers tell it after `[DONE]`, or never. */
const LATE_USAGE_MS = 500;

async function readLateUsage(events: AsyncGenerator<ServerEvent>, reply: ReplyReader): Promise<void> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), LATE_USAGE_MS);
  try {
    for (let left = SPARE_EVENTS; left > 0 && !reply.hasUsage; left--) {
      const step = await Promise.race([events.next(), late.promise]);
      if (!step || step.done) return;
      readQuietly(step.value.data, reply);
    }
  } catch {
    // The reply is whole already: a connection that breaks behind its end harms nobody.
  } finally {
    clearTimeout(timer);
  }
}

function readQuietly(data: string, reply: ReplyReader): void {
  try {
    reply.readLate(parsedJson(data));
  } catch {
    // Behind the end anything may come: blanks, a second end, a proxy's words.
  }
}
const HEARTBEAT = /^(ping|heartbeat|keep-?alive)$/i;

/** A streamed reply. @throws ProviderError as {@link streamedDeltas} */
export async function* streamedReply(bytes: AsyncIterable<Uint8Array>, reply: ReplyReader): AsyncGenerator<ChatDelta> {
  yield* streamedDeltas(bytes, reply);
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
