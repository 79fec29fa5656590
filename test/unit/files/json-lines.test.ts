import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonLines, MAX_BATCH_LINES } from "../../../src/files/json-lines";
import { anyCuts, pieces } from "../providers/calls";

const encoder = new TextEncoder();
const batch = (id: string) =>
  JSON.stringify({ custom_id: id, method: "POST", url: "/v1/chat/completions", body: { model: "m", messages: [] } });
const example = (text: string) =>
  JSON.stringify({
    messages: [
      { role: "user", content: text },
      { role: "assistant", content: "ok" },
    ],
  });
function looked(bytes: Uint8Array, cuts: Parameters<typeof pieces>[1] = []): JsonLines {
  const lines = new JsonLines();
  for (const piece of pieces(bytes, cuts)) lines.push(piece);
  lines.end();
  return lines;
}
const problem = (text: string, purpose: string) => looked(encoder.encode(text)).problemFor(purpose);

describe("a file of JSON Lines", () => {
  it("is good for its purpose wherever its bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "grapheme" }), { minLength: 1 }),
        anyCuts,
        fc.boolean(),
        (texts, cuts, hasEnd) => {
          const text = texts.map((each) => example(each)).join("\n") + (hasEnd ? "\n" : "");
          expect(looked(encoder.encode(text), cuts).problemFor("fine-tune")).toBeUndefined();
        },
      ),
    );
  });

  it("names the line of its first mistake, empty lines counted", () => {
    fc.assert(
      fc.property(fc.nat(20), fc.array(fc.constant(""), { maxLength: 3 }), anyCuts, (good, empty, cuts) => {
        const lines = [...Array.from({ length: good }, (_, at) => batch(`id-${at}`)), ...empty, "{", batch("later")];
        const found = looked(encoder.encode(lines.join("\n")), cuts).problemFor("batch");
        expect(found).toBe(`line ${good + empty.length + 1}: not JSON`);
      }),
    );
  });

  it("is judged for each purpose by itself, since that may be told only afterwards", () => {
    const text = `${batch("a")}\n${batch("b")}`;
    expect(problem(text, "batch")).toBeUndefined();
    expect(problem(text, "fine-tune")).toMatch(/^line 1: 'messages'/);
    expect(problem(text, "user_data")).toBeUndefined();
    expect(problem("\u0000 anything", "assistants")).toBeUndefined();
  });

  it.each([
    ["", "batch", "the file has no lines"],
    [`${batch("a")}\n${batch("a")}`, "batch", "line 2: the custom_id 'a' is there twice"],
    [batch("a").replace("POST", "GET"), "batch", /^line 1: 'method'/],
    [batch("a").replace("/v1/", "https://x/"), "batch", /^line 1: 'url'/],
    ['{"messages":[{"role":"user","content":"x"}]}', "fine-tune", /no message of the assistant/],
    ["[1,2]", "fine-tune", /^line 1: ''/],
    [`"${"x".repeat(3 * 1024 * 1024)}`, "batch", /^line 1: longer than/],
  ])("is refused: %#", (text, purpose, message) => {
    expect(problem(text, purpose)).toMatch(message);
  });

  it("has the bounds of a body in each line, told before the line is parsed", () => {
    const flood = (count: number) => `{"messages":[${'{"role":"assistant"},'.repeat(count - 1)}{"role":"assistant"}]}`;
    expect(problem(flood(10_000), "fine-tune")).toBeUndefined();
    expect(problem(`${example("a")}\n${flood(10_001)}`, "fine-tune")).toMatch(/^line 2: .*more than 10,000 members/);
    expect(problem(`{"messages":${"[".repeat(80)}${"]".repeat(80)}}`, "fine-tune")).toMatch(
      /^line 1: .*deeper than 64/,
    );
  });

  it("is given up in a line that does not end, however it comes", () => {
    for (const size of [3_000_000, 65_536, 999]) {
      const lines = new JsonLines();
      for (let sent = 0; sent < 3_000_000; sent += size) lines.push(new Uint8Array(size).fill(0x61));
      expect(lines.problemFor("batch")).toBe("line 1: longer than 2097152 characters");
    }
  });

  it("must be UTF-8", () => {
    expect(looked(Uint8Array.of(0x7b, 0xff, 0x7d)).problemFor("batch")).toBe("line 1: not valid UTF-8");
  });
});

describe("a file of a batch", () => {
  const many = (count: number, id: (at: number) => string) =>
    Array.from({ length: count }, (_, at) => batch(id(at))).join("\n");

  it("has at most 50,000 requests, and one more is named by its line", () => {
    expect(MAX_BATCH_LINES).toBe(50_000);
    const text = many(MAX_BATCH_LINES, (at) => `id-${at}`);
    expect(problem(text, "batch")).toBeUndefined();
    expect(problem(`${text}\n${batch("one more")}`, "batch")).toBe("line 50001: a batch has at most 50000 requests");
  });

  it("is held as one digest for each line, however long its ids, and as nothing once it is no batch", () => {
    const lines = new JsonLines();
    const long = (at: number) => String(at).padStart(512, "x");
    for (let at = 0; at < 1_000; at++) lines.push(encoder.encode(`${batch(long(at))}\n`));
    expect(lines.heldDigests).toBe(1_000);
    lines.push(encoder.encode(`${batch(long(999))}\n`));
    expect(lines.problemFor("batch")).toMatch(/is there twice/);
    expect(lines.heldDigests).toBe(0);
    for (let at = 1_000; at < 2_000; at++) lines.push(encoder.encode(`${batch(long(at))}\n`));
    expect(lines.heldDigests).toBe(0);
  });

  it("tells ids apart that differ in one place, also where they are no well-formed text", () => {
    expect(
      problem([batch("\ud800"), batch("\ud801"), batch("\ufffd"), batch("a"), batch("A")].join("\n"), "batch"),
    ).toBe(undefined);
  });

  it("has at most 200 MiB, and stays good until then", () => {
    const lines = new JsonLines();
    const body = { model: "m", text: "x".repeat(1024 * 1024) };
    const line = (at: number) =>
      encoder.encode(`${JSON.stringify({ custom_id: `${at}`, method: "POST", url: "/v1/x", body })}\n`);
    for (let at = 0; at < 199; at++) lines.push(line(at));
    expect(lines.problemFor("batch")).toBeUndefined();
    lines.push(line(199));
    expect(lines.problemFor("batch")).toBe("it is larger than 200 MiB");
  }, 60_000);
});
