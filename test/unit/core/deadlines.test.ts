import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Deadlines } from "../../../src/core/deadlines";

/*
 * Bugs put in on purpose, each of which failed here: a right child never looked at, a heap that does not rise, a
 * replaced deadline that still fires, ties by id instead of arrival, a compaction that drops the order, `max` ignored.
 */
const id = fc.constantFrom(..."abcdefghijkl");
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("set" as const), id, atMs: fc.nat({ max: 20 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("delete" as const), id }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("take" as const), atMs: fc.nat({ max: 20 }), max: fc.nat({ max: 4 }) }),
  },
);

describe("deadlines", () => {
  it("come out as a sorted list would give them: earliest first, then the one set first, each once", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const deadlines = new Deadlines();
        const model = new Map<string, number>(); // in order of setting
        for (const each of steps) {
          if (each.do === "set") {
            deadlines.set(each.id, each.atMs);
            model.delete(each.id);
            model.set(each.id, each.atMs);
          } else if (each.do === "delete") expect(deadlines.delete(each.id)).toBe(model.delete(each.id));
          else {
            const due = [...model].filter(([, atMs]) => atMs <= each.atMs).sort(([, a], [, b]) => a - b);
            const ids = due.slice(0, each.max).map(([name]) => name);
            expect(deadlines.takeDue(each.atMs, each.max)).toEqual(ids);
            for (const name of ids) model.delete(name);
          }
          expect(deadlines.size).toBe(model.size);
          expect(deadlines.nextMs()).toBe(model.size === 0 ? undefined : Math.min(...model.values()));
        }
      }),
      { numRuns: 300 },
    );
  });

  it("keep their order however often they were replaced", () => {
    const replaced = fc.tuple(fc.constantFrom("a", "b", "c", "d"), fc.nat({ max: 99 }));
    fc.assert(
      fc.property(fc.array(replaced, { minLength: 30, maxLength: 120 }), (sets) => {
        const deadlines = new Deadlines();
        for (const [name, atMs] of sets) deadlines.set(name, atMs);
        const last = new Map<string, number>(sets);
        const taken = deadlines.takeDue(99);
        expect(taken.map((name) => last.get(name))).toEqual([...last.values()].sort((a, b) => a - b));
      }),
    );
  });
});
