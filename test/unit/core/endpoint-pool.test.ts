import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CallOutcome, type Endpoint, EndpointPool, type StoredBreaker } from "../../../src/core/endpoint-pool";

const endpoint = (id: string, maxInFlight = 2, addedAtMs = 0): Endpoint => ({
  ...{ id, url: `http://${id}`, maxInFlight, addedAtMs },
  isLeaving: false,
});
function pool(...endpoints: Endpoint[]): EndpointPool {
  const made = new EndpointPool();
  for (const each of endpoints) made.add(each);
  return made;
}
const othersThan = (on: EndpointPool, id: string) =>
  on
    .list(0)
    .map((each) => each.id)
    .filter((each) => each !== id);
const stateOf = (on: EndpointPool, id: string, nowMs: number) => on.list(nowMs).find((each) => each.id === id)?.state;
/** Calls on one endpoint, one after another, that end like this. */
function calls(on: EndpointPool, id: string, outcomes: readonly CallOutcome[], nowMs: number): void {
  outcomes.forEach((outcome, index) => {
    if (on.choose(`call${index}`, othersThan(on, id), nowMs)?.id !== id) throw new Error(`${id} takes no call`);
    on.done(`call${index}`, id, outcome, nowMs);
  });
}
const failures = (count: number): CallOutcome[] => Array.from({ length: count }, () => "failed");
const halfFail = (count: number): CallOutcome[] =>
  Array.from({ length: count }, (_, index) => (index % 2 === 0 ? "failed" : "ended"));

/** What a database would hold: upserted and removed, read back by id. */
class Store {
  readonly #rows = new Map<string, string>();

  save(from: EndpointPool): void {
    const { upsert, remove } = from.takeDirty();
    for (const row of upsert) this.#rows.set(row.endpoint.id, JSON.stringify(row));
    for (const id of remove) this.#rows.delete(id);
  }

  restore(
    running: readonly { readonly callId: string; readonly endpointId: string; readonly sequences?: number }[],
  ): EndpointPool {
    const rows = [...this.#rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => JSON.parse(row));
    return EndpointPool.restore(rows as { endpoint: Endpoint; breaker: StoredBreaker }[], running);
  }
}

describe("calls of several sequences", () => {
  it("take an endpoint with room for all of them, else as many as the roomiest has, and never more than fit", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 });
    const step = fc.record({
      sequences: fc.constantFrom(1, 2, 3, 16),
      ends: fc.option(fc.nat(20), { nil: undefined }),
    });
    fc.assert(
      fc.property(sizes, fc.array(step, { maxLength: 60 }), (maxima, steps) => {
        const on = pool(...maxima.map((max, at) => endpoint(`e${at}`, max, at)));
        const inFlight = new Map<string, number>();
        const running: { callId: string; at: string; sequences: number }[] = [];
        for (const [index, { sequences, ends }] of steps.entries()) {
          const room = new Map(on.list(0).map(({ id, maxInFlight }) => [id, maxInFlight - (inFlight.get(id) ?? 0)]));
          const most = Math.max(...room.values());
          expect(on.widest(0)).toBe(most);
          const chosen = on.choose(`c${index}`, [], 0, sequences);
          const got = chosen ? on.sequencesOf(`c${index}`, chosen.id) : 0;
          expect(got).toBe(Math.min(sequences, most));
          if (chosen) {
            inFlight.set(chosen.id, (inFlight.get(chosen.id) ?? 0) + got);
            running.push({ callId: `c${index}`, at: chosen.id, sequences: got });
          }
          const [ended] = ends === undefined ? [] : running.splice(ends % Math.max(1, running.length), 1);
          if (ended) {
            on.done(ended.callId, ended.at, "ended", 0);
            inFlight.set(ended.at, (inFlight.get(ended.at) ?? 0) - ended.sequences);
          }
          for (const { id, inFlight: listed } of on.list(0)) expect(listed).toBe(inFlight.get(id) ?? 0);
          expect(on.capacity(0)).toBe(maxima.reduce((sum, max) => sum + max, 0));
        }
        const store = new Store();
        for (const [at, max] of maxima.entries()) on.add(endpoint(`e${at}`, max, at));
        store.save(on);
        const again = store.restore(
          running.map(({ callId, at, sequences }) => ({ callId, endpointId: at, sequences })),
        );
        expect(again.list(0)).toEqual(on.list(0));
      }),
    );
  });
});

