import { describe, expect, it } from "vitest";
import { GateUpkeep, type UpkeepKind } from "../../../durable-objects/gate-upkeep";
import type { JournalTail } from "../../../durable-objects/journal-tail";
import type { Statements } from "../../../durable-objects/tenant-gate-statements";

const KINDS: readonly UpkeepKind[] = ["expire", "outbox", "rollup", "segment", "purge", "sweep"];

/** A gate's calendar over storage that keeps nothing, with its alarm and its transactions counted. */
function upkeepOf(work: Partial<Record<UpkeepKind, () => Promise<void>>>) {
  const seen = { alarms: [] as number[], transactions: 0 };
  const storage = {
    setAlarm: async (atMs: number) => void seen.alarms.push(atMs),
    transactionSync: (save: () => void) => {
      seen.transactions++;
      save();
    },
  } as unknown as DurableObjectStorage;
  const sql = {
    due: () => [],
    lastJournalRow: () => undefined,
    putDue: () => {},
    removeDue: () => {},
  } as unknown as Statements;
  const all = Object.fromEntries(KINDS.map((kind) => [kind, work[kind] ?? (async () => {})]));
  const tail = { dueMs: () => 0 } as unknown as JournalTail;
  const deps = { storage, sql, tail, work: all as Record<UpkeepKind, () => Promise<void>> };
  return { upkeep: new GateUpkeep(deps, 0), seen };
}

describe("the last work of a kind, before a tenant is erased", () => {
  it("waits for what of its kind is under way, so that nothing of the tenant is written behind it", async () => {
    const done: string[] = [];
    const slow = Promise.withResolvers<void>();
    let runs = 0;
    const { upkeep } = upkeepOf({
      outbox: async () => {
        const run = ++runs;
        if (run === 1) await slow.promise;
        done.push(`run ${run}`);
      },
    });
    const first = upkeep.tryNow("outbox");
    const last = upkeep.runNow("outbox").then(() => done.push("erased"));
    await new Promise(setImmediate);
    expect(done).toEqual([]);
    slow.resolve();
    await Promise.all([first, last]);
    expect(done).toEqual(["run 1", "run 2", "erased"]);
  });

  it("fails where the work fails, so that nothing is erased that has not been written", async () => {
    const { upkeep } = upkeepOf({ rollup: () => Promise.reject(new Error("no database")) });
    await expect(upkeep.runNow("rollup")).rejects.toThrow("no database");
  });
});

describe("a gate that was erased by its own alarm", () => {
  it("writes nothing", async () => {
    const { upkeep, seen } = upkeepOf({ purge: async () => upkeep.stop() });
    upkeep.keepPromise("purge", 1);
    await upkeep.runDue(10);
    expect(seen.transactions).toBe(0);
  });

  it("does nothing of what else was due, and sets no alarm", async () => {
    const done: string[] = [];
    const { upkeep, seen } = upkeepOf({
      purge: async () => upkeep.stop(),
      segment: async () => void done.push("segment"),
    });
    upkeep.keepPromise("purge", 1);
    upkeep.keepPromise("segment", 2);
    const before = seen.alarms.length;
    await upkeep.runDue(10);
    expect(done).toEqual([]);
    expect(seen.alarms.slice(before + 1)).toEqual([]); // the one for the case that a crash cuts the purge off
  });
});
