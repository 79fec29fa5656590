import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { vocabularies } from "../../../scripts/vocabularies.mjs";
import { MAX_PIECE_BYTES } from "../../../src/core/tokens/byte-pairs";
import { bytesOf, MAX_MERGED_BYTES } from "../../../src/core/tokens/encoding";
import { packVocabulary, Vocabulary } from "../../../src/core/tokens/vocabulary";
import { ENCODINGS, vocabularyFile } from "./tokens";

const RUNS = process.env.PROVE ? 10_000 : 500;

const NATURAL: Readonly<Record<string, string>> = {
  English:
    "The customer asked whether the refund could go back to the card she had paid with. Our agent explained the procedure, step by step, and closed the ticket at 4:35 pm.",
  code: "export function sum(values: readonly number[]): number {\n  return values.reduce((total, value) => total + value, 0);\n}\n",
  German:
    "Die Kundin fragte, ob der Betrag auf die ursprünglich verwendete Karte zurückgebucht werden könne; unsere Mitarbeiterin erklärte ihr ausführlich die Rückerstattungsbedingungen.",
  Chinese: "客户询问退款是否可以退回到原来的付款方式，我们的客服人员在关闭工单之前详细解释了整个流程。",
  Arabic: "سأل العميل عما إذا كان من الممكن إعادة المبلغ إلى طريقة الدفع الأصلية، وشرح الموظف الإجراء بالتفصيل.",
  emoji: "😀😂👍🏽🎉👨‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿🇩🇪❤️🔥✨🙏🏻",
};

/** What makes tokenizers differ: cases of the patterns, rare letters, marks, joiners, digits, spaces of every kind. */
const odd = fc.constantFrom(
  ...["a", "b", "q", "Z", "the", " the", "'s", "'LL", "'", "1", "234", "_", "-", "==", "{", "}", "/", "//", "\\n"],
  ...[" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\u0085", "\ufeff", "\u180e", "\u200d", "\u0301", "\u{e0067}"],
  ...["é", "ß", "ſ", "İ", "ǅ", "ʰ", "ﬀ", "漢", "字", "ا", "ل", "ก", "😀", "🏽", "🇩", "<|endoftext|>", "<|eot_id|>"],
);
const hostile = fc.oneof(
  fc.array(odd, { maxLength: 60 }).map((parts) => parts.join("")),
  fc.string({ unit: "grapheme", maxLength: 120 }),
  fc.string({ unit: "binary", maxLength: 120 }).filter((text) => text.isWellFormed()),
  fc.stringMatching(/^[a-z]{0,200}$/),
  fc.tuple(odd, fc.integer({ min: 1, max: 300 })).map(([part, times]) => part.repeat(times)),
);

describe.each(ENCODINGS)("the bound of a text's tokens by $name", ({ encoding, real }) => {
  it.each(Object.keys(NATURAL))("is what the real tokenizer counts, in %s", (language) => {
    const text = NATURAL[language] ?? "";
    expect(encoding.bound(text)).toBe(real(text));
    expect(encoding.bound(text.repeat(20))).toBe(real(text.repeat(20)));
  });

  it("is what the real tokenizer counts, of any text, hostile ones too", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        const [bound, count] = [encoding.bound(text), real(text)];
        // The package for Llama 3 reads control tokens in texts; a server that does counts less than we say.
        if (text.includes("<|")) expect(bound).toBeGreaterThanOrEqual(count);
        else expect(bound).toBe(count);
      }),
      { numRuns: RUNS },
    );
  });

  it("stops beyond what was asked for, and never says that less is there", () => {
    fc.assert(
      fc.property(hostile, fc.nat(80), (text, enough) => {
        const bound = encoding.bound(text, enough);
        const count = real(text);
        if (count <= enough && !text.includes("<|")) expect(bound).toBe(count);
        else expect(bound).toBeGreaterThan(Math.min(enough, count - 1));
      }),
      { numRuns: RUNS / 5 },
    );
    expect(encoding.bound(" word".repeat(1_000), 10)).toBe(11);
  });

  it("takes bytes for tokens where counting costs too much: in pieces that are too long, and after so much merging", () => {
    for (const piece of ["x".repeat(MAX_PIECE_BYTES + 1), "漢".repeat(MAX_PIECE_BYTES / 3 + 1)]) {
      expect(encoding.bound(piece)).toBe(bytesOf(piece));
    }
    expect(encoding.bound("x".repeat(MAX_PIECE_BYTES))).toBeLessThan(MAX_PIECE_BYTES / 2);
    expect(encoding.bound("x".repeat(700))).toBe(real("x".repeat(700)));
    // Each word is another one, so none is remembered.
    const letters = (at: number) =>
      Array.from(at.toString(16), (digit) => "qzxvjkwyhgfbpmdc"[Number.parseInt(digit, 16)]);
    const text = Array.from({ length: 36_000 }, (_, at) => ` qzx${letters(at).join("")}`).join("");
    const bound = encoding.bound(text);
    expect(bytesOf(text)).toBeGreaterThan(MAX_MERGED_BYTES);
    expect(bound).toBeGreaterThanOrEqual(real(text));
    expect(bound).toBeLessThanOrEqual(bytesOf(text));
    expect(bound - real(text)).toBeGreaterThan(0);
  });
});

describe("a vocabulary", () => {
  it("is the one that the packages carry", async () => {
    for (const [name, file] of Object.entries(await vocabularies())) {
      expect(Buffer.compare(file, Buffer.from(vocabularyFile(name)))).toBe(0);
    }
  });

  it("finds each token by its bytes and nothing else, over several files", () => {
    const token = fc.uint8Array({ minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(
        fc.uniqueArray(token, { selector: String, minLength: 1 }),
        fc.array(token),
        fc.nat(),
        (all, more, at) => {
          const cut = at % (all.length + 1);
          const files = [all.slice(0, cut), all.slice(cut)].map((part) => packVocabulary(part).slice().buffer);
          const vocabulary = new Vocabulary(files as ArrayBuffer[]);
          expect(vocabulary.size).toBe(all.length);
          for (const [rank, bytes] of all.entries()) {
            const text = Uint8Array.from([7, ...bytes, 7]);
            expect(vocabulary.rankOf(text, 1, text.length - 1)).toBe(rank);
          }
          const known = new Set(all.map(String));
          for (const bytes of more.filter((one) => !known.has(String(one)))) {
            expect(vocabulary.rankOf(bytes, 0, bytes.length)).toBe(-1);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("the bytes of a text", () => {
  it("are those of its UTF-8", () => {
    const encoder = new TextEncoder();
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary-ascii" }), (text, ascii) => {
        expect(bytesOf(text + ascii)).toBe(encoder.encode(text + ascii).length);
      }),
    );
    expect(bytesOf("a\ud800")).toBe(encoder.encode("a\ud800").length);
  });
});
