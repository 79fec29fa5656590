import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Bucket, CountingWindow } from "../../../src/core/counting-window";

const [BUCKET_MS, WINDOW_MS] = [250, 60_000];

/*
 * Bugs put in on purpose, each of which made at least one of these tests fail: a bucket that leaves at b + 60,000, or
 * one millisecond early; a clock that is believed when it goes back; a correction that ignores the total, that goes
 * below zero, or that lands in the newest bucket; a wait one millisecond short, or counted from the newest time; a
 * restore that forgets the total; an expired bucket that is not reported; a reset that waits for a bucket of zero.
 */
const START_MS = 1_790_000_000_000;
const gapMs = fc.oneof(
  fc.constantFrom(0, 1, BUCKET_MS - 1, BUCKET_MS, BUCKET_MS + 1, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + BUCKET_MS),
  fc.nat({ max: 2_000 }),
  fc.nat({ max: 70_000 }),
);
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("add" as const), gapMs, cost: fc.nat({ max: 6 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("correct" as const), which: fc.nat({ max: 9 }), delta: fc.nat({ max: 5 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("back" as const), gapMs }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("jump" as const), gapMs }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
const LIMIT = 10;

/** Storage as the gate keeps it: only what takeDirty told. */
class Stored {
  readonly rows = new Map<number, number>();
  save(window: CountingWindow): void {
    const { upsert, remove } = window.takeDirty();
    for (const { bucketMs, count } of upsert) this.rows.set(bucketMs, count);
    for (const bucketMs of remove) this.rows.delete(bucketMs);
  }
  restore(): CountingWindow {
    return CountingWindow.restore([...this.rows].map(([bucketMs, count]) => ({ bucketMs, count })));
  }
}

interface Added {
  readonly realMs: number;
  readonly newestMs: number;
  readonly bucketMs: number;
  count: number;
}

/** Draws as long as there is room and calls `onAdd` after each; knows nothing of the window but its answers. */
function play(steps: readonly Step[], allowed: { jump: boolean; restart: boolean }, onAdd: (all: Added[]) => void) {
  const stored = new Stored();
  let window = new CountingWindow();
  let [realMs, clockMs, newestMs] = [START_MS, START_MS, 0]; // the window was told no time yet
  const added: Added[] = [];
  for (const each of steps) {
    if (each.do === "add") {
      realMs += each.gapMs;
      clockMs += each.gapMs;
      newestMs = Math.max(newestMs, clockMs);
      if (window.total(clockMs) + each.cost > LIMIT) continue;
      added.push({ realMs, newestMs, bucketMs: window.add(each.cost, clockMs), count: each.cost });
      onAdd(added);
    } else if (each.do === "correct") {
      const target = added.at(-1 - each.which);
      if (!target) continue;
      const delta = Math.min(each.delta, target.count);
      window.correct(target.bucketMs, -delta);
      target.count -= delta;
    } else if (each.do === "back") clockMs -= each.gapMs;
    else if (each.do === "jump" && allowed.jump) clockMs += each.gapMs;
    else if (each.do === "restart" && allowed.restart) {
      stored.save(window);
      window = stored.restore();
    }
  }
}

/** Brute force: every interval of 60 s is as full as one that ends with an addition. */
function fullest(added: readonly Added[], timeOf: (each: Added) => number): number {
  const endMs = Math.max(...added.map(timeOf));
  return added.filter((each) => timeOf(each) >= endMs - WINDOW_MS).reduce((sum, each) => sum + each.count, 0);
}

describe("minute window", () => {
  it("holds at most the limit in every real 60 s, whatever the clock goes back, is corrected and restarts", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        play(steps, { jump: false, restart: true }, (added) => {
          expect(fullest(added, (each) => each.realMs)).toBeLessThanOrEqual(LIMIT);
        });
      }),
      { numRuns: 400 },
    );
  });

  it("holds at most the limit in every 60 s of its own time, whichever way the clock jumps", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        play(steps, { jump: true, restart: false }, (added) => {
          expect(fullest(added, (each) => each.newestMs)).toBeLessThanOrEqual(LIMIT);
        });
      }),
      { numRuns: 400 },
    );
  });

  it("counts exactly the buckets [b, b + 250) until b + 60,250, neither longer nor shorter", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(gapMs, fc.nat({ max: 5 })), { maxLength: 40 }), gapMs, (adds, afterMs) => {
        const window = new CountingWindow();
        const counted: Bucket[] = [];
        let nowMs = START_MS + 1;
        for (const [eachGapMs, count] of adds) {
          nowMs += eachGapMs;
          const bucketMs = window.add(count, nowMs);
          expect(bucketMs).toBe(Math.floor(nowMs / BUCKET_MS) * BUCKET_MS);
          counted.push({ bucketMs, count });
        }
        const atMs = nowMs + afterMs;
        const left = counted.filter(({ bucketMs }) => atMs < bucketMs + BUCKET_MS + WINDOW_MS);
        expect(window.total(atMs)).toBe(left.reduce((sum, { count }) => sum + count, 0));
      }),
    );
  });

  it("takes a clock that goes back for one that stands still, also after a restart", () => {
    const window = new CountingWindow();
    window.total(START_MS + 10_000);
    expect(window.add(1, START_MS)).toBe(START_MS + 10_000);
    const restored = CountingWindow.restore(window.buckets());
    expect(restored.add(1, START_MS)).toBe(START_MS + 10_000);
    expect(restored.total(START_MS + 70_249)).toBe(2);
    expect(restored.total(START_MS + 70_250)).toBe(0);
    expect(restored.total(START_MS)).toBe(0);
  });

  it("tells the truth in retryAfterMs: not one millisecond earlier, not one later", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(gapMs, fc.integer({ min: 1, max: 5 })), { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: LIMIT }),
        fc.nat({ max: 30_000 }),
        (adds, cost, backMs) => {
          const window = new CountingWindow();
          let nowMs = START_MS;
          for (const [eachGapMs, count] of adds) {
            nowMs += eachGapMs;
            window.add(count, nowMs);
          }
          const askedMs = nowMs - backMs; // also by a clock that went back
          const fitsAt = (atMs: number) => CountingWindow.restore(window.buckets()).total(atMs) + cost <= LIMIT;
          const waitMs = window.retryAfterMs(cost, LIMIT, askedMs);
          expect(fitsAt(askedMs + waitMs)).toBe(true);
          if (waitMs > 0) expect(fitsAt(askedMs + waitMs - 1)).toBe(false);
        },
      ),
    );
  });

  it("refuses to promise a time for what never fits", () => {
    expect(() => new CountingWindow().retryAfterMs(11, LIMIT, START_MS)).toThrow(RangeError);
  });

  it("refuses costs and corrections that are no whole numbers, before they change anything", () => {
    const window = new CountingWindow();
    for (const cost of [Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY]) {
      expect(() => window.add(cost, START_MS)).toThrow(RangeError);
    }
    const bucketMs = window.add(3, START_MS);
    expect(() => window.correct(bucketMs, Number.NaN)).toThrow(RangeError);
    expect(window.total(START_MS)).toBe(3);
  });

  it("corrects in the bucket that counted, never below zero, and not once it has left", () => {
    const window = new CountingWindow();
    const bucketMs = window.add(5, START_MS);
    window.add(2, START_MS + 30_000);
    window.correct(bucketMs, -3);
    expect(window.total(START_MS + 30_000)).toBe(4);
    expect(window.total(START_MS + WINDOW_MS + BUCKET_MS)).toBe(2);
    window.correct(bucketMs, 9);
    window.correct(START_MS + 30_000, -9);
    expect(window.total(START_MS + WINDOW_MS + BUCKET_MS)).toBe(0);
    window.correct(START_MS + 30_000, 1);
    expect(window.total(START_MS + WINDOW_MS + BUCKET_MS)).toBe(1);
  });

  it("is empty exactly when resetMs says so, and does not wait for what was corrected to nothing", () => {
    const window = new CountingWindow();
    expect(window.resetMs(START_MS)).toBe(0);
    window.add(1, START_MS);
    const corrected = window.add(4, START_MS + 1_000);
    window.correct(corrected, -4);
    const resetMs = window.resetMs(START_MS + 1_000);
    expect(window.total(START_MS + 1_000 + resetMs - 1)).toBe(1);
    expect(window.total(START_MS + 1_000 + resetMs)).toBe(0);
  });

  it("reports every bucket that changed or left, once", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const stored = new Stored();
        const window = new CountingWindow();
        let nowMs = START_MS;
        const buckets: number[] = [];
        for (const each of steps) {
          if ("gapMs" in each) nowMs += each.gapMs;
          if (each.do === "add") buckets.push(window.add(each.cost, nowMs));
          else if (each.do === "correct") window.correct(buckets.at(-1 - each.which) ?? 0, -each.delta);
          else if (each.do === "back") window.total(nowMs);
          else stored.save(window);
        }
        stored.save(window);
        expect([...stored.rows]).toEqual(window.buckets().map(({ bucketMs, count }) => [bucketMs, count]));
        expect(window.takeDirty()).toEqual({ upsert: [], remove: [] });
      }),
    );
  });
});
