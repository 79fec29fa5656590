import type { FinishReason } from "../inference/provider";
import type { Output } from "../pipeline/model-call";
import { newId } from "../tenancy/ids";

type ItemStatus = "in_progress" | "completed" | "incomplete";

interface TextPart {
  readonly type: "output_text";
  readonly text: string;
  readonly annotations: readonly never[];
  readonly logprobs: readonly unknown[];
}
interface RefusalPart {
  readonly type: "refusal";
  readonly refusal: string;
}
interface ReasoningPart {
  readonly type: "reasoning_text";
  readonly text: string;
}
interface MessageItem {
  readonly type: "message";
  readonly id: string;
  readonly role: "assistant";
  readonly status: ItemStatus;
  readonly content: readonly (TextPart | RefusalPart)[];
}
interface ReasoningItem {
  readonly type: "reasoning";
  readonly id: string;
  readonly summary: readonly never[];
  readonly content: readonly ReasoningPart[];
  readonly status: ItemStatus;
}
interface FunctionCallItem {
  readonly type: "function_call";
  readonly id: string;
  readonly call_id: string;
  readonly name: string;
  readonly arguments: string;
  readonly status: ItemStatus;
}
export type OutputItem = MessageItem | ReasoningItem | FunctionCallItem;

/** An event of the contract's stream, before it has its number. */
export interface ResponseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

type PartType = (TextPart | RefusalPart | ReasoningPart)["type"];
interface OpenPart {
  readonly type: PartType;
  text: string;
  readonly logprobs: unknown[];
}
interface OpenContent {
  readonly type: "message" | "reasoning";
  readonly id: string;
  readonly index: number;
  readonly parts: OpenPart[];
}
interface OpenCall {
  readonly type: "function_call";
  readonly id: string;
  readonly index: number;
  readonly callId: string;
  readonly name: string;
  arguments: string;
}
type OpenItem = OpenContent | OpenCall;

/**
 * Makes output items of what a model says, and the events that tell of them: one item for its thoughts, one for its
 * message, one for each call, in the order in which they begin. Pieces of several items may come in any order, so that
 * all are closed at the end, when nothing more can come.
 */
export class ResponseOutput {
  readonly #itemId: (type: OutputItem["type"], index: number) => string;
  readonly #open: OpenItem[] = [];
  readonly #calls = new Map<number, OpenCall>();
  readonly #closed: OutputItem[] = [];
  /** What was written last is what a cap cut. */
  #last: OpenItem | undefined;
  /** How the model ended; undefined until it has. */
  finish: FinishReason | undefined;

  /** @param itemId names the item at an index, so that it can be found again */
  constructor(itemId: (type: OutputItem["type"], index: number) => string) {
    this.#itemId = itemId;
  }

  get items(): readonly OutputItem[] {
    return this.#closed;
  }

  *push(delta: Output): Generator<ResponseEvent> {
    if (delta.type === "finish") this.finish = delta.reason;
    else if (delta.type === "text") yield* this.#write("message", "output_text", delta.text, delta.logprobs);
    else if (delta.type === "refusal") yield* this.#write("message", "refusal", delta.text, undefined);
    else if (delta.type === "reasoning") yield* this.#write("reasoning", "reasoning_text", delta.text, undefined);
    else if (delta.type === "tool_call") yield* this.#call(delta);
  }

