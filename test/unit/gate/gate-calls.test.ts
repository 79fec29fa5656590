import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DRAW_MS, LATE_MS } from "../../../src/core/gate-leases";
import { SimulatedGate } from "./simulated-gate";

beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 5, 15, 12) }));
afterEach(() => void vi.useRealTimers());

/** Resolves with what the promise has become without time passing, or "pending". */
async function now<T>(gate: SimulatedGate, promise: Promise<T>): Promise<T | "pending"> {
  let state: T | "pending" = "pending";
  void promise.then((value) => {
    state = value;
  });
  await gate.settle();
  return state;
}

/** A gate whose tokens are all taken: a lease is out, and every further call waits for what may come back of it. */
async function crowded() {
  const gate = new SimulatedGate({ tokensPerMinute: 600 });
  const lease = await gate.admit("leaser", { wantedDraws: 15 });
  expect(lease).toMatchObject({ admitted: true, lease: { draws: 2, tokens: 60 } });
  for (let made = 0; made < 17; made++) expect(await gate.admit(`a${made}`)).toMatchObject({ admitted: true });
  return gate;
}

const REFUSED = { admitted: false, reason: "request_ended" };

describe("a request id is admitted once in its life", () => {
  it("where a retry is served while the first attempt waits: both are one, and nothing is booked twice", async () => {
    const gate = await crowded();
    const first = gate.admit("r");
    expect(await now(gate, first)).toBe("pending");
    const retry = gate.admit("r");
    await gate.finish("a0", 0);
    await gate.finish("a1", 0);
    expect(await retry).toMatchObject({ admitted: true });
    await gate.finish("r", 7);
    expect(await first).toMatchObject({ admitted: true });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.failures).toEqual([]);
    expect(gate.events().filter(({ id }) => id === "r")).toHaveLength(1);
    expect(await gate.admit("later")).toMatchObject({ admitted: true });
  });

  it.each(["settled", "released", "recorded after its time", "refused", "left", "settled before it was admitted"])(
    "where it was %s, in memory and after a restart",
    async (end) => {
      const gate = new SimulatedGate({ requestsPerMinute: end === "refused" ? 0 : 100 });
      if (end === "left") await gate.leave("r");
      if (end === "settled before it was admitted") await gate.finish("r", 3);
      else if (end !== "left") await gate.admit("r");
      if (end === "settled") await gate.finish("r", 3);
      if (end === "released") await gate.finish("r", null);
      if (end === "recorded after its time") await vi.advanceTimersByTimeAsync(61_000);
      gate.change({ type: "set_model_limits", model: "m", requestsPerMinute: 100 });
      expect(await gate.admit("r")).toEqual(REFUSED);
      if (["refused", "settled before it was admitted"].includes(end)) return; // nothing of it was held
      gate.wake();
      expect(await gate.admit("r")).toEqual(REFUSED);
      expect(gate.book.inFlight).toBe(0);
    },
  );

  it("and is held again by nobody: what ended without a record is remembered in bounded rows", async () => {
    const gate = new SimulatedGate({ requestsPerMinute: 1_000 });
    const release = async (id: string) => {
      await gate.admit(id);
      await gate.finish(id, null);
    };
    for (let made = 0; made < 50; made++) await release(`old-${made}`);
    await vi.advanceTimersByTimeAsync(16 * 60_000);
    for (let made = 0; made < 25; made++) await release(`new-${made}`);
    expect(gate.rows("ended")).toHaveLength(25);
  });
});

describe("whoever waits for room", () => {
  it("is woken by the end of any call that makes some, at once and in the order of coming", async () => {
    const gate = await crowded();
    const [first, second] = [gate.admit("first"), gate.admit("second")];
    expect(await now(gate, first)).toBe("pending");
    await gate.finish("a0", 0);
    expect(await now(gate, first)).toMatchObject({ admitted: true });
    expect(await now(gate, second)).toBe("pending");
    await gate.finish("a1", null);
    expect(await now(gate, second)).toMatchObject({ admitted: true });
  });

  it("keeps its place where what was freed is not enough for it", async () => {
    const gate = await crowded();
    const [first, second] = [gate.admit("first", { outputTokens: 50 }), gate.admit("second", { outputTokens: 50 })];
    await gate.finish("a0", 0);
    expect(await now(gate, first)).toBe("pending");
    await gate.finish("a1", 0);
    expect(await now(gate, first)).toMatchObject({ admitted: true });
    expect(await now(gate, second)).toBe("pending");
  });

  it("is woken one after another where much is freed at once", async () => {
    const gate = await crowded();
    const waiting = [gate.admit("first"), gate.admit("second")];
    await gate.settle();
    await gate.returnLease("leaser");
    for (const reply of waiting) expect(await now(gate, reply)).toMatchObject({ admitted: true });
  });

  it("is looked at again when the lease does not come back: refused then, not earlier", async () => {
    const gate = await crowded();
    const waiting = gate.admit("r");
    await vi.advanceTimersByTimeAsync(DRAW_MS + LATE_MS - 100);
    expect(await now(gate, waiting)).toBe("pending");
    await vi.advanceTimersByTimeAsync(200);
    expect(await now(gate, waiting)).toMatchObject({ admitted: false, refusal: { rule: "tokens_per_minute" } });
  });

  it("and leaves meanwhile is not admitted, and holds and costs nothing", async () => {
    const gate = await crowded();
    const waiting = gate.admit("r");
    await gate.settle();
    await gate.leave("r");
    expect(await now(gate, waiting)).toEqual(REFUSED);
    await gate.finish("a0", 0);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.events().some(({ id }) => id === "r")).toBe(false);
    expect(await gate.admit("r")).toEqual(REFUSED);
  });
});

