import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GateUpkeep, type UpkeepKind } from "../../../durable-objects/gate-upkeep";
import { SMALL, TestGate } from "./gate";

const START_MS = 1_000_000;

/** A calendar on a gate's storage, whose work does what a test says. */
class TestUpkeep {
  readonly gate = new TestGate();
  readonly done: UpkeepKind[] = [];
  how: Partial<Record<UpkeepKind, () => Promise<void>>> = {};
  upkeep: GateUpkeep;

  constructor() {
    this.upkeep = this.wake();
  }

  /** A later life of the object: memory is gone, timers and running work of the earlier one with it. */
  wake(): GateUpkeep {
    const work = (kind: UpkeepKind) => async () => {
      await this.how[kind]?.();
      this.done.push(kind);
    };
    this.gate.restart();
    const { storage, sql, tail } = this.gate;
    const kinds = {
      expire: work("expire"),
      outbox: work("outbox"),
      rollup: work("rollup"),
      segment: work("segment"),
      purge: work("purge"),
      sweep: work("sweep"),
    };
    this.upkeep = new GateUpkeep({ storage, sql, tail, work: kinds }, Date.now());
    return this.upkeep;
  }

  /** What a commit of the gate does with it. */
  commit(): void {
    this.gate.storage.transactionSync(() => this.upkeep.save());
  }

  /** Lets time pass until the alarm rings, and rings it. */
  async ring(): Promise<void> {
    const { alarmMs } = this.gate.storage;
    if (alarmMs === null) throw new Error("no alarm is set");
    this.gate.storage.alarmMs = null;
    vi.setSystemTime(Math.max(Date.now(), alarmMs));
    const run = this.upkeep.runDue(Date.now());
    await vi.advanceTimersByTimeAsync(0);
    await run;
  }
}
const forever = () => new Promise<void>(() => {});
const fail = async () => {
  throw new Error("nobody answers");
};

