import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ServiceTier } from "../../../src/core/records";
import { AGE_MS, type Waiter, WaitingLine } from "../../../src/core/waiting-line";

/*
 * Bugs put in on purpose, each of which failed here: classes without ageing, ageing the wrong way, last come first
 * served on ties, a pop that ignores patience, an expiry one millisecond early, a removal that forgets the patience,
 * an estimate that counts equals as behind.
 */
const RANKS: Readonly<Record<ServiceTier, number>> = { priority: 0, default: 1, flex: 2 };
const tier = fc.constantFrom<ServiceTier>("priority", "default", "flex");
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("push" as const),
      tier,
      gapMs: fc.nat({ max: 6_000 }),
      patienceMs: fc.nat({ max: 30_000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("pop" as const), gapMs: fc.nat({ max: 3_000 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), which: fc.nat({ max: 40 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("expire" as const), gapMs: fc.nat({ max: 9_000 }) }) },
);

const placeOf = (waiter: Waiter) => waiter.enqueuedAtMs + RANKS[waiter.class] * 5_000;
/** Array.prototype.sort is stable, so ties stay in order of arrival. */
const inOrder = (waiters: readonly Waiter[]) => [...waiters].sort((a, b) => placeOf(a) - placeOf(b));

const TURNS = { class: "default", enqueuedAtMs: 0, giveUpAtMs: Number.MAX_SAFE_INTEGER } as const;

describe("end users in a waiting line", () => {
  const served = (line: WaitingLine<Waiter>) => {
    const ids: string[] = [];
    for (let next = line.pop(0); next; next = line.pop(0)) ids.push(next.id);
    return ids;
  };

  it("take turns, however many requests one of them has sent before the others", () => {
    const line = new WaitingLine<Waiter>();
    for (let index = 0; index < 4; index++) line.push({ ...TURNS, id: `ann${index}`, party: "ann" });
    for (let index = 0; index < 2; index++) line.push({ ...TURNS, id: `ben${index}`, party: "ben" });
    expect(served(line)).toEqual(["ann0", "ben0", "ann1", "ben1", "ann2", "ann3"]);
  });

  it("take turns inside their class, and keys take none", () => {
    const line = new WaitingLine<Waiter>();
    for (let index = 0; index < 3; index++) line.push({ ...TURNS, id: `key${index}`, party: null });
    line.push({ ...TURNS, id: "ann0", party: "ann" });
    line.push({ ...TURNS, id: "ann1", party: "ann", class: "priority" });
    expect(served(line)).toEqual(["ann1", "key0", "key1", "key2", "ann0"]);
  });

  it("begin anew when nothing of theirs waits any more", () => {
    const line = new WaitingLine<Waiter>();
    for (let index = 0; index < 5; index++) line.push({ ...TURNS, id: `ann${index}`, party: "ann" });
    served(line);
    line.push({ ...TURNS, id: "ann", party: "ann" });
    line.push({ ...TURNS, id: "ben", party: "ben" });
    expect(served(line)).toEqual(["ann", "ben"]);
  });

  it("are told a place that holds: as many go before as were said", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("ann", "ben", null), { maxLength: 30 }), (parties) => {
        const line = new WaitingLine<Waiter>();
        for (const [index, party] of parties.entries()) {
          const place = line.ahead({ class: "default", party }, 0);
          line.push({ ...TURNS, id: `w${index}`, party });
          expect(line.position(`w${index}`)).toBe(place);
        }
      }),
    );
  });
});

describe("waiting line", () => {
  it("goes by arrival plus 5 s per class below priority, first come first served on ties, like a sorted list", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const line = new WaitingLine<Waiter>();
        let model: Waiter[] = [];
        let nowMs = 1_000_000;
        steps.forEach((each, index) => {
          if (each.do !== "remove") nowMs += each.gapMs;
          if (each.do === "push") {
            const giveUpAtMs = nowMs + each.patienceMs;
            const waiter = { id: `w${index}`, class: each.tier, enqueuedAtMs: nowMs, giveUpAtMs };
            const ahead = line.ahead({ class: each.tier }, nowMs);
            line.push(waiter);
            model.push(waiter);
            expect(inOrder(model).indexOf(waiter)).toBe(ahead);
          } else if (each.do === "pop") {
            const next = inOrder(model).find((waiter) => waiter.giveUpAtMs > nowMs);
            expect(line.pop(nowMs)).toEqual(next);
            model = model.filter((waiter) => waiter !== next);
          } else if (each.do === "remove") {
            const gone = model.find((waiter) => waiter.id === `w${each.which}`);
            expect(line.remove(`w${each.which}`)).toEqual(gone);
            model = model.filter((waiter) => waiter !== gone);
          } else {
            const gone = model.filter((waiter) => waiter.giveUpAtMs <= nowMs);
            expect(new Set(line.expire(nowMs))).toEqual(new Set(gone));
            model = model.filter((waiter) => !gone.includes(waiter));
          }
          expect(line.size).toBe(model.length);
          expect(line.waiters()).toEqual(inOrder(model));
          expect(line.waiters().map((waiter) => line.position(waiter.id))).toEqual(model.map((_, place) => place));
          const giveUps = model.map((waiter) => waiter.giveUpAtMs);
          expect(line.nextGiveUpMs()).toBe(giveUps.length === 0 ? undefined : Math.min(...giveUps));
        });
      }),
      { numRuns: 300 },
    );
  });

  it("starves nobody: whoever came more than two ages earlier goes first, whatever its class", () => {
    fc.assert(
      fc.property(tier, tier, fc.integer({ min: 1, max: 100_000 }), (early, late, extraMs) => {
        const line = new WaitingLine<Waiter>();
        const lateMs = 2 * AGE_MS + extraMs;
        line.push({ id: "late", class: late, enqueuedAtMs: lateMs, giveUpAtMs: Number.POSITIVE_INFINITY });
        line.push({ id: "early", class: early, enqueuedAtMs: 0, giveUpAtMs: Number.POSITIVE_INFINITY });
        expect(line.pop(lateMs)?.id).toBe("early");
      }),
    );
  });

  it("ends a wait at its deadline, not a millisecond before", () => {
    const line = new WaitingLine<Waiter>();
    const waiter: Waiter = { id: "brief", class: "default", enqueuedAtMs: 0, giveUpAtMs: 100 };
    line.push(waiter);
    expect(line.expire(99)).toEqual([]);
    expect(line.pop(100)).toBeUndefined();
    expect(line.expire(100)).toEqual([waiter]);
    expect(line.size).toBe(0);
  });

  it("does not let one id wait twice", () => {
    const line = new WaitingLine<Waiter>();
    const waiter: Waiter = { id: "once", class: "default", enqueuedAtMs: 0, giveUpAtMs: 1 };
    line.push(waiter);
    expect(() => line.push(waiter)).toThrow(RangeError);
    expect(line.size).toBe(1);
  });

  it("keeps place and patience when what is remembered of a waiter changes", () => {
    const line = new WaitingLine<Waiter & { readonly note: string }>();
    const a = { id: "a", class: "default", enqueuedAtMs: 0, giveUpAtMs: 9, note: "old" } as const;
    const b = { id: "b", class: "default", enqueuedAtMs: 0, giveUpAtMs: 5, note: "old" } as const;
    line.push(a);
    line.push(b);
    line.update(({ id }) => ({ note: `new ${id}` }));
    expect(line.waiters()).toEqual([
      { ...a, note: "new a" },
      { ...b, note: "new b" },
    ]);
    expect(line.nextGiveUpMs()).toBe(5);
  });
});
