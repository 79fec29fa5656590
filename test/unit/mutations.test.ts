import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  applyMutation,
  isEnough,
  isSelected,
  type MutationResult,
  type Outcome,
  proofSection,
  remainingSeconds,
  scores,
  withSection,
} from "../../scripts/mutations.mjs";

const result = (part: string, outcome: Outcome, more: Partial<MutationResult> = {}): MutationResult => ({
  ...{ part, outcome, promise: "a promise", file: "src/a.ts", find: "x", replace: "y", tests: ["test/a.test.ts"] },
  ...{ seconds: 1, detail: "why", digest: "d", ...more },
});
const results = (part: string, caught: number, survived: number) => [
  ...Array.from({ length: caught }, () => result(part, "caught")),
  ...Array.from({ length: survived }, () => result(part, "survived")),
];

describe("a mutation", () => {
  it("replaces its text where that occurs once, and leaves the rest as it was", () => {
    expect(applyMutation("a + b", { find: "+", replace: "-" })).toEqual({ text: "a - b" });
    expect(applyMutation("a + b", { find: "+", replace: "$&$1$$" })).toEqual({ text: "a $&$1$$ b" });
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (before, replace, after) => {
        const [found, text] = ["\u0000once\u0000", `${before}\u0000once\u0000${after}`];
        expect(applyMutation(text, { find: found, replace })).toEqual({ text: before + replace + after });
      }),
    );
  });

  it.each([
    ["is no longer there", "a + b", "*"],
    ["is there twice", "a + b + c", "+"],
    ["is empty", "a", ""],
  ])("is stale where its text %s", (_, text, find) => {
    expect(applyMutation(text, { find, replace: "x" })).toHaveProperty("stale");
  });

  it("is stale where it changes nothing", () => {
    expect(applyMutation("a", { find: "a", replace: "a" })).toHaveProperty("stale");
  });
});

describe("the score of a part", () => {
  it("is the share of its mutations that were caught; one that could not be run is not", () => {
    const all = [...results("a", 8, 1), result("a", "stale"), result("a", "invalid"), result("a", "red without it")];
    expect(scores([...all, ...results("b", 2, 0)])).toEqual([
      { part: "a", caught: 8, all: 12, percent: (100 * 8) / 12 },
      { part: "b", caught: 2, all: 2, percent: 100 },
    ]);
  });

  it("must be 90 % in every part, and of nothing there is no score", () => {
    expect(isEnough(scores(results("a", 9, 1)))).toBe(true);
    expect(isEnough(scores([...results("a", 100, 0), ...results("b", 89, 11)]))).toBe(false);
    expect(isEnough([])).toBe(false);
  });
});

describe("a run", () => {
  it("is of a part by its name, or of what a promise or a file contains", () => {
    const mutation = { part: "journal", promise: "a chain has no gap", file: "src/core/hash-chain.ts" };
    for (const filters of [[], ["journal"], ["no gap"], ["hash-chain"], ["other", "chain"]]) {
      expect(isSelected(mutation, filters), filters.join()).toBe(true);
    }
    for (const filters of [["jour"], ["dispatch"], ["Chain"]]) expect(isSelected(mutation, filters)).toBe(false);
  });

  it("takes as long as its tests took before, and the mean where nobody knows", () => {
    const known = new Map([
      ["a", 2],
      ["b", 4],
    ]);
    expect(remainingSeconds(["a", "a", "b", "new"], known)).toBe(2 + 2 + 4 + 3);
    expect(remainingSeconds(["new"], new Map())).toBe(0);
  });
});

describe("docs/proof.md", () => {
  const run = { date: "2026-11-25", machine: "2 cores" };

  it("has one line for each promise, with its tests and what was not caught", () => {
    const text = proofSection(
      [
        result("a", "caught"),
        result("a", "survived", { tests: ["test/b.test.ts"] }),
        result("a", "caught", { promise: "a | b" }),
      ],
      run,
    );
    expect(text).toContain("| a | 2 | 3 | 66.6 % |");
    expect(text).toContain(
      "| a promise | `test/a.test.ts`, `test/b.test.ts` | 1 of 2 caught; survived: `src/a.ts` |\n| a \\| b | `test/a.test.ts` | caught |",
    );
  });

  it("never rounds up to what was not reached", () => {
    expect(proofSection(results("a", 899, 101), run)).toContain("| 89.9 % |");
    expect(proofSection(results("a", 8999, 1001), run)).toContain("| 89.9 % |");
  });

  it("gets a section once, and keeps everything round it", () => {
    const first = withSection("# Proof\n\nWords.\n", "mutations", "one");
    const both = withSection(first, "long proofs", "two");
    const again = withSection(both, "mutations", "three");
    expect(again.startsWith("# Proof\n\nWords.\n")).toBe(true);
    expect(again).toContain("three");
    expect(again).toContain("two");
    expect(again).not.toContain("one");
    expect(withSection(again, "mutations", "three")).toBe(again);
  });
});