beforeEach(() => {
  vi.useFakeTimers({ now: START_MS });
  vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("the gate's calendar", () => {
  it("has its alarm at the earliest promise, keeps the earlier of two, and is done when it was kept", async () => {
    const test = new TestUpkeep();
    test.upkeep.keepPromise("purge", START_MS + 500);
    test.upkeep.keepPromise("outbox", START_MS + 900);
    test.upkeep.keepPromise("purge", START_MS + 800);
    test.upkeep.keepPromise("rollup", undefined);
    expect(test.gate.storage.alarmMs).toBe(START_MS + 500);
    await test.ring();
    expect(test.done).toEqual(["purge"]);
    expect(test.gate.storage.alarmMs).toBe(START_MS + 900);
    await test.ring();
    expect(test.done).toEqual(["purge", "outbox"]);
    expect(test.gate.sql.due()).toEqual([]);
  });

  it("brings its alarm forward for an earlier promise", () => {
    const test = new TestUpkeep();
    test.upkeep.keepPromise("purge", START_MS + 500);
    test.upkeep.keepPromise("purge", START_MS + 100);
    expect(test.gate.storage.alarmMs).toBe(START_MS + 100);
  });

  it("is there again in a later life, with its alarm", async () => {
    const test = new TestUpkeep();
    test.upkeep.keepPromise("rollup", START_MS + 500);
    test.commit();
    test.gate.storage.alarmMs = null;
    test.wake();
    expect(test.gate.storage.alarmMs).toBe(START_MS + 500);
    await test.ring();
    expect(test.done).toEqual(["rollup"]);
  });

  it.each(["expire", "outbox", "rollup", "segment", "purge"] as const)(
    "takes up %s again that a crash cut off in the middle, whether somebody asked for it or the alarm",
    async (kind) => {
      for (const asked of [true, false]) {
        const test = new TestUpkeep();
        test.how = { [kind]: forever };
        if (asked) void test.upkeep.tryNow(kind);
        else {
          test.upkeep.keepPromise(kind, START_MS);
          void test.upkeep.runDue(START_MS);
        }
        await vi.advanceTimersByTimeAsync(0);
        test.commit(); // a call comes by
        expect(test.gate.sql.due().map((row) => row.kind)).toEqual(["resume"]);
        test.how = {};
        test.wake();
        expect(test.done).toEqual([]);
        await test.ring();
        expect(test.done).toEqual([kind]);
        expect(test.gate.sql.due()).toEqual([]);
      }
    },
  );

  it("takes up work that a crash cut off before anything was saved", async () => {
    const test = new TestUpkeep();
    test.upkeep.keepPromise("rollup", START_MS);
    test.commit();
    test.how = { rollup: forever };
    void test.upkeep.runDue(START_MS);
    await vi.advanceTimersByTimeAsync(0);
    test.how = {};
    test.wake();
    await test.ring();
    expect(test.done).toEqual(["rollup"]);
  });

  it("tries again what failed, later each time, in later lives too", async () => {
    const test = new TestUpkeep();
    test.how = { outbox: fail };
    expect(await test.upkeep.tryNow("outbox")).toBe(false);
    const pauses: number[] = [];
    for (let attempt = 1; attempt <= 4; attempt++) {
      const [row] = test.gate.sql.due();
      expect(row).toMatchObject({ kind: "outbox", attempt });
      pauses.push((row?.due_at ?? 0) - Date.now());
      test.wake();
      expect(test.gate.storage.alarmMs).toBe(row?.due_at);
      await test.ring();
    }
    pauses.forEach((pause, at) => {
      expect(pause).toBeGreaterThanOrEqual(500 * 2 ** at);
      expect(pause).toBeLessThanOrEqual(1_000 * 2 ** at);
    });
    test.how = {};
    await test.ring();
    expect(test.gate.sql.due()).toEqual([]);
    expect(await test.upkeep.tryNow("outbox")).toBe(true);
  });

  it("holds up nothing else while one database does not answer, and tries that one again", async () => {
    const test = new TestUpkeep();
    test.how = { rollup: forever };
    for (const kind of ["rollup", "expire", "segment"] as const) test.upkeep.keepPromise(kind, START_MS);
    const turn = test.upkeep.runDue(START_MS);
    await vi.advanceTimersByTimeAsync(0);
    expect(test.done).toEqual(["expire", "segment"]);
    await vi.advanceTimersByTimeAsync(30_000);
    await turn; // the alarm is over, and the next one can ring
    test.upkeep.keepPromise("expire", Date.now());
    await test.upkeep.runDue(Date.now());
    expect(test.done).toEqual(["expire", "segment", "expire"]);
    test.how = {};
    await vi.advanceTimersByTimeAsync(300_000);
    await test.ring();
    expect(test.done).toContain("rollup");
  });

  it("lets runs of one kind follow each other", async () => {
    const test = new TestUpkeep();
    const first = Promise.withResolvers<void>();
    test.how = { rollup: () => first.promise };
    const one = test.upkeep.tryNow("rollup");
    await vi.advanceTimersByTimeAsync(0);
    test.how = {};
    const two = test.upkeep.tryNow("rollup");
    await vi.advanceTimersByTimeAsync(0);
    expect(test.done).toEqual([]);
    first.resolve();
    await Promise.all([one, two]);
    expect(test.done).toEqual(["rollup", "rollup"]);
    expect(test.gate.sql.due()).toEqual([]);
  });

  it("keeps a promise that was made while its kind was at work", async () => {
    const test = new TestUpkeep();
    test.how = { rollup: async () => test.upkeep.keepPromise("rollup", START_MS + 70_000) };
    await test.upkeep.tryNow("rollup");
    expect(test.gate.sql.due()).toMatchObject([{ kind: "rollup", due_at: START_MS + 70_000 }]);
  });

  it("promises the ledger, a segment and a look at what is beyond its time for each record", () => {
    const test = new TestUpkeep();
    test.upkeep.afterRecord(START_MS);
    test.commit();
    expect(test.gate.sql.due()).toMatchObject([
      { kind: "rollup", due_at: START_MS + 60_000 },
      { kind: "segment", due_at: START_MS + SMALL.ageMs },
      { kind: "sweep", due_at: START_MS + 24 * 3_600_000 },
    ]);
    for (let record = 0; record < SMALL.rows; record++) test.gate.append(`r${record}`, START_MS);
    test.upkeep.afterRecord(START_MS);
    test.commit();
    expect(test.gate.sql.due()).toMatchObject([{}, { kind: "segment", due_at: START_MS + SMALL.youngMs }, {}]);
  });

  it("looks after rows that an earlier version left without a promise, and at nothing where there is none", () => {
    const test = new TestUpkeep();
    test.wake();
    expect(test.gate.storage.alarmMs).toBeNull();
    test.gate.append("r", START_MS);
    test.wake();
    expect(test.gate.storage.alarmMs).toBe(START_MS);
  });

  it("writes nothing and sets no alarm once it is stopped", async () => {
    const test = new TestUpkeep();
    test.upkeep.keepPromise("purge", START_MS);
    test.how = { purge: async () => test.upkeep.stop() };
    await test.upkeep.runDue(START_MS);
    test.gate.storage.alarmMs = null;
    test.upkeep.keepPromise("expire", START_MS);
    test.commit();
    expect(test.gate.storage.alarmMs).toBeNull();
    expect(test.gate.sql.due()).toEqual([]);
  });
});
