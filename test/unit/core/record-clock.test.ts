import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { endsReading, isWithin, RecordClock, STAMP_LAG_MS } from "../../../src/core/record-clock";

const clockReading = fc.integer({ min: 0, max: 200_000 });
const bound = fc.option(clockReading, { nil: null });

/** Stamps of records, over several lives of the object, whatever its clock says. */
function stampsOf(lives: readonly (readonly number[])[]): number[] {
  const stamps: number[] = [];
  for (const life of lives) {
    const clock = new RecordClock(stamps.at(-1));
    for (const atMs of life) stamps.push(clock.stamp(atMs));
  }
  return stamps;
}
const lives = fc.array(fc.array(clockReading, { maxLength: 12 }), { maxLength: 4 });

describe("stamps of records", () => {
  it("never lag more than the stated bound behind an earlier one, after restarts too", () => {
    fc.assert(
      fc.property(lives, (readings) => {
        const stamps = stampsOf(readings);
        let newest = Number.NEGATIVE_INFINITY;
        for (const stamp of stamps) {
          expect(stamp).toBeGreaterThanOrEqual(newest - STAMP_LAG_MS);
          newest = Math.max(newest, stamp);
        }
      }),
    );
  });

  it("are what the clock said wherever that keeps the bound", () => {
    const clock = new RecordClock(undefined);
    expect([50_000, 45_000, 40_000, 39_999, 60_000, 49_000].map((atMs) => clock.stamp(atMs))).toEqual([
      ...[50_000, 45_000, 40_000, 40_000, 60_000, 50_000],
    ]);
    expect(clock.floorMs).toBe(50_000);
    expect(new RecordClock(70_000).stamp(69_000)).toBe(70_000);
  });

  it("end a reading only where nothing within the bounds follows, in either order", () => {
    fc.assert(
      fc.property(lives, bound, bound, fc.constantFrom("asc", "desc"), (readings, fromMs, toMs, order) => {
        const stamps = stampsOf(readings);
        if (order === "desc") stamps.reverse();
        const end = stamps.findIndex((atMs) => endsReading(atMs, order as "asc" | "desc", { fromMs, toMs }));
        const rest = end === -1 ? [] : stamps.slice(end);
        expect(rest.filter((atMs) => isWithin(atMs, { fromMs, toMs }))).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  it("end a reading at the bound and its lag, not a whole journal later", () => {
    const bounds = { fromMs: 20_000, toMs: 30_000 };
    expect(endsReading(30_000 + STAMP_LAG_MS, "asc", bounds)).toBe(true);
    expect(endsReading(29_999 + STAMP_LAG_MS, "asc", bounds)).toBe(false);
    expect(endsReading(20_000 - STAMP_LAG_MS, "desc", bounds)).toBe(false);
    expect(endsReading(19_999 - STAMP_LAG_MS, "desc", bounds)).toBe(true);
    expect([19_999, 20_000, 29_999, 30_000].map((atMs) => isWithin(atMs, bounds))).toEqual([false, true, true, false]);
  });
});