const IDS = ["a", "b", "c"];
const walk = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant("choose" as const), except: fc.subarray(IDS) }) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant("done" as const),
        which: fc.nat(9),
        outcome: fc.constantFrom<CallOutcome>("ended", "failed", "failed", "failed", "busy"),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(1, 1_000, 5_000) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), id: fc.constantFrom(...IDS) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant("add" as const), id: fc.constantFrom(...IDS), max: fc.nat(3) }),
    },
  ),
  { minLength: 20, maxLength: 150, size: "max" },
);
type Step = (typeof walk extends fc.Arbitrary<infer Steps> ? Steps : never) extends (infer One)[] ? One : never;

/** A pool, and beside it what is known without asking it: what runs where, and which endpoint is being tried. */
class World {
  pool = pool(endpoint("a", 2, 2), endpoint("b", 3, 1), endpoint("c", 1, 1));
  readonly running: { callId: string; endpointId: string }[] = [];
  readonly trials = new Map<string, string>();
  nowMs = 0;
  #made = 0;

  take(step: Step): unknown {
    switch (step.do) {
      case "choose":
        return this.choose(step.except);
      case "done":
        return this.done(step.which, step.outcome);
      case "wait":
        this.nowMs += step.ms;
        return this.nowMs;
      case "remove":
        return this.pool.remove(step.id);
      case "add":
        return this.pool.add(endpoint(step.id, 1 + step.max, this.nowMs));
    }
  }

  /** Endpoints that may be called, with their room and load, reckoned anew. */
  open(): { id: string; room: number; load: number }[] {
    return this.pool.list(this.nowMs).flatMap(({ id, state, maxInFlight }) => {
      const inFlight = this.running.filter(({ endpointId }) => endpointId === id).length;
      const free = Math.max(0, maxInFlight - inFlight);
      const room = state === "closed" ? free : state === "half_open" && !this.trials.has(id) ? Math.min(1, free) : 0;
      return room > 0 ? [{ id, room, load: inFlight / maxInFlight }] : [];
    });
  }

  choose(except: readonly string[]): Endpoint | undefined {
    const callId = `c${this.#made++}`;
    const states = new Map(this.pool.list(this.nowMs).map(({ id, state }) => [id, state]));
    const chosen = this.pool.choose(callId, except, this.nowMs);
    if (!chosen) return undefined;
    this.running.push({ callId, endpointId: chosen.id });
    if (states.get(chosen.id) === "half_open") this.trials.set(chosen.id, callId);
    return chosen;
  }

  done(which: number, outcome: CallOutcome) {
    const [ended] = this.running.splice(which % Math.max(1, this.running.length), 1);
    if (!ended) return undefined;
    const isTrial = this.trials.get(ended.endpointId) === ended.callId;
    if (isTrial) this.trials.delete(ended.endpointId);
    this.pool.done(ended.callId, ended.endpointId, outcome, this.nowMs);
    return { ...ended, isTrial };
  }
}
/** @param each is told what is about to be done, and what came of it */
function walkThrough(steps: readonly Step[], each: (world: World, step: Step, take: () => unknown) => void): void {
  const world = new World();
  for (const step of steps) each(world, step, () => world.take(step));
}