  /** Closes what is open. A model that answered nothing answered an empty text. */
  *end(): Generator<ResponseEvent> {
    if (!this.#open.some(({ type }) => type !== "reasoning")) yield* this.#part("message", "output_text");
    const isCut = this.finish === "length" || this.finish === "content_filter";
    for (const item of this.#open) yield* this.#close(item, isCut && item === this.#last ? "incomplete" : "completed");
  }

  *#write(itemType: OpenContent["type"], type: PartType, text: string, logprobs: unknown): Generator<ResponseEvent> {
    const scores = Array.isArray(logprobs) ? logprobs : [];
    if (text === "" && scores.length === 0) return;
    const { item, part, at } = yield* this.#part(itemType, type);
    part.text += text;
    part.logprobs.push(...scores);
    this.#last = item;
    const place = { item_id: item.id, output_index: item.index, content_index: at };
    const more = type === "output_text" ? { logprobs: scores } : {};
    yield { type: `response.${type}.delta`, ...place, delta: text, ...more };
  }

  /** The part of the item that the text belongs to, opened where it is not. */
  *#part(itemType: OpenContent["type"], type: PartType) {
    const known = this.#open.find((open): open is OpenContent => open.type === itemType);
    const item = known ?? this.#opened({ type: itemType, parts: [] as OpenPart[] });
    if (!known) yield* this.#added(item);
    const found = item.parts.findIndex((part) => part.type === type);
    if (found !== -1) return { item, part: item.parts[found] as OpenPart, at: found };
    const part: OpenPart = { type, text: "", logprobs: [] };
    const at = item.parts.push(part) - 1;
    const place = { item_id: item.id, output_index: item.index, content_index: at };
    this.#last = item;
    yield { type: "response.content_part.added", ...place, part: partOf(part) };
    return { item, part, at };
  }

  *#call(delta: Extract<Output, { type: "tool_call" }>): Generator<ResponseEvent> {
    let call = this.#calls.get(delta.index);
    if (!call) {
      const named = { callId: delta.id ?? newId("toolCall"), name: delta.name ?? "", arguments: "" };
      call = this.#opened({ type: "function_call", ...named });
      this.#calls.set(delta.index, call);
      yield* this.#added(call);
    }
    this.#last = call;
    if (delta.arguments === "") return;
    call.arguments += delta.arguments;
    const place = { item_id: call.id, output_index: call.index };
    yield { type: "response.function_call_arguments.delta", ...place, delta: delta.arguments };
  }

  #opened<T extends { readonly type: OutputItem["type"] }>(item: T): T & { id: string; index: number } {
    const index = this.#open.length;
    const open = { ...item, id: this.#itemId(item.type, index), index };
    this.#open.push(open as unknown as OpenItem);
    return open;
  }

  *#added(item: OpenItem): Generator<ResponseEvent> {
    yield { type: "response.output_item.added", output_index: item.index, item: itemOf(item, "in_progress") };
  }

  *#close(open: OpenItem, status: "completed" | "incomplete"): Generator<ResponseEvent> {
    const item = itemOf(open, status);
    const place = { item_id: open.id, output_index: open.index };
    if (open.type === "function_call") {
      const { name, arguments: given } = open;
      yield { type: "response.function_call_arguments.done", ...place, name, arguments: given };
    } else
      for (const [content_index, part] of open.parts.entries()) {
        const at = { ...place, content_index };
        const { type, text, logprobs } = part;
        const said = type === "refusal" ? { refusal: text } : type === "output_text" ? { text, logprobs } : { text };
        yield { type: `response.${type}.done`, ...at, ...said };
        yield { type: "response.content_part.done", ...at, part: partOf(part) };
      }
    yield { type: "response.output_item.done", output_index: open.index, item };
    this.#closed.push(item);
  }
}

function partOf({ type, text, logprobs }: OpenPart): TextPart | RefusalPart | ReasoningPart {
  if (type === "refusal") return { type, refusal: text };
  if (type === "reasoning_text") return { type, text };
  return { type, text, annotations: [], logprobs: [...logprobs] };
}

function itemOf(open: OpenItem, status: ItemStatus): OutputItem {
  const { id } = open;
  if (open.type === "function_call") {
    const { callId: call_id, name, arguments: given } = open;
    return { type: "function_call", id, call_id, name, arguments: given, status };
  }
  const parts = open.parts.map(partOf);
  if (open.type === "reasoning")
    return { type: "reasoning", id, summary: [], content: parts as readonly ReasoningPart[], status };
  return { type: "message", id, role: "assistant", status, content: parts as MessageItem["content"] };
}
