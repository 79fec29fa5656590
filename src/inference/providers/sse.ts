/** One event of a stream: its data lines joined by line feeds. */
export type EventData = string;

/** A single event larger than this is no token any more. */
const MAX_EVENT_CHARACTERS = 4 * 1024 * 1024;

/**
 * Reads server-sent events (HTML Living Standard, "Parsing an event stream") from bytes cut anywhere: inside a
 * character, inside a line end, inside a field. Comments and other fields than `data` are left out; an event that
 * the stream's end cuts off is dropped, as the standard says.
 * @throws TypeError when an event is larger than {@link MAX_EVENT_CHARACTERS}
 */
export async function* readEvents(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<EventData> {
  const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: false });
  let rest = "";
  let data: string[] = [];
  let size = 0;
  for await (const chunk of bytes) {
    rest += decoder.decode(chunk, { stream: true });
    for (;;) {
      const end = /\r\n|\n|\r(?!$)/.exec(rest); // a lone CR at the end may be half of CRLF
      if (!end) break;
      const line = rest.slice(0, end.index);
      rest = rest.slice(end.index + end[0].length);
      if (line === "") {
        if (data.length > 0) yield data.join("\n");
        data = [];
        size = 0;
        continue;
      }
      const value = dataOf(line);
      if (value === undefined) continue;
      data.push(value);
      size += value.length;
    }
    if (size + rest.length > MAX_EVENT_CHARACTERS) throw new TypeError("an event of the stream is too large");
  }
}

function dataOf(line: string): string | undefined {
  if (line === "data") return "";
  if (!line.startsWith("data:")) return undefined;
  return line.charAt(5) === " " ? line.slice(6) : line.slice(5);
}
