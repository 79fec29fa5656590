import type { ChatDelta, FinishReason } from "../provider";
import { endingOf } from "./finish-reasons";
import { type Fields, fieldsOf, listOf, type Said, saidIn, textOf } from "./reply-shapes";
import { ThinkTags } from "./think-tags";
import { ToolCallReader } from "./tool-call-reader";

export interface ChoiceRules {
  /** The text begins with `<think>…</think>`, which is reasoning. */
  readonly hasThinkTags: boolean;
  /** No more than one call of a function was asked for, and the provider does not know how to be told. */
  readonly hasOneCall: boolean;
  /** Makes an id for a tool call. */
  readonly newCallId: () => string;
}

/** Reads one choice of a reply, whatever its server calls the parts of it. */
export class ChoiceReader {
  #said: FinishReason | undefined;
  #hasBegun = false;
  #isInDeltas = false;
  readonly #calls: ToolCallReader;
  readonly #tags: ThinkTags | undefined;

  constructor(
    readonly choice: number,
    readonly rules: ChoiceRules,
  ) {
    this.#calls = new ToolCallReader(choice, rules.newCallId);
    this.#tags = rules.hasThinkTags ? new ThinkTags() : undefined;
  }

  /** Whether the provider has answered with it at all. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }
  /** Whether the provider has said how it ended. */
  get hasEnded(): boolean {
    return this.#said !== undefined;
  }

  /** OpenAI's form. @throws ProviderError for a malformed one, or an ending that is no answer's */
  *read(choice: Fields): Generator<ChatDelta> {
    this.#hasBegun = true;
    const delta = fieldsOf(choice.delta);
    const message = fieldsOf(choice.message);
    if (delta) this.#isInDeltas = true;
    // A message behind deltas is the sum of them.
    const written = delta ?? (this.#isInDeltas ? undefined : message);
    if (written) yield* this.#written(written, fieldsOf(choice.logprobs), delta === undefined);
    else if (!this.#isInDeltas && choice.text !== undefined) yield* this.#text(textOf(choice.text), undefined);
    this.#end(choice.finish_reason);
  }

  /** Workers AI's classic form. */
  *readClassic({ response, tool_calls, finish_reason }: Fields): Generator<ChatDelta> {
    this.#hasBegun = true;
    yield* this.#text(textOf(response), undefined);
    for (const call of listOf(tool_calls, "tool_calls")) yield* this.#call(call, false);
    this.#end(finish_reason);
  }

  *#written(message: Fields, logprobs: Fields | undefined, isWhole: boolean): Generator<ChatDelta> {
    const said = saidIn(message.content);
    const refusal = said.refusal + textOf(message.refusal);
    yield* this.#reasoning(thoughtIn(message, said));
    // Some servers write a refusal into both fields.
    yield* this.#text(isWhole && said.text === refusal ? "" : said.text, logprobs?.content);
    const scores = Array.isArray(logprobs?.refusal) && logprobs.refusal.length > 0 ? logprobs.refusal : undefined;
    if (refusal !== "" || scores)
      yield { type: "refusal", choice: this.choice, text: refusal, ...(scores ? { logprobs: scores } : {}) };
    for (const call of listOf(message.tool_calls, "tool_calls")) yield* this.#call(call, isWhole);
    if (fieldsOf(message.function_call)) yield* this.#call(message.function_call, isWhole);
  }

  *#text(text: string, logprobs: unknown): Generator<ChatDelta> {
    const [thought, rest] = this.#tags ? this.#tags.push(text) : ["", text];
    yield* this.#reasoning(thought);
    const scored = Array.isArray(logprobs) && logprobs.length > 0 ? { logprobs } : {};
    if (rest !== "" || "logprobs" in scored) yield { type: "text", choice: this.choice, text: rest, ...scored };
  }

  *#reasoning(text: string): Generator<ChatDelta> {
    if (text !== "") yield { type: "reasoning", choice: this.choice, text };
  }

  *#call(call: unknown, isWhole: boolean): Generator<ChatDelta> {
    for (const delta of this.#calls.read(call, isWhole))
      if (!this.rules.hasOneCall || !("index" in delta) || delta.index === 0) yield delta;
  }

  #end(reason: unknown): void {
    const said = endingOf(reason);
    if (said) this.#said ??= said;
  }

  /** What was held back, once everything has come. @param derived how it ended where nothing was said of it */
  *close(derived: FinishReason): Generator<ChatDelta> {
    if (this.#tags) {
      const [thought, rest] = this.#tags.end();
      yield* this.#reasoning(thought);
      if (rest !== "") yield { type: "text", choice: this.choice, text: rest };
    }
    const reason = this.finish(derived);
    for (const delta of this.#calls.end(reason === "length" || reason === "content_filter"))
      if (!this.rules.hasOneCall || !("index" in delta) || delta.index === 0) yield delta;
  }

  /** Some servers say `stop` after tool calls, and classic models say nothing. */
  finish(derived: FinishReason): FinishReason {
    const said = this.#said ?? derived;
    return this.#calls.isCalling && (said === "stop" || this.#said === undefined) ? "tool_calls" : said;
  }
}

/** Newer servers send both names of the field with the same text, for old clients and new. */
function thoughtIn(message: Fields, said: Said): string {
  const names = ["reasoning_content", "reasoning", "thinking", "thought"];
  const field = names
    .map((name) => message[name])
    .find((value) => (typeof value === "string" ? value !== "" : value != null));
  if (typeof field === "string") return field + said.reasoning;
  const part = fieldsOf(field);
  return saidIn(part ? (part.content ?? part.text) : field).text + said.reasoning;
}
