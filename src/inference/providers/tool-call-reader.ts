import type { ChatDelta } from "../provider";
import { JsonEnd } from "./json-end";
import { fieldsOf, malformed, positionOf, stringOf, textOf } from "./reply-shapes";

interface OpenCall {
  /** The sender's own marks of it. */
  key: number | undefined;
  id: string | undefined;
  name: string | undefined;
  /** What came before its name did. */
  held: string;
  said: string;
  /** Our number of it; undefined until its name is known. */
  index: number | undefined;
  readonly json: JsonEnd;
}

/** Calls of one choice. A model that opens more has lost its way. */
const MAX_CALLS = 512;

/**
 * Puts the tool calls of one choice together from pieces: by index, by id, or by their order where a server sends
 * neither. Pieces of several calls may come in any order.
 */
export class ToolCallReader {
  readonly #calls: OpenCall[] = [];
  readonly #ids = new Set<string>();
  #opened = 0;

  /** @param newId for calls that come without an id, or with another call's */
  constructor(
    readonly choice: number,
    readonly newId: () => string,
  ) {}

  get isCalling(): boolean {
    return this.#opened > 0;
  }

  /** @param isWhole the piece is a whole call by itself, as in replies that are not streamed */
  *read(value: unknown, isWhole: boolean): Generator<ChatDelta> {
    const part = fieldsOf(value);
    if (!part) throw malformed("a tool call that is no object");
    const call = fieldsOf(part.function) ?? part;
    const piece = {
      key: positionOf(part.index),
      id: stringOf(part.id),
      name: stringOf(call.name),
      text: textOf(call.arguments ?? call.parameters ?? call.input),
    };
    if (!isWhole && this.#calls.some((open) => isRepeated(open, piece))) return;
    const known = isWhole ? undefined : this.#known(piece);
    if (!known && piece.text === "" && !piece.name && !piece.id) return; // an empty piece that closes a call
    const open = known ?? this.#open(piece);
    open.name ??= piece.name;
    open.id ??= piece.id;
    open.json.push(piece.text);
    open.said += piece.text;
    yield* this.#told(open, piece.text);
  }

  #open({ key, id }: { readonly key: number | undefined; readonly id: string | undefined }): OpenCall {
    if (this.#calls.length >= MAX_CALLS) throw malformed("more tool calls than any model makes");
    const call = { key, id, name: undefined, held: "", said: "", index: undefined, json: new JsonEnd() };
    this.#calls.push(call);
    return call;
  }

  /** Id and name go out with the first delta only: some servers repeat them, some change them on the way. */
  *#told(call: OpenCall, text: string): Generator<ChatDelta> {
    const { choice } = this;
    if (call.index !== undefined) {
      if (text !== "") yield { type: "tool_call", choice, index: call.index, arguments: text };
      return;
    }
    call.held += text;
    if (call.name === undefined) return;
    call.index = this.#opened++;
    yield {
      type: "tool_call",
      choice,
      index: call.index,
      id: this.#ownId(call.id),
      name: call.name,
      arguments: call.held,
    };
    call.held = "";
  }

  #ownId(id: string | undefined): string {
    const own = id === undefined || this.#ids.has(id) ? this.newId() : id;
    this.#ids.add(own);
    return own;
  }

  /** The call that a piece goes on with; undefined where it opens another. */
  #known(piece: Piece): OpenCall | undefined {
    const { key, id, name } = piece;
    const sameId = id === undefined ? undefined : this.#calls.findLast((call) => call.id === id);
    if (key === undefined) {
      if (sameId && !isAnother(sameId, piece)) return sameId;
      const last = this.#calls.at(-1);
      if (name) return last && goesOn(last, piece) ? last : undefined;
      return id !== undefined && last?.json.isWhole ? undefined : last;
    }
    // Some servers give every call the index 0: then the id tells, or the name.
    if (sameId?.key === key && !isAnother(sameId, piece)) return sameId;
    const sameKey = this.#calls.findLast((call) => call.key === key);
    if (sameKey && !isAnother(sameKey, piece)) return sameKey;
    return name ? undefined : sameId;
  }

  /** What is missing at the end. @throws ProviderError `broken` for a call that nobody can make */
  *end(isCut: boolean): Generator<ChatDelta> {
    for (const call of this.#calls) {
      if (call.index === undefined) {
        if (call.held.trim() !== "" && !isCut) throw malformed("a tool call without a name");
      } else if (!call.json.hasBegun && !isCut) {
        // A function without arguments is called with none: clients parse this.
        yield { type: "tool_call", choice: this.choice, index: call.index, arguments: "{}" };
      }
    }
  }
}

interface Piece {
  readonly key: number | undefined;
  readonly id: string | undefined;
  readonly name: string | undefined;
  readonly text: string;
}

/** Whether a piece with the mark of `call` is nevertheless another call: only one with a name can open one. */
function isAnother(call: OpenCall, { id, name, text }: Piece): boolean {
  if (!name || call.name === undefined) return false;
  if (name !== call.name) return true;
  if (id === undefined || call.id === undefined || id === call.id) return call.json.isWhole && text !== "";
  // Ids that change on the way are known of servers; they change in the middle of the arguments.
  return !call.json.hasBegun || call.json.isWhole;
}

/** Whether a piece without any mark but a name goes on with `call`: servers repeat the name in every piece. */
const goesOn = (call: OpenCall, { id, name }: Piece): boolean =>
  call.name === undefined || (call.name === name && !call.json.isWhole && (id === undefined || call.json.hasBegun));

/** Some servers say a call again as a whole when it is complete. */
const isRepeated = (call: OpenCall, { id, name, text }: Piece): boolean =>
  id !== undefined && id === call.id && name === call.name && call.json.isWhole && text === call.said;