describe("what is not answered as admitted is given back, its lease too", () => {
  const busy = { wantedDraws: 15 };
  const idle = (gate: SimulatedGate) => {
    expect(gate.book.inFlight).toBe(0);
    expect(gate.spend()).toEqual({ settled: 0, held: 0 });
  };

  it("where its key is revoked before the commit is through", async () => {
    const gate = new SimulatedGate();
    const reply = gate.admit("r", busy);
    gate.change({ type: "delete_key", id: "key" });
    expect(await reply).toEqual({ admitted: false, reason: "unknown_key" });
    idle(gate);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.events()).toEqual([]);
    expect(gate.rows("hold")).toEqual([]);
  });

  it("where its caller leaves before the commit is through, or after the answer is on its way", async () => {
    const gate = new SimulatedGate();
    const reply = gate.admit("r", busy);
    await gate.leave("r");
    expect(await reply).toEqual(REFUSED);
    idle(gate);
    expect(await gate.admit("s", busy)).toMatchObject({ admitted: true, lease: { draws: expect.any(Number) } });
    await gate.leave("s");
    await gate.leave("s");
    idle(gate);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.events()).toEqual([]);
  });

  it("but a call that was settled stays settled, and the lease that it brought stays out", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", busy);
    const settled = await gate.finish("r", 5);
    await gate.leave("r");
    expect(await gate.finish("r", 5)).toEqual(settled);
    expect(gate.book.leaseOf("r")).toBeDefined();
  });
});

describe("a lease", () => {
  it("is handed out again where its answer was lost, and not once it was returned", async () => {
    const gate = new SimulatedGate();
    const first = await gate.admit("r", { wantedDraws: 4 });
    expect(first).toMatchObject({ admitted: true, lease: { id: "r", draws: 4 } });
    expect(await gate.admit("r", { wantedDraws: 4 })).toMatchObject({ lease: { id: "r", draws: 4 } });
    await gate.returnLease("r", [{ requestId: "d", tokens: 30, microdollars: 30 }]);
    expect(await gate.admit("r", { wantedDraws: 4 })).toMatchObject({ admitted: true, lease: null });
  });

  it("frees a draw that never ran once, however often and late that is said", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    await gate.finish("d", null, "r");
    const once = gate.book.leaseOf("r");
    expect(once).toMatchObject({ draws: 3, tokens: 90 });
    await gate.finish("d", null, "r");
    gate.wake();
    await gate.finish("d", null, "r");
    expect(gate.book.leaseOf("r")).toEqual(once);
    expect(await gate.finish("d", 9, "r")).toEqual({ settled: false });
  });

  it("holds nothing of a draw whose end has overtaken the lease's return", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    await gate.finish("r", 0);
    const running = ["d", "e"].map((requestId) => ({ requestId, tokens: 30, microdollars: 30 }));
    await gate.finish("d", null, "r");
    await gate.finish("e", 5, "r");
    await gate.returnLease("r", running);
    expect(gate.book.inFlight).toBe(0);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.events().map(({ id }) => id)).toEqual(["r", "e"]);
  });

  it("keeps after its return only draws that were named then, each to its one end", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    const running = ["d", "e"].map((requestId) => ({ requestId, tokens: 30, microdollars: 30 }));
    await gate.returnLease("r", running);
    await gate.returnLease("r", []);
    expect(gate.book.leaseOf("r")).toMatchObject({ draws: 2, tokens: 60 });
    expect(await gate.finish("stranger", 5, "r")).toEqual({ settled: false });
    await gate.finish("d", null, "r");
    await gate.finish("d", null, "r");
    expect(gate.book.leaseOf("r")).toMatchObject({ draws: 1, tokens: 30 });
    await gate.finish("e", 5, "r");
    expect(gate.book.leaseOf("r")).toBeUndefined();
  });

  it("that nobody returns is booked at its worst case when its time is over, once", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    await gate.finish("r", 0);
    await gate.finish("d", 5, "r");
    gate.wake();
    await vi.advanceTimersByTimeAsync(61_000);
    expect(gate.events().map(({ id, outcome, priceMicrodollars }) => [id, outcome, priceMicrodollars])).toEqual([
      ["r", "completed", 0],
      ["d", "completed", 5],
      ["lease_r", "unreconciled", 90],
    ]);
    expect(gate.spend()).toEqual({ settled: 95, held: 0 });
    await gate.returnLease("r");
    expect(gate.spend()).toEqual({ settled: 95, held: 0 });
  });

  it("of an earlier version, which names no draws, opens and ends", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    for (const { request_id, body } of gate.rows("hold")) {
      const { released: _, running: __, ...stored } = JSON.parse(String(body));
      gate.database
        .prepare("update hold set body = ? where request_id = ?")
        .run(JSON.stringify(stored), String(request_id));
    }
    gate.wake();
    await gate.finish("d", 5, "r");
    await gate.returnLease("r", []);
    await gate.finish("r", 0);
    expect(gate.spend()).toEqual({ settled: 5, held: 0 });
  });
});

