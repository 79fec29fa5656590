import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FairShare, type FairSlot } from "../../../src/core/fair-share";

const FOREVER = Number.MAX_SAFE_INTEGER;
const OPTIONS = { slots: 3, queueLength: 1_000, slotMs: 60_000 };
const asked = (
  id: string,
  tenant: string,
  more: { key?: string; weight?: number; inputTokens?: number; giveUpAtMs?: number } = {},
) => ({
  ...{ id, tenant, key: "key", weight: 1, inputTokens: 10, giveUpAtMs: FOREVER },
  ...more,
});

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("ask" as const),
      tenant: fc.constantFrom("a", "b", "c", "d"),
      key: fc.constantFrom("k", "l"),
      weight: fc.constantFrom(1, 2, 4),
      inputTokens: fc.nat(100),
      patienceMs: fc.constantFrom(0, 500, FOREVER),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("finish" as const),
      which: fc.nat(9),
      outputTokens: fc.nat(200),
      inputTokens: fc.nat(100),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("progress" as const), which: fc.nat(9), outputTokens: fc.nat(200) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), which: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(1, 400, 61_000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resize" as const), slots: fc.integer({ min: 0, max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);

/** Serves what waits one after another, each call taking so many output tokens. @returns tenants in order of service */
function serveAll(share: FairShare, running: FairSlot[], outputTokens: number, count: number): string[] {
  const order: string[] = [];
  for (let served = 0; served < count; served++) {
    const slot = running.shift();
    if (!slot) break;
    share.finish(slot.id, { inputTokens: slot.inputTokens, outputTokens }, served);
    for (const granted of share.grantWaiting(served)) {
      running.push(granted);
      order.push(granted.tenant);
    }
  }
  return order;
}

describe("fair share", () => {
  it("gives every slot and no more, leaves none free while anybody waits, and answers everybody once", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
        let share = new FairShare(OPTIONS);
        let { slots } = OPTIONS;
        let [nowMs, made] = [0, 0];
        let running: string[] = [];
        let waiting: string[] = [];
        const stored = {
          counters: new Map<string, { tenant: string; key: string | null; served: number }[]>(),
          slots: new Map<string, FairSlot>(),
        };
        const grant = () => {
          for (const { id } of share.grantWaiting(nowMs)) {
            expect(waiting).toContain(id);
            waiting = waiting.filter((other) => other !== id);
            running.push(id);
          }
        };
        for (const each of steps) {
          if (each.do === "wait") {
            nowMs += each.ms;
            const { freed, gaveUp } = share.expire(nowMs);
            running = running.filter((id) => !freed.some((slot) => slot.id === id));
            waiting = waiting.filter((id) => !gaveUp.includes(id));
          } else if (each.do === "ask") {
            const id = `r${made++}`;
            const giveUpAtMs = each.patienceMs === FOREVER ? FOREVER : nowMs + each.patienceMs;
            const request = asked(id, each.tenant, {
              key: each.key,
              weight: each.weight,
              inputTokens: each.inputTokens,
              giveUpAtMs,
            });
            const { verdict } = share.ask(request, nowMs);
            expect(share.ask(request, nowMs).verdict, "the same answer again").toBe(
              verdict === "refused" ? "refused" : verdict,
            );
            if (verdict === "granted") running.push(id);
            if (verdict === "waiting") waiting.push(id);
            if (verdict === "refused") expect(each.patienceMs).toBe(0);
          } else if (each.do === "finish") {
            const [id] = running.splice(each.which % Math.max(1, running.length), 1);
            if (id) {
              expect(share.finish(id, each, nowMs)).toBe(true);
              expect(share.finish(id, each, nowMs)).toBe(false);
            }
          } else if (each.do === "progress") {
            const id = running.at(each.which % Math.max(1, running.length));
            if (id) expect(share.progress(id, each.outputTokens, nowMs)).toBe(true);
          } else if (each.do === "leave") {
            const [id] = waiting.splice(each.which % Math.max(1, waiting.length), 1);
            if (id) expect([share.leave(id), share.leave(id)]).toEqual([true, false]);
          } else if (each.do === "resize") {
            slots = each.slots;
            share.resize(slots);
          } else {
            share = FairShare.restore(
              { counters: [...stored.counters.values()].flat(), slots: [...stored.slots.values()] },
              { ...OPTIONS, slots },
            );
            waiting = []; // their callers are gone
          }
          grant();
          const { tenants, slots: dirty } = share.takeDirty();
          for (const { tenant, counters } of tenants) stored.counters.set(tenant, counters);
          for (const slot of dirty.upsert) stored.slots.set(slot.id, slot);
          for (const id of dirty.remove) stored.slots.delete(id);
          const { inFlight, queueDepth } = share.metrics(nowMs);
          expect([inFlight, queueDepth]).toEqual([running.length, waiting.length]);
          expect([...stored.slots.keys()].sort()).toEqual([...running].sort());
          if (waiting.length > 0) expect(inFlight, "work-conserving").toBeGreaterThanOrEqual(slots);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("keeps the weighted service of two who always have something waiting within one call of each other", () => {
    const sizes = fc.array(
      fc.record({ tenant: fc.constantFrom("a", "b"), input: fc.integer({ min: 1, max: 100 }), output: fc.nat(100) }),
      { minLength: 60, maxLength: 120 },
    );
    fc.assert(
      fc.property(sizes, fc.constantFrom(1, 2, 5), (calls, weight) => {
        const share = new FairShare({ ...OPTIONS, slots: 1 });
        const outputs = new Map<string, number>();
        const backlog = { a: 0, b: 0 };
        share.ask(asked("first", "somebody"), 0);
        for (const [index, { tenant, input, output }] of calls.entries()) {
          share.ask(asked(`r${index}`, tenant, { inputTokens: input, weight: tenant === "b" ? weight : 1 }), 0);
          outputs.set(`r${index}`, output);
          backlog[tenant]++;
        }
        let running: FairSlot | undefined;
        share.finish("first", { inputTokens: 10, outputTokens: 0 }, 0);
        const start = { a: share.servedOf("a"), b: share.servedOf("b") };
        for (;;) {
          [running] = share.grantWaiting(0);
          if (!running) break;
          backlog[running.tenant as "a" | "b"]--;
          if (backlog.a === 0 || backlog.b === 0) break; // one of them has nothing waiting any more
          share.finish(running.id, { inputTokens: running.inputTokens, outputTokens: outputs.get(running.id) ?? 0 }, 0);
          const difference = share.servedOf("a") - start.a - (share.servedOf("b") - start.b);
          // A call's largest cost: 100 input and 100 output tokens, twice counted.
          expect(Math.abs(difference)).toBeLessThanOrEqual(300 + Math.abs(start.a - start.b));
        }
      }),
    );
  });

  it("gives no credit for having been away", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    share.ask(asked("a", "busy"), 0);
    for (let index = 0; index < 50; index++) share.ask(asked(`busy${index}`, "busy"), 0);
    share.finish("a", { inputTokens: 10, outputTokens: 100 }, 0);
    let running = share.grantWaiting(0);
    for (let served = 0; served < 30; served++) {
      share.finish(running[0]?.id ?? "", { inputTokens: 10, outputTokens: 100 }, 0);
      running = share.grantWaiting(0);
    }
    for (let index = 0; index < 20; index++) share.ask(asked(`back${index}`, "back"), 0);
    const order = serveAll(share, running, 100, 12);
    // In turns from now on, not twenty in a row for the time before.
    expect(order.filter((tenant) => tenant === "back").length).toBeLessThanOrEqual(7);
    expect(order.filter((tenant) => tenant === "back").length).toBeGreaterThanOrEqual(5);
  });

  it("serves the calls of one key in the order in which they came", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    share.ask(asked("running", "a"), 0);
    for (let index = 0; index < 5; index++) share.ask(asked(`r${index}`, "a"), index);
    const order: string[] = [];
    let last = "running";
    for (let served = 0; served < 5; served++) {
      share.finish(last, { inputTokens: 10, outputTokens: 5 }, 10);
      last = share.grantWaiting(10)[0]?.id ?? "";
      order.push(last);
    }
    expect(order).toEqual(["r0", "r1", "r2", "r3", "r4"]);
  });

  it("charges what was really taken, however much was reserved", () => {
    const share = new FairShare(OPTIONS);
    share.ask(asked("a", "tenant", { inputTokens: 1_000, weight: 2 }), 0);
    expect(share.servedOf("tenant")).toBe(500);
    share.progress("a", 10, 1);
    expect(share.servedOf("tenant")).toBe(510);
    share.finish("a", { inputTokens: 40, outputTokens: 30 }, 2);
    expect(share.servedOf("tenant")).toBe(50);
  });

  it("refuses a line that is full and a patience that is over, with an estimate of the wait", () => {
    const share = new FairShare({ slots: 1, queueLength: 1, slotMs: 1_000 });
    share.ask(asked("a", "a"), 0);
    expect(share.ask(asked("b", "b", { giveUpAtMs: 0 }), 0)).toMatchObject({
      verdict: "refused",
      reason: "queue_timeout",
    });
    share.ask(asked("c", "c"), 0);
    expect(share.ask(asked("d", "d"), 0)).toMatchObject({
      verdict: "refused",
      reason: "queue_full",
      retryAfterMs: 4_000,
    });
    expect(() => share.ask(asked("e", "e", { weight: 0 }), 0)).toThrow(RangeError);
  });

  it("forgets tenants that say nothing any more, so memory follows those who are there", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    const kept = new Map<string, number>();
    for (let index = 0; index < 2_000; index++) {
      share.ask(asked(`r${index}`, `tenant${index}`), index);
      share.finish(`r${index}`, { inputTokens: 10, outputTokens: 10 }, index);
      for (const { tenant, counters } of share.takeDirty().tenants) {
        if (counters.length > 0) kept.set(tenant, counters.length);
        else kept.delete(tenant);
      }
    }
    expect(kept.size).toBeLessThan(300);
  });
});