describe("the endpoints of a model", () => {
  it("are chosen by the room they have in proportion", () => {
    const two = pool(endpoint("small", 1), endpoint("large", 4));
    const chosen = ["a", "b", "c", "d", "e", "f"].map((call) => two.choose(call, [], 0)?.id);
    expect(chosen.filter((id) => id === "small")).toHaveLength(1);
    expect(chosen.filter((id) => id === "large")).toHaveLength(4);
    expect(chosen.at(-1)).toBeUndefined();
  });

  it("carry the same load in proportion, but for one call, while all are well", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(sizes, fc.nat(100), (maxima, count) => {
        const all = pool(...maxima.map((max, index) => endpoint(`e${index}`, max)));
        for (let call = 0; call < count; call++) all.choose(`c${call}`, [], 0);
        const loads = all.list(0).map(({ inFlight, maxInFlight }) => ({ inFlight, maxInFlight }));
        const least = Math.min(...loads.map(({ inFlight, maxInFlight }) => inFlight / maxInFlight));
        for (const { inFlight, maxInFlight } of loads) expect((inFlight - 1) / maxInFlight).toBeLessThanOrEqual(least);
        const total = maxima.reduce((sum, max) => sum + max, 0);
        expect(loads.reduce((sum, { inFlight }) => sum + inFlight, 0)).toBe(Math.min(count, total));
      }),
    );
  });

  it("are asked in the order in which they joined when they are equally busy, then by id", () => {
    const three = pool(endpoint("c", 1, 5), endpoint("a", 1, 9), endpoint("b", 1, 5));
    expect(three.list(0).map(({ id }) => id)).toEqual(["b", "c", "a"]);
    expect(["x", "y", "z"].map((call) => three.choose(call, [], 0)?.id)).toEqual(["b", "c", "a"]);
  });

  it("get what they have room for, never more, never one that was excepted: the least busy, wherever there is one", () => {
    fc.assert(
      fc.property(walk, (steps) =>
        walkThrough(steps, (world, step, take) => {
          const open = world.open();
          expect(world.pool.capacity(world.nowMs)).toBe(
            open.reduce((sum, { room }) => sum + room, world.running.length),
          );
          const reply = take();
          if (step.do === "choose") {
            const allowed = open.filter(({ id }) => !step.except.includes(id));
            const least = Math.min(...allowed.map(({ load }) => load));
            const best = allowed.filter(({ load }) => load === least).map(({ id }) => id);
            if (best.length === 0) expect(reply).toBeUndefined();
            else expect(best).toContain((reply as Endpoint | undefined)?.id);
          }
          for (const { id, inFlight } of world.pool.list(world.nowMs)) {
            expect(inFlight).toBe(world.running.filter(({ endpointId }) => endpointId === id).length);
          }
        }),
      ),
    );
  });

  it("count the end of a call once, however often it is told", () => {
    fc.assert(
      fc.property(walk, fc.constantFrom<CallOutcome>("ended", "failed", "busy"), (steps, again) =>
        walkThrough(steps, (world, step, take) => {
          const reply = take() as ReturnType<World["done"]>;
          if (step.do !== "done" || !reply) return;
          const once = world.pool.list(world.nowMs);
          world.pool.takeDirty();
          world.pool.done(reply.callId, reply.endpointId, again, world.nowMs);
          expect(world.pool.list(world.nowMs)).toEqual(once);
          expect(world.pool.takeDirty()).toEqual({ upsert: [], remove: [] });
        }),
      ),
    );
  });

  it("give a call that asks again another endpoint, or none, so that its end frees one place and no more", () => {
    const one = pool(endpoint("a", 3));
    expect([one.choose("x", [], 0)?.id, one.choose("x", [], 0)]).toEqual(["a", undefined]);
    expect(one.capacity(0)).toBe(3);
  });
});

