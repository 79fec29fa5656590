import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readEvents, type ServerEvent } from "../../../src/inference/providers/sse";
import { anyCuts, failureOf, pieces } from "./calls";

const encoder = new TextEncoder();

async function read(chunks: readonly Uint8Array[], maxCharacters?: number): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  const bytes = (async function* () {
    yield* chunks;
  })();
  for await (const event of readEvents(bytes, maxCharacters)) events.push(event);
  return events;
}
const readText = (text: string) => read([encoder.encode(text)]);
const dataOf = async (text: string) => (await readText(text)).map(({ data }) => data);

const anyLineEnd = fc.constantFrom("\n", "\r\n", "\r");
const anyData = fc
  .string({ unit: "binary", maxLength: 12 })
  .map((text) => text.replaceAll(/[\r\n\ufeff\ud800-\udfff]/g, "·"));

describe("server-sent events", () => {
  it("are the same wherever the bytes are cut", async () => {
    const anyEvent = fc.record({ lines: fc.array(anyData, { minLength: 1, maxLength: 4 }), comment: anyData });
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent), anyLineEnd, anyCuts, fc.boolean(), async (events, end, cuts, hasMark) => {
        const text = events.map(({ lines, comment }) =>
          [`: ${comment}`, ...lines.map((line) => `data: ${line}`), "", ""].join(end),
        );
        const bytes = encoder.encode((hasMark ? "\ufeff" : "") + text.join(""));
        const expected = events.map(({ lines }) => ({ type: "message", data: lines.join("\n") }));
        expect(await read(pieces(bytes, cuts))).toEqual(expected);
      }),
    );
  });

  it("are the same when every byte comes alone, inside characters and line ends too", async () => {
    const bytes = encoder.encode("data: näïve 日本 🙂\r\n\r\ndata: b\r\rdata: c\n\n");
    const alone = Array.from(bytes, (byte) => Uint8Array.of(byte));
    expect((await read(alone)).map(({ data }) => data)).toEqual(["näïve 日本 🙂", "b", "c"]);
  });

  it("do not mind a chunk of nothing, not even between CR and LF", async () => {
    const chunks = ["data: a\r", "", "\ndata: b\r\n\r\n"].map((text) => encoder.encode(text));
    expect((await read(chunks)).map(({ data }) => data)).toEqual(["a\nb"]);
  });

  it("come out as soon as their last byte is in, a lone CR included", async () => {
    const chunks = ["data: a\r\n\r\n", "data: b\r\r", "data: c\n\n"].map((text) => encoder.encode(text));
    let given = 0;
    const bytes = (async function* () {
      for (const chunk of chunks) {
        given++;
        yield chunk;
      }
    })();
    const seen: [string, number][] = [];
    for await (const { data } of readEvents(bytes)) seen.push([data, given]);
    expect(seen).toEqual([
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ]);
  });

  it("join their data lines by line feeds, keep all but one leading space, and skip comments and other fields", async () => {
    const text = ": hello\nid: 7\nretry: 10\ndata:  two\ndata:three\ndata\n\n: only a comment\n\ndata: next\n\n";
    expect(await dataOf(text)).toEqual([" two\nthree\n", "next"]);
  });

  it("carry their type, and forget it for the next", async () => {
    expect(await readText("event: error\ndata: x\n\ndata: y\n\n")).toEqual([
      { type: "error", data: "x" },
      { type: "message", data: "y" },
    ]);
  });

  it("count even when the stream ends without the blank line", async () => {
    expect(await dataOf("data: a\n\ndata: [DONE]")).toEqual(["a", "[DONE]"]);
  });

  it("skip a byte order mark at the beginning only", async () => {
    expect(await dataOf("\ufeffdata: a\n\ndata: \ufeffb\n\n")).toEqual(["a", "\ufeffb"]);
  });

  it("are refused above the bound, as one line, as many, and before the line's end is seen", async () => {
    const overTwoLines = `data: ${"x".repeat(60)}\n${"x".repeat(60)}`;
    for (const text of [
      `data: ${"x".repeat(101)}\n\n`,
      "data: xxxxxxxxx\n".repeat(11),
      "x".repeat(101),
      overTwoLines,
    ]) {
      expect((await failureOf(() => read([encoder.encode(text)], 100))).failure).toBe("broken");
    }
    const inPieces = Array.from({ length: 20 }, () => encoder.encode("x".repeat(10)));
    expect((await failureOf(() => read(inPieces, 100))).failure).toBe("broken");
    const exactly = [`data: ${"x".repeat(99)}\n\n`, `data: ${"x".repeat(94)}`]; // 99 and a line feed; 100 unfinished
    for (const text of exactly) expect(await read([encoder.encode(text)], 100)).toHaveLength(1);
    const many = "data: xxxxxxxxx\n\n".repeat(50); // far above the bound together, each of them below
    expect(await read([encoder.encode(many)], 100)).toHaveLength(50);
  });
});
