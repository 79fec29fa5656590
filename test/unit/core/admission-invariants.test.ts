import fc from "fast-check";
import { describe, it } from "vitest";
import { steps, World } from "./world";

/*
 * The checks stand in `world.ts` and look at answers only. Bugs put in on purpose, each of which failed here: a clock
 * per window, or one that a restart sets back; one more than the limit, in a rate or in flight; a claim forgotten when
 * one begins to wait, or kept when it leaves, gives up or is granted; no second look at the rates at a grant; a wait for
 * the wrong one of two rules; tokens given back twice, not at all, or for a hold that expired; a hold that ends twice or
 * keeps its slot; a window, a hold or an end that is not reported for storage; a restart that forgets deadlines.
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