describe("the circuit breaker of an endpoint", () => {
  it("opens after five failures in a row, then lets one call try, for longer each time that one fails", () => {
    const one = pool(endpoint("a"));
    calls(one, "a", failures(4), 0);
    expect(one.list(0)[0]?.state).toBe("closed");
    calls(one, "a", failures(1), 0);
    expect(one.list(0)[0]).toMatchObject({ state: "open", failures: 5 });
    expect([one.choose("x", [], 4_999), one.capacity(4_999)]).toEqual([undefined, 0]);
    expect(one.nextDueMs(0)).toBe(5_000);
    expect(one.list(5_000)[0]?.state).toBe("half_open");
    expect(one.choose("trial", [], 5_000)?.id).toBe("a");
    expect(one.choose("second", [], 5_000)).toBeUndefined();
    one.done("trial", "a", "failed", 5_100);
    const waits: number[] = [];
    for (let nowMs = 5_100, call = 0; call < 5; call++) {
      const dueMs = one.nextDueMs(nowMs) ?? nowMs;
      waits.push(dueMs - nowMs);
      nowMs = dueMs;
      one.choose(`t${call}`, [], nowMs);
      one.done(`t${call}`, "a", "failed", nowMs);
    }
    expect(waits).toEqual([10_000, 20_000, 40_000, 60_000, 60_000]);
  });

  it("opens when half of twenty calls have failed, though never five in a row", () => {
    const one = pool(endpoint("a"));
    calls(one, "a", halfFail(20), 0);
    expect(stateOf(one, "a", 0)).toBe("closed"); // by a success nothing opens
    calls(one, "a", failures(1), 0);
    expect(stateOf(one, "a", 0)).toBe("open");
  });

  it("stays closed while fewer than half fail, or while calls are few", () => {
    const [few, often] = [pool(endpoint("a")), pool(endpoint("a"))];
    calls(few, "a", halfFail(19), 0);
    for (let round = 0; round < 30; round++) calls(often, "a", ["failed", "ended", "ended"], 0);
    expect([stateOf(few, "a", 0), stateOf(often, "a", 0)]).toEqual(["closed", "closed"]);
  });

  it("opens for a reason and always for one: five in a row, or half of twenty since a failure of the last 30 s", () => {
    const calls = fc.record({
      outcome: fc.constantFrom<CallOutcome>("ended", "failed"),
      afterMs: fc.constantFrom(0, 0, 500, 3_000),
    });
    let opened = 0;
    fc.assert(
      fc.property(fc.array(calls, { minLength: 20, maxLength: 80, size: "max" }), (ends) => {
        const one = pool(endpoint("a", 1));
        const log: { atMs: number; isFailed: boolean }[] = [];
        let nowMs = 0;
        for (const { outcome, afterMs } of ends) {
          nowMs += afterMs;
          one.choose("x", [], nowMs);
          one.done("x", "a", outcome, nowMs);
          log.push({ atMs: nowMs, isFailed: outcome === "failed" });
          const inARow = log.length >= 5 && log.slice(-5).every(({ isFailed }) => isFailed);
          const badShare = log.some((from, index) => {
            const since = log.slice(index);
            const failed = since.filter(({ isFailed }) => isFailed).length;
            return nowMs - from.atMs < 30_000 && since.length >= 20 && failed >= since.length / 2;
          });
          const isOpen = stateOf(one, "a", nowMs) === "open";
          if (inARow) expect(isOpen).toBe(true);
          if (isOpen) expect(inARow || badShare).toBe(true);
          if (isOpen && !inARow) opened++;
          if (isOpen) return;
        }
      }),
      { numRuns: 400, seed: 1 },
    );
    expect(opened, "opened by the share alone").toBeGreaterThan(0);
  });

  it("forgets failures after half a minute", () => {
    const one = pool(endpoint("a"));
    calls(one, "a", halfFail(20), 0);
    calls(one, "a", halfFail(20), 30_000);
    expect(stateOf(one, "a", 30_000)).toBe("closed");
  });

  it("closes after one trial that ended, and begins to count anew", () => {
    const one = pool(endpoint("a"));
    calls(one, "a", [...halfFail(20), "failed"], 0);
    calls(one, "a", ["ended"], 5_000);
    expect(one.list(5_000)[0]).toMatchObject({ state: "closed", failures: 0 });
    calls(one, "a", failures(4), 5_200);
    expect(stateOf(one, "a", 5_200)).toBe("closed");
    calls(one, "a", failures(1), 5_300);
    expect(one.nextDueMs(5_300)).toBe(10_300);
  });

  it("is moved by its trial alone, not by calls that began before it opened, well or not", () => {
    const one = pool(endpoint("a", 10));
    for (const call of ["early", "ends", "fails"]) one.choose(call, [], 0);
    calls(one, "a", failures(5), 0);
    one.done("early", "a", "failed", 1_000);
    expect([one.nextDueMs(1_000), one.nextDueMs(5_000)]).toEqual([5_000, undefined]);
    expect(one.choose("trial", [], 5_000)?.id).toBe("a"); // though two still run there
    one.done("fails", "a", "failed", 5_001);
    one.done("ends", "a", "ended", 5_002);
    expect(one.list(5_002)[0]).toMatchObject({ state: "half_open", failures: 5 });
    expect(one.choose("second", [], 5_002)).toBeUndefined();
    one.done("trial", "a", "failed", 5_003);
    expect(one.nextDueMs(5_003)).toBe(15_003);
  });

  it("lets no call try while those from before take all the room", () => {
    const one = pool(endpoint("a", 2));
    one.choose("runs", [], 0);
    calls(one, "a", failures(5), 0);
    one.add(endpoint("a", 1));
    expect([one.choose("x", [], 5_000), one.capacity(5_000)]).toEqual([undefined, 1]);
    one.done("runs", "a", "ended", 5_000);
    expect(one.choose("x", [], 5_000)?.id).toBe("a");
  });

  it("costs a model whose endpoints always fail one call for each time an endpoint is tried, and never gives one up", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 200 }), (waits) => {
        const two = pool(endpoint("a", 1), endpoint("b", 7));
        for (const id of ["a", "b"]) calls(two, id, failures(5), 0);
        const opened = new Map(["a", "b"].map((id) => [id, { untilMs: 5_000, forMs: 5_000 }]));
        let nowMs = 0;
        for (const waitMs of waits) {
          nowMs += waitMs;
          const due = [...opened].filter(([, { untilMs }]) => untilMs <= nowMs).map(([id]) => id);
          const tried: string[] = [];
          for (let next = two.choose("x", tried, nowMs); next; next = two.choose("x", tried, nowMs)) {
            two.done("x", next.id, "failed", nowMs);
            tried.push(next.id);
            const forMs = Math.min(60_000, 2 * (opened.get(next.id)?.forMs ?? 0));
            opened.set(next.id, { untilMs: nowMs + forMs, forMs });
          }
          expect(tried.sort()).toEqual(due.sort());
          expect(two.choose("y", [], nowMs)).toBeUndefined();
          expect(two.nextDueMs(nowMs)).toBe(Math.min(...[...opened.values()].map(({ untilMs }) => untilMs)));
        }
      }),
    );
  });

  it("opens again whenever a trial fails, whatever else happened, and is shut no longer than a minute", () => {
    let failed = 0;
    fc.assert(
      fc.property(walk, (steps) =>
        walkThrough(steps, (world, step, take) => {
          const reply = take() as ReturnType<World["done"]>;
          expect((world.pool.nextDueMs(world.nowMs) ?? world.nowMs) - world.nowMs).toBeLessThanOrEqual(60_000);
          if (step.do !== "done" || !reply?.isTrial || step.outcome !== "failed") return;
          failed++;
          expect(stateOf(world.pool, reply.endpointId, world.nowMs)).not.toMatch(/closed|half_open/);
        }),
      ),
      { numRuns: 300, seed: 1 },
    );
    expect(failed, "trials that failed").toBeGreaterThan(10);
  });
});

