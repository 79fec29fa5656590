import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Endpoint, EndpointPool } from "../../../src/core/endpoint-pool";

const endpoint = (id: string, maxInFlight = 2): Endpoint => ({
  id,
  url: `http://${id}`,
  maxInFlight,
  addedAtMs: 0,
  isLeaving: false,
});
function pool(...endpoints: Endpoint[]): EndpointPool {
  const made = new EndpointPool();
  for (const each of endpoints) made.add(each);
  return made;
}
/** So many calls in a row that fail on one endpoint. */
function failures(on: EndpointPool, id: string, count: number, nowMs: number): void {
  const others = on
    .list(nowMs)
    .map((each) => each.id)
    .filter((each) => each !== id);
  for (let calls = 0; calls < count; calls++) {
    on.choose(`f${calls}`, others, nowMs);
    on.done(`f${calls}`, id, "failed", nowMs);
  }
}

describe("the endpoints of a model", () => {
  it("are chosen by the room they have in proportion", () => {
    const two = pool(endpoint("small", 1), endpoint("large", 4));
    const chosen = ["a", "b", "c", "d", "e", "f"].map((call) => two.choose(call, [], 0)?.id);
    expect(chosen.filter((id) => id === "small")).toHaveLength(1);
    expect(chosen.filter((id) => id === "large")).toHaveLength(4);
    expect(chosen.at(-1)).toBeUndefined();
  });

  it("are left alone after five failures in a row, then tried by one call, for longer each time it fails", () => {
    const one = pool(endpoint("a"));
    failures(one, "a", 4, 0);
    expect(one.list(0)[0]?.state).toBe("closed");
    failures(one, "a", 1, 0);
    expect(one.list(0)[0]?.state).toBe("open");
    expect([one.choose("x", [], 4_999), one.capacity(4_999)]).toEqual([undefined, 0]);
    expect(one.nextDueMs(0)).toBe(5_000);
    expect(one.list(5_000)[0]?.state).toBe("half_open");
    expect(one.choose("trial", [], 5_000)?.id).toBe("a");
    expect(one.choose("second", [], 5_000)).toBeUndefined();
    one.done("trial", "a", "failed", 5_100);
    expect(one.nextDueMs(5_100)).toBe(15_100);
    for (let atMs = 15_100, call = 0; call < 6; call++, atMs = one.nextDueMs(atMs) ?? 0) {
      one.choose(`t${call}`, [], atMs);
      one.done(`t${call}`, "a", "failed", atMs);
      expect((one.nextDueMs(atMs) ?? 0) - atMs).toBeLessThanOrEqual(60_000);
    }
  });

  it("are well again after one call that ended", () => {
    const one = pool(endpoint("a"));
    failures(one, "a", 5, 0);
    one.choose("trial", [], 5_000);
    one.done("trial", "a", "ended", 5_100);
    expect(one.list(5_100)[0]).toMatchObject({ state: "closed", failures: 0 });
    failures(one, "a", 4, 5_200);
    expect(one.list(5_200)[0]?.state).toBe("closed");
  });

  it("rest without blame when they are busy", () => {
    const one = pool(endpoint("a"));
    one.choose("x", [], 0);
    one.done("x", "a", "busy", 0, 3_000);
    expect(one.list(0)[0]).toMatchObject({ state: "open", failures: 0 });
    expect(one.choose("y", [], 3_000)?.id).toBe("a");
    expect(one.list(3_000)[0]?.state).toBe("closed");
  });

  it("leave without losing a call: what runs there ends, nothing new comes", () => {
    const one = pool(endpoint("a"));
    one.choose("x", [], 0);
    expect(one.remove("a")).toBe(true);
    expect(one.list(0)[0]).toMatchObject({ state: "leaving", inFlight: 1 });
    expect([one.choose("y", [], 0), one.capacity(0)]).toEqual([undefined, 1]);
    one.done("x", "a", "ended", 1);
    expect(one.list(1)).toEqual([]);
    expect(one.remove("a")).toBe(false);
    expect(one.takeDirty()).toEqual({ upsert: [], remove: ["a"] });
  });

  it("keep what runs and what failed over a restart", () => {
    const before = pool(endpoint("a"), endpoint("b"));
    failures(before, "a", 5, 0);
    before.choose("x", [], 0);
    const after = EndpointPool.restore(before.takeDirty().upsert, [{ callId: "x", endpointId: "b" }]);
    expect(after.list(0)).toEqual(before.list(0));
  });

  it("never get more than they take, nor a call they were excepted from, nor anything while open; ends count once", () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant("choose" as const), except: fc.subarray(["a", "b", "c"]) }) },
      {
        weight: 5,
        arbitrary: fc.record({
          do: fc.constant("done" as const),
          which: fc.nat(9),
          outcome: fc.constantFrom("ended" as const, "failed" as const, "failed" as const, "busy" as const),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(1, 1_000, 5_000, 60_000) }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), id: fc.constantFrom("a", "b", "c") }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("add" as const), id: fc.constantFrom("a", "b", "c") }) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const made = pool(endpoint("a"), endpoint("b", 3), endpoint("c", 1));
        const running: { call: string; on: string }[] = [];
        let [nowMs, calls] = [0, 0];
        for (const each of steps) {
          if (each.do === "wait") nowMs += each.ms;
          else if (each.do === "remove") made.remove(each.id);
          else if (each.do === "add") made.add(endpoint(each.id, 3));
          else if (each.do === "choose") {
            const before = new Map(made.list(nowMs).map((member) => [member.id, member]));
            const capacity = made.capacity(nowMs);
            const chosen = made.choose(`c${calls}`, each.except, nowMs);
            if (chosen) {
              const was = before.get(chosen.id);
              expect(each.except).not.toContain(chosen.id);
              expect(["closed", "half_open"]).toContain(was?.state);
              expect(was?.inFlight).toBeLessThan(was?.state === "half_open" ? 1 : chosen.maxInFlight);
              running.push({ call: `c${calls}`, on: chosen.id });
            } else if (each.except.length === 0) expect(capacity, "room is never withheld").toBe(running.length);
            calls++;
          } else {
            const [ended] = running.splice(each.which % Math.max(1, running.length), 1);
            if (!ended) continue;
            made.done(ended.call, ended.on, each.outcome, nowMs);
            const once = JSON.stringify(made.list(nowMs));
            made.done(ended.call, ended.on, "failed", nowMs);
            expect(JSON.stringify(made.list(nowMs))).toBe(once);
          }
          expect(made.list(nowMs).reduce((sum, { inFlight }) => sum + inFlight, 0)).toBe(running.length);
        }
      }),
    );
  });
});