describe("a record that storage does not take", () => {
  const refuse = (gate: SimulatedGate, table: string, column: string, value: string) =>
    gate.database.exec(
      `create trigger refuse_${table} before insert on ${table} when new.${column} = '${value}'
       begin select raise(abort, 'not this one'); end`,
    );
  const alerts = (gate: SimulatedGate) =>
    gate.rows("journal").flatMap(({ decision }) => {
      const { kind, rule, id } = JSON.parse(String(decision));
      return kind === "alert" ? [[id, rule]] : [];
    });
  beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  it("is parked whole and alarmed, and every other record is written, in this commit and later ones", async () => {
    const gate = new SimulatedGate();
    for (const id of ["a", "bad", "b"]) await gate.admit(id);
    refuse(gate, "journal", "id", "bad");
    const replies = await Promise.all(["a", "bad", "b"].map((id) => gate.finish(id, 5)));
    expect(replies).toMatchObject([{ settled: true }, { settled: true }, { settled: true }]);
    expect(gate.failures).toEqual([]);
    expect(gate.events().map(({ id }) => id)).toEqual(["a", "b"]);
    const [parked] = gate.rows("parked");
    expect(parked).toMatchObject({ kind: "journal", name: "bad", reason: expect.stringContaining("not this one") });
    expect(JSON.parse(String(parked?.body))).toMatchObject({ seq: 2, id: "bad", event: expect.any(String) });
    expect(console.error).toHaveBeenCalledWith(expect.stringContaining('"event":"record_parked"'));
    expect(alerts(gate)).toEqual([["parked_bad", "record_parked"]]);
    expect(await gate.admit("bad")).toEqual(REFUSED);
    gate.wake();
    expect(await gate.admit("bad")).toEqual(REFUSED);
  });

  it("of a hold or a lease is not answered as admitted, and holds nothing", async () => {
    const gate = new SimulatedGate();
    refuse(gate, "hold", "request_id", "bad");
    expect(await gate.admit("bad")).toEqual(REFUSED);
    expect(gate.book.inFlight).toBe(0);
    gate.database.exec("drop trigger refuse_hold");
    refuse(gate, "hold", "request_id", "lease:busy");
    expect(await gate.admit("busy", { wantedDraws: 4 })).toMatchObject({ admitted: true, lease: null });
    expect(gate.book.inFlight).toBe(1);
    expect(gate.failures).toEqual([]);
    expect(gate.rows("parked").map(({ kind, name }) => [kind, name])).toEqual([
      ["hold", "bad"],
      ["lease", "busy"],
    ]);
  });

  it("throws memory away where storage takes nothing at all: what is answered is what it has", async () => {
    const gate = new SimulatedGate();
    await gate.admit("a");
    gate.database.exec("create trigger full before insert on bucket begin select raise(abort, 'full'); end");
    await expect(gate.admit("b")).rejects.toThrow("full");
    expect(gate.failures).toHaveLength(1);
    gate.database.exec("drop trigger full");
    expect(gate.book.inFlight).toBe(1);
    expect(await gate.admit("b")).toMatchObject({ admitted: true });
    expect(await gate.finish("a", 5)).toMatchObject({ settled: true });
  });

  it("and lies beside its hold since an earlier version is dropped at the start, alarmed, and costs nothing", async () => {
    const gate = new SimulatedGate();
    await gate.admit("r", { wantedDraws: 4 });
    const stored = gate.rows("hold");
    await gate.finish("r", 5);
    await gate.returnLease("r");
    const spent = gate.spend();
    for (const { request_id, body } of stored) {
      gate.database.prepare("insert into hold values (?, ?)").run(String(request_id), String(body));
    }
    gate.wake();
    await gate.settle();
    expect(gate.book.hold("r")).toBeUndefined();
    await gate.returnLease("r");
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(gate.failures).toEqual([]);
    expect(gate.events().map(({ id }) => id)).toEqual(["r"]);
    expect(spent).toEqual({ settled: 5, held: 0 });
    expect(alerts(gate)).toEqual([["r", "hold_of_recorded_call"]]);
    expect(await gate.admit("later")).toMatchObject({ admitted: true });
  });
});
