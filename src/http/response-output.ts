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
interface MessageItem {
  readonly type: "message";
  readonly id: string;
  readonly role: "assistant";
  readonly status: ItemStatus;
  readonly content: readonly TextPart[];
}
interface FunctionCallItem {
  readonly type: "function_call";
  readonly id: string;
  readonly call_id: string;
  readonly name: string;
  readonly arguments: string;
  readonly status: ItemStatus;
}
export type OutputItem = MessageItem | FunctionCallItem;

/** An event of the contract's stream, before it has its number. */
export interface ResponseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

interface OpenMessage {
  readonly type: "message";
  readonly id: string;
  text: string;
  logprobs: unknown[];
}
interface OpenCall {
  readonly type: "function_call";
  readonly id: string;
  readonly callId: string;
  readonly name: string;
  /** The provider's number of the call. */
  readonly number: number;
  arguments: string;
}

/**
 * Makes output items of what a model says, and the events that tell of them: each item is opened, filled and closed
 * before the next one.
 */
export class ResponseOutput {
  readonly #itemId: (type: OutputItem["type"], index: number) => string;
  readonly #closed: OutputItem[] = [];
  #open: OpenMessage | OpenCall | undefined;
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
    else if (delta.type === "text" && delta.text !== "") yield* this.#text(delta.text, delta.logprobs);
    else if (delta.type === "tool_call") yield* this.#call(delta);
  }

  /** Closes what is open. A model that said nothing said an empty text. */
  *end(): Generator<ResponseEvent> {
    if (!this.#open && this.#closed.length === 0) yield* this.#openMessage();
    yield* this.#close(this.finish === "length" || this.finish === "content_filter" ? "incomplete" : "completed");
  }

  *#text(text: string, logprobs: unknown): Generator<ResponseEvent> {
    if (this.#open?.type !== "message") {
      yield* this.#close("completed");
      yield* this.#openMessage();
    }
    const message = this.#open as OpenMessage;
    const own = Array.isArray(logprobs) ? logprobs : [];
    message.text += text;
    message.logprobs.push(...own);
    const place = { item_id: message.id, output_index: this.#closed.length, content_index: 0 };
    yield { type: "response.output_text.delta", ...place, delta: text, logprobs: own };
  }

  *#call(delta: Extract<Output, { type: "tool_call" }>): Generator<ResponseEvent> {
    if (this.#open?.type !== "function_call" || this.#open.number !== delta.index) {
      yield* this.#close("completed");
      const id = this.#itemId("function_call", this.#closed.length);
      const callId = delta.id ?? newId("toolCall");
      this.#open = { type: "function_call", id, callId, name: delta.name ?? "", number: delta.index, arguments: "" };
      const item = itemOf(this.#open, "in_progress");
      yield { type: "response.output_item.added", output_index: this.#closed.length, item };
    }
    if (delta.arguments === "") return;
    this.#open.arguments += delta.arguments;
    const place = { item_id: this.#open.id, output_index: this.#closed.length };
    yield { type: "response.function_call_arguments.delta", ...place, delta: delta.arguments };
  }

  *#openMessage(): Generator<ResponseEvent> {
    const id = this.#itemId("message", this.#closed.length);
    this.#open = { type: "message", id, text: "", logprobs: [] };
    const output_index = this.#closed.length;
    const item: OutputItem = { type: "message", id, role: "assistant", status: "in_progress", content: [] };
    yield { type: "response.output_item.added", output_index, item };
    const part: TextPart = { type: "output_text", text: "", annotations: [], logprobs: [] };
    yield { type: "response.content_part.added", item_id: id, output_index, content_index: 0, part };
  }

  *#close(status: "completed" | "incomplete"): Generator<ResponseEvent> {
    const open = this.#open;
    if (!open) return;
    this.#open = undefined;
    const item = itemOf(open, status);
    const place = { item_id: open.id, output_index: this.#closed.length };
    if (item.type === "message") {
      const [part] = item.content;
      const at = { ...place, content_index: 0 };
      yield { type: "response.output_text.done", ...at, text: part?.text ?? "", logprobs: part?.logprobs ?? [] };
      yield { type: "response.content_part.done", ...at, part };
    } else {
      const { name, arguments: given } = item;
      yield { type: "response.function_call_arguments.done", ...place, name, arguments: given };
    }
    yield { type: "response.output_item.done", output_index: place.output_index, item };
    this.#closed.push(item);
  }
}

function itemOf(open: OpenMessage | OpenCall, status: ItemStatus): OutputItem {
  const { id } = open;
  if (open.type === "function_call") {
    const { callId: call_id, name, arguments: given } = open;
    return { type: "function_call", id, call_id, name, arguments: given, status };
  }
  const part: TextPart = { type: "output_text", text: open.text, annotations: [], logprobs: open.logprobs };
  return { type: "message", id, role: "assistant", status, content: [part] };
}
