import fc from "fast-check";
import { describe, it } from "vitest";
import { steps, World } from "./world";

/*
 * The checks stand in `world.ts` and look at answers only.
 */
describe("admission, whatever callers, clocks, restarts and limits do", () => {
  it("holds every rate in every real 60 s, ends each call once, keeps the order, wastes no slot, forgets nobody", () => {
    fc.assert(
      fc.property(steps, (each) => {
        const world = new World("slow");
        for (const step of each) world.play(step);
        world.finish();
      }),
      { numRuns: 1_000 },
    );
  });

  it("holds the same in every 60 s of its own time where the clock jumps either way", () => {
    fc.assert(
      fc.property(steps, (each) => {
        const world = new World("wild");
        for (const step of each) world.play(step);
        world.finish();
      }),
      { numRuns: 1_000 },
    );
  });
});
