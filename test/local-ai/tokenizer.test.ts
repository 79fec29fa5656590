import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeChat } from "../../local-ai/chat-template";
import { StreamingDecoder, Tokenizer, type TokenizerFile } from "../../local-ai/tokenizer";
import tokenizerFile from "../../local-ai/weights/tokenizer.json";
import { loadEngine, referenceCases, tokenizerReference } from "./engine";

const { tokenizer } = loadEngine();
const SPECIAL = [
  "<|pad|>",
  "<|bos|>",
  "<|end|>",
  "<|system|>",
  "<|user|>",
  "<|assistant|>",
  "<|tool|>",
  "<|reserved0|>",
];
const specialIds = new Set(SPECIAL.map((token) => tokenizer.special(token)));
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.array(fc.oneof(fc.constantFrom(...SPECIAL), fc.string())).map((parts) => parts.join("")),
);

describe("tokenizer", () => {
  it("encodes the reference prompts to the reference's ids", () => {
    for (const { prompt, ids } of referenceCases()) {
      // The reference writes prompts with their special tokens.
      const encoded = prompt.split(/(<\|[a-z0-9]+\|>)/).flatMap((part: string) => {
        return SPECIAL.includes(part) ? [tokenizer.special(part)] : tokenizer.encode(part);
      });
      expect(encoded).toEqual(ids);
    }
  });

  it.each(tokenizerReference())("encodes $text as the reference does", ({ text: given, ids }) => {
    expect(tokenizer.encode(given)).toEqual(ids);
  });

  /** The algorithm as it is written down: again and again, of all merges that are possible the one of lowest rank. */
  function encodedStepByStep(file: TokenizerFile, word: string): number[] {
    const { vocab, merges } = file.model;
    const rankOf = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    let parts = [...word];
    for (;;) {
      const ranks = parts.slice(1).map((part, at) => rankOf.get(`${parts[at]} ${part}`) ?? Number.POSITIVE_INFINITY);
      const least = Math.min(...ranks);
      if (least === Number.POSITIVE_INFINITY) return parts.map((part) => vocab[part] as number);
      const at = ranks.indexOf(least);
      parts = [...parts.slice(0, at), `${parts[at]}${parts[at + 1]}`, ...parts.slice(at + 2)];
    }
  }

  it("encodes words of any length by the lowest rank first, from the left", () => {
    const words = fc.oneof(
      fc.string({ unit: fc.constantFrom(..."abcdefghijklmnopqrstuvwxyz"), minLength: 1, maxLength: 120 }),
      fc.string({ unit: fc.constantFrom(..."aeinst"), minLength: 1, maxLength: 300 }),
      fc
        .array(fc.constantFrom("the", "order", "ing", "account", "a", "refund"), { minLength: 1 })
        .map((all) => all.join("")),
    );
    fc.assert(
      fc.property(words, (word) => {
        expect(tokenizer.encode(word)).toEqual(encodedStepByStep(tokenizerFile as TokenizerFile, word));
      }),
    );
  });

  it("gives every text back", () => {
    fc.assert(
      fc.property(text, (value) => {
        expect(tokenizer.decode(tokenizer.encode(value))).toBe(value.toWellFormed());
      }),
    );
  });

  it("never makes a special token from text", () => {
    fc.assert(
      fc.property(text, (value) => {
        expect(tokenizer.encode(value).some((id) => specialIds.has(id))).toBe(false);
      }),
    );
  });

  it("decodes token by token to the same text, and never lets half of a character out", () => {
    fc.assert(
      fc.property(text, (value) => {
        const decoder = new StreamingDecoder(tokenizer);
        const pieces = tokenizer.encode(value).map((id) => decoder.push(id));
        expect(pieces.join("") + decoder.end()).toBe(value.toWellFormed());
        if (!value.toWellFormed().includes("\uFFFD")) expect(pieces.join("")).not.toContain("\uFFFD");
      }),
    );
  });

  it("writes exactly the roles of the messages, whatever their contents say", () => {
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), (contents) => {
        const ids = encodeChat(
          tokenizer,
          contents.map((content) => ({ role: "user", content })),
        );
        expect(ids.filter((id) => id === tokenizer.special("<|user|>"))).toHaveLength(contents.length);
        expect(ids.filter((id) => id === tokenizer.special("<|system|>"))).toHaveLength(0);
        expect(ids.filter((id) => id === tokenizer.special("<|assistant|>"))).toHaveLength(1);
      }),
    );
  });

  it("makes one system turn, in front, of all messages of system and developer", () => {
    const ids = encodeChat(tokenizer, [
      { role: "system", content: "one" },
      { role: "user", content: "hi" },
      { role: "developer", content: "two" },
    ]);
    const [bos, end, system] = ["<|bos|>", "<|end|>", "<|system|>"].map((token) => tokenizer.special(token));
    expect(ids.slice(0, 2)).toEqual([bos, system]);
    expect(tokenizer.decode(ids.slice(2, ids.indexOf(end as number)))).toBe("one\ntwo");
    expect(ids.filter((id) => id === system)).toHaveLength(1);
  });

  it("refuses a file that contradicts itself", () => {
    const model = (merges: string[][]) => ({ vocab: { a: 0, aa: 1, aaa: 2 }, merges });
    const build = (merges: string[][]) => new Tokenizer({ added_tokens: [], model: model(merges) });
    const ambiguous = [
      ["a", "a"],
      ["a", "aa"],
      ["aa", "a"],
    ];
    expect(() => build(ambiguous)).toThrow(/two merges make the same token/);
    expect(() => build([["a", "b"]])).toThrow(/"b" is not in the vocabulary/);
  });
});