describe("an endpoint that is busy", () => {
  it("rests without blame, for as long as it asked, though others end there meanwhile", () => {
    const one = pool(endpoint("a"));
    one.choose("runs", [], 0);
    one.choose("x", [], 0);
    one.done("x", "a", "busy", 0, 3_000);
    one.done("runs", "a", "ended", 10);
    expect(one.list(2_999)[0]).toMatchObject({ state: "open", failures: 0 });
    expect([one.choose("y", [], 2_999), one.nextDueMs(10)]).toEqual([undefined, 3_000]);
    expect(stateOf(one, "a", 3_000)).toBe("closed");
    expect(one.choose("y", [], 3_000)?.id).toBe("a");
  });

  it("rests until the latest time it asked for", () => {
    const one = pool(endpoint("a"));
    for (const call of ["x", "y"]) one.choose(call, [], 0);
    one.done("x", "a", "busy", 0, 9_000);
    one.done("y", "a", "busy", 0, 1_000);
    expect(one.nextDueMs(0)).toBe(9_000);
  });

  it("rests though its trial ended well, and has no second trial beside it", () => {
    const one = pool(endpoint("a", 5));
    for (const call of ["x", "y"]) one.choose(call, [], 0);
    calls(one, "a", failures(5), 0);
    one.choose("trial", [], 5_000);
    one.done("x", "a", "busy", 5_000, 100);
    expect(one.choose("second", [], 5_100)).toBeUndefined();
    one.done("y", "a", "busy", 5_100, 900);
    one.done("trial", "a", "ended", 5_200);
    expect([stateOf(one, "a", 5_999), stateOf(one, "a", 6_000)]).toEqual(["open", "closed"]);
  });

  it("is tried once more after its rest, when it was its trial that found no room", () => {
    const one = pool(endpoint("a"));
    calls(one, "a", failures(5), 0);
    one.choose("trial", [], 5_000);
    one.done("trial", "a", "busy", 5_000, 2_000);
    expect(stateOf(one, "a", 6_999)).toBe("open");
    expect(stateOf(one, "a", 7_000)).toBe("half_open");
    expect([one.choose("next", [], 7_000)?.id, one.choose("second", [], 7_000)]).toEqual(["a", undefined]);
    one.done("next", "a", "failed", 7_000);
    expect(one.nextDueMs(7_000)).toBe(17_000); // the second trial that came to something, not the third
  });
});

