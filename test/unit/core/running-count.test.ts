import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesOf } from "../../../src/core/tokens/encoding";
import { RunningCount } from "../../../src/core/tokens/running-count";
import { ENCODINGS } from "./tokens";

const { encoding } = ENCODINGS[1];
const word = fc.constantFrom(
  "the",
  "fox",
  "Rückerstattung",
  "refund,",
  "(see",
  "4:35",
  "客户",
  "return;",
  "'s",
  "{",
  "\n\n",
);

describe("the count of a text that comes in pieces", () => {
  it("is the whole text's, however it is cut and whenever somebody asks", () => {
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 400 }),
        fc.array(fc.record({ size: fc.integer({ min: 1, max: 90 }), isAsked: fc.boolean() }), { minLength: 1 }),
        (words, cuts) => {
          const text = words.join(" ");
          const running = new RunningCount((part) => encoding.bound(part));
          for (let at = 0, step = 0; at < text.length; step++) {
            const { size, isAsked } = cuts[step % cuts.length] ?? { size: 1, isAsked: false };
            running.add(text.slice(at, at + size));
            at += size;
            expect(running.most).toBeGreaterThanOrEqual(encoding.bound(text.slice(0, at)));
            if (isAsked) expect(running.tokens).toBe(encoding.bound(text.slice(0, at)));
          }
          expect(running.tokens).toBe(encoding.bound(text));
        },
      ),
      { numRuns: 100 },
    );
  });

  it("counts each part about once, of texts with and without spaces", () => {
    for (const piece of ["word ", "x", "客"]) {
      let counted = 0;
      const running = new RunningCount((part) => {
        counted += part.length;
        return encoding.bound(part);
      });
      const text = piece.repeat(100_000 / piece.length);
      for (let at = 0; at < text.length; at += 10) running.add(text.slice(at, at + 10));
      expect(running.tokens).toBeGreaterThan(0);
      expect(running.most).toBeLessThanOrEqual(bytesOf(text));
      expect(counted).toBeLessThan(1.1 * text.length);
    }
  });
});
