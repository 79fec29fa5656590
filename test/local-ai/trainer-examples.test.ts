import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeChat, type TemplateMessage } from "../../local-ai/chat-template";
import { ExampleError, exampleOf, parseExamples } from "../../local-ai/trainer/examples";
import { loadTokenizer } from "./engine";

const tokenizer = loadTokenizer();
const END = tokenizer.special("<|end|>");

const text = fc.string({ maxLength: 20 });
const conversation = fc.array(
  fc.record({ role: fc.constantFrom("system" as const, "user" as const, "assistant" as const), content: text }),
  { minLength: 1, maxLength: 6 },
);
const read = (...lines: unknown[]) =>
  parseExamples(
    lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"),
    tokenizer,
    64,
  );
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

describe("an example", () => {
  it("is what the model reads when it is asked, and what it should say at the assistant's places alone", () => {
    fc.assert(
      fc.property(conversation, (messages) => {
        const { tokens, targets } = exampleOf(tokenizer, messages);
        expect(targets).toHaveLength(tokens.length);
        expect([...tokens, tokenizer.special("<|assistant|>")]).toEqual(encodeChat(tokenizer, messages));
        const learned = targets.filter((target) => target >= 0);
        const said = messages.filter(({ role }) => role === "assistant");
        expect(learned).toEqual(said.flatMap(({ content }) => [...tokenizer.encode(content), END]));
        for (const [at, target] of targets.entries()) if (target >= 0) expect(tokens[at + 1]).toBe(target);
      }),
    );
  });

  it("asks for the answer right after the prompt that the model is given", () => {
    const before: TemplateMessage[] = [{ role: "user", content: "Hello there" }];
    const { targets } = exampleOf(tokenizer, [...before, { role: "assistant", content: "Hi" }] as never);
    expect(targets.findIndex((target) => target >= 0)).toBe(encodeChat(tokenizer, before).length - 1);
  });

  it("learns nothing from an answer of weight 0", async () => {
    const [example] = await read({
      messages: [user("a"), { ...assistant("first"), weight: 0 }, user("b"), assistant("second")],
    });
    expect(example?.targets.filter((target) => target >= 0)).toEqual([...tokenizer.encode("second"), END]);
  });
});

describe("a file of examples", () => {
  it("may have empty lines and the line ends of other systems", async () => {
    const line = JSON.stringify({ messages: [user("a"), assistant("b")] });
    expect(await parseExamples(`${line}\r\n\n${line}\n`, tokenizer, 64)).toHaveLength(2);
  });

  it.each([
    ["", /no examples/],
    ["{", /^line 1: not JSON/],
    [{ messages: [] }, /^line 1: 'messages'/],
    [{ messages: [user("a")] }, /^line 1: no message of the assistant/],
    [{ messages: [user("a"), { role: "tool", content: "b" }] }, /^line 1: 'messages\.1\.role'/],
    [{ messages: [user("a"), { role: "assistant", content: 7 }] }, /^line 1: 'messages\.1\.content'/],
    [{ messages: [user("a ".repeat(70)), assistant("b")] }, /^line 1: \d+ tokens, and the model reads 64/],
    [{ messages: [user("a".repeat(70_000)), assistant("b")] }, /^line 1: longer than 65536 characters/],
  ])("is refused with its line and what is wrong: %j", async (line, why) => {
    const error = await read(line).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ExampleError);
    expect((error as Error).message).toMatch(why);
  });
});