describe("joining and leaving", () => {
  it("is not waited for: an endpoint that leaves while it is open will not be called again", () => {
    const one = pool(endpoint("a"));
    one.choose("x", [], 0);
    calls(one, "a", failures(5), 0);
    expect(one.nextDueMs(0)).toBe(5_000);
    one.remove("a");
    expect(one.nextDueMs(0)).toBeUndefined();
  });

  it("loses no call: what runs there ends, nothing new comes, and it is gone with the last", () => {
    const one = pool(endpoint("a"));
    for (const call of ["x", "y"]) one.choose(call, [], 0);
    expect(one.remove("a")).toBe(true);
    one.done("x", "a", "ended", 0);
    expect(one.list(0)[0]).toMatchObject({ state: "leaving", inFlight: 1 });
    expect([one.choose("z", [], 0), one.capacity(0)]).toEqual([undefined, 1]);
    one.done("y", "a", "ended", 1);
    expect([one.list(1), one.size]).toEqual([[], 0]);
    expect(one.remove("a")).toBe(false);
    expect(one.takeDirty()).toEqual({ upsert: [], remove: ["a"] });
  });

  it("keeps what runs and what failed of an endpoint that joins again, which stops its leaving", () => {
    const one = pool(endpoint("a"));
    one.choose("x", [], 0);
    calls(one, "a", failures(4), 0);
    one.remove("a");
    one.add(endpoint("a", 5));
    expect(one.list(0)[0]).toMatchObject({ state: "closed", inFlight: 1, failures: 4, maxInFlight: 5 });
    calls(one, "a", failures(1), 0);
    expect(stateOf(one, "a", 0)).toBe("open");
  });

  it("holds an endpoint that now takes less back until enough of its calls have ended", () => {
    const one = pool(endpoint("a", 3));
    for (const call of ["x", "y", "z"]) one.choose(call, [], 0);
    one.add(endpoint("a", 1));
    expect(one.capacity(0)).toBe(3);
    for (const call of ["x", "y"]) one.done(call, "a", "ended", 0);
    expect(one.choose("w", [], 0)).toBeUndefined();
    one.done("z", "a", "ended", 0);
    expect(one.choose("w", [], 0)?.id).toBe("a");
  });
});

describe("a restart", () => {
  it("changes no choice: what is stored and the same events after it give the same answers", () => {
    fc.assert(
      fc.property(walk, (steps) => {
        const [steady, restarting] = [new World(), new World()];
        const store = new Store();
        for (const step of steps) {
          store.save(restarting.pool);
          restarting.pool = store.restore(restarting.running);
          expect(restarting.take(step)).toEqual(steady.take(step));
          expect(restarting.pool.list(restarting.nowMs)).toEqual(steady.pool.list(steady.nowMs));
        }
      }),
    );
  });

  it("makes the next call the trial where the one that was under way is not known any more", () => {
    const before = pool(endpoint("a"));
    const store = new Store();
    calls(before, "a", failures(5), 0);
    before.choose("lost", [], 5_000);
    store.save(before);
    const after = store.restore([]);
    expect([after.choose("next", [], 5_000)?.id, after.choose("second", [], 5_000)]).toEqual(["a", undefined]);
  });

  it("lets an endpoint go that was leaving, when nothing runs there any more", () => {
    const before = pool(endpoint("a"));
    const store = new Store();
    before.choose("lost", [], 0);
    before.remove("a");
    store.save(before);
    const after = store.restore([]);
    expect([after.size, after.takeDirty()]).toEqual([0, { upsert: [], remove: ["a"] }]);
  });

  it("reads what an earlier version stored, which knew less of a breaker", () => {
    const breaker = { endpointId: "a", failures: 5, openUntilMs: 5_000, openedForMs: 5_000 };
    const after = EndpointPool.restore([{ endpoint: endpoint("a"), breaker }], []);
    expect([stateOf(after, "a", 4_999), stateOf(after, "a", 5_000)]).toEqual(["open", "half_open"]);
    expect([after.choose("trial", [], 5_000)?.id, after.choose("second", [], 5_000)]).toEqual(["a", undefined]);
  });

  it("costs nothing beforehand: calls of an endpoint that is well leave nothing to be stored", () => {
    const one = pool(endpoint("a"));
    one.takeDirty();
    calls(one, "a", ["ended", "ended"], 0);
    expect(one.takeDirty()).toEqual({ upsert: [], remove: [] });
    calls(one, "a", ["failed", "ended"], 0);
    expect(one.takeDirty().upsert).toHaveLength(1);
    calls(one, "a", ["ended"], 30_000); // the last that has something to forget
    one.takeDirty();
    calls(one, "a", ["ended"], 30_001);
    expect(one.takeDirty().upsert).toEqual([]);
  });
});
