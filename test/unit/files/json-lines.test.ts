import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonLines } from "../../../src/files/json-lines";
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
