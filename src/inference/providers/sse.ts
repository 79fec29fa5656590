import { ProviderError } from "../provider";

export interface ServerEvent {
  /** `message` unless the sender named it otherwise. */
  readonly type: string;
  /** The data lines, joined by line feeds. */
  readonly data: string;
}

/** UTF-16 units. A single event above this is no token of a model any more. */
export const MAX_EVENT_CHARACTERS = 1_048_576;

/**
 * Reads server-sent events (HTML Living Standard, "Interpreting an event stream") from bytes cut anywhere: inside a
 * character, a line end, a field. One thing differs from the standard: an event that only the stream's end closes
 * counts, because servers forget the blank line after `[DONE]`.
 * @throws ProviderError `broken` when an event exceeds `maxCharacters`
 */
export async function* readEvents(
  bytes: AsyncIterable<Uint8Array>,
  maxCharacters = MAX_EVENT_CHARACTERS,
): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder(); // skips a byte order mark, mends what is no UTF-8
  const lines = new Lines();
  let type = "";
  let data: string[] = [];
  let size = 0;

  const closed = function* (): Generator<ServerEvent> {
    if (data.length > 0) yield { type: type === "" ? "message" : type, data: data.join("\n") };
    type = "";
    data = [];
    size = 0;
  };
  const taken = function* (text: string, isLast: boolean): Generator<ServerEvent> {
    for (const line of lines.push(text, isLast)) {
      if (line === "") {
        yield* closed();
        continue;
      }
      const { name, value } = fieldOf(line);
      if (name === "event") type = value;
      if (name !== "data") continue;
      data.push(value);
      size += value.length + 1;
      if (size > maxCharacters) throw tooLarge(maxCharacters);
    }
    if (size + lines.pendingCharacters > maxCharacters) throw tooLarge(maxCharacters);
  };

  for await (const chunk of bytes) yield* taken(decoder.decode(chunk, { stream: true }), false);
  yield* taken(decoder.decode(), true);
  yield* closed();
}

/** Lines that end in CR, LF or both; a CR at a chunk's end closes its line, and an LF that follows belongs to it. */
class Lines {
  /** Of the line that has not ended yet: joined once, however small the chunks are. */
  #rest: string[] = [];
  #restCharacters = 0;
  #endedInCr = false;

  get pendingCharacters(): number {
    return this.#restCharacters;
  }

  *push(text: string, isLast: boolean): Generator<string> {
    const chunk = this.#endedInCr && text.startsWith("\n") ? text.slice(1) : text;
    if (text !== "") this.#endedInCr = text.endsWith("\r");
    let start = 0;
    const lineEnd = /\r\n?|\n/g;
    for (let end = lineEnd.exec(chunk); end; end = lineEnd.exec(chunk)) {
      yield this.#ended(chunk.slice(start, end.index));
      start = lineEnd.lastIndex;
    }
    if (start < chunk.length) {
      this.#rest.push(chunk.slice(start));
      this.#restCharacters += chunk.length - start;
    }
    if (isLast && this.#restCharacters > 0) yield this.#ended("");
  }

  #ended(end: string): string {
    if (this.#restCharacters === 0) return end;
    const line = this.#rest.join("") + end;
    this.#rest = [];
    this.#restCharacters = 0;
    return line;
  }
}

function fieldOf(line: string): { name: string; value: string } {
  const colon = line.indexOf(":");
  if (colon === -1) return { name: line, value: "" };
  const skipped = line.charAt(colon + 1) === " " ? 2 : 1;
  return { name: line.slice(0, colon), value: line.slice(colon + skipped) }; // a comment has no name
}

const tooLarge = (maxCharacters: number) =>
  new ProviderError("broken", `one event of the stream exceeds ${maxCharacters} characters`);
