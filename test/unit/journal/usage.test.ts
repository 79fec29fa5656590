import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Ledger } from "../../../durable-objects/ports";
import type { HourlyUsage } from "../../../durable-objects/tenant-gate.messages";
import { FLUSH_HOURS, flushUsage, SYNCED_HOURS_MS } from "../../../durable-objects/usage-flush";
import { DECISION, EVENT, HOME, TestGate } from "./gate";

const HOUR_MS = 3_600_000;
const START_MS = 1_000 * HOUR_MS;

/** How the ledger behaves for one write. `late`: it says that it failed, and the write arrives some time later. */
type Behaviour = "takes" | "fails" | "half" | "lost answer" | "late";

/** Absolute numbers by hour, of which a smaller one never replaces a larger one; last uses never go back. */
class TestLedger implements Ledger {
  readonly hours = new Map<string, HourlyUsage>();
  readonly lastUsed = new Map<string, number>();
  readonly sizes: number[] = [];
  readonly #late: (() => void)[] = [];
  behave: () => Behaviour = () => "takes";
  during: () => void = () => {};

  async write(_: unknown, usage: readonly HourlyUsage[], lastUsedMs: Readonly<Record<string, number>>): Promise<void> {
    const behaviour = this.behave();
    this.sizes.push(usage.length);
    this.during();
    await Promise.resolve();
    const taken = behaviour === "half" ? usage.slice(0, Math.ceil(usage.length / 2)) : usage;
    const apply = () => {
      for (const hour of taken) {
        const { hourMs, kind, model, keyId, serviceTier, batch, endUser } = hour;
        const name = JSON.stringify([hourMs, kind, model, keyId, serviceTier, batch, endUser]);
        if ((this.hours.get(name)?.requests ?? 0) <= hour.requests) this.hours.set(name, hour);
      }
      if (behaviour === "half") return;
      for (const [id, atMs] of Object.entries(lastUsedMs)) {
        this.lastUsed.set(id, Math.max(atMs, this.lastUsed.get(id) ?? 0));
      }
    };
    if (behaviour === "late") this.#late.push(apply);
    else if (behaviour !== "fails") apply();
    this.during();
    if (behaviour !== "takes") throw new Error(`the ledger: ${behaviour}`);
  }

  arrive(): void {
    for (const apply of this.#late.splice(0)) apply();
  }

  sums() {
    const sum = (of: (hour: HourlyUsage) => number) => [...this.hours.values()].reduce((all, one) => all + of(one), 0);
    return {
      requests: sum(({ requests }) => requests),
      price: sum(({ priceMicrodollars }) => priceMicrodollars),
      minutes: sum(({ minutes }) => Object.values(minutes).reduce((all, [requests]) => all + requests, 0)),
    };
  }
}

const flush = (gate: TestGate, ledger: Ledger, nowMs: number) =>
  flushUsage(
    {
      sql: gate.sql,
      usage: gate.journal.usage,
      ledger,
      transaction: gate.storage.transactionSync,
      floorMs: () => gate.journal.floorMs,
    },
    HOME,
    nowMs,
  );
const hoursOf = (gate: TestGate) => gate.journal.usage.unsynced(null, 1_000_000);

describe("usage on its way into the ledger", () => {
  it("is exact, last uses too, however the ledger fails and whatever is recorded meanwhile", async () => {
    const behaviours = fc.array(fc.constantFrom<Behaviour>("takes", "fails", "half", "lost answer", "late"), {
      maxLength: 12,
    });
    const calls = fc.array(
      fc.record({ key: fc.nat({ max: 2 }), user: fc.nat({ max: 2 }), later: fc.nat({ max: 9 }) }),
      {
        minLength: 1,
        maxLength: 40,
      },
    );
    await fc.assert(
      fc.asyncProperty(behaviours, calls, fc.nat({ max: 3 }), async (behaving, made, restartEach) => {
        const gate = new TestGate();
        const ledger = new TestLedger();
        const lastUsed = new Map<string, number>();
        let nowMs = START_MS;
        let recorded = 0;
        const record = () => {
          const call = made[recorded % made.length] ?? { key: 0, user: 0, later: 0 };
          nowMs += call.later * 400_000;
          const keyId = `key-${call.key}`;
          gate.append(`r${recorded++}`, nowMs, { keyId, endUser: call.user ? `user-${call.user}` : null });
          lastUsed.set(keyId, nowMs);
        };
        const todo = [...behaving];
        ledger.behave = () => todo.shift() ?? "takes";
        ledger.during = () => {
          if (recorded < 2 * made.length) record();
        };
        for (let turn = 0; turn <= behaving.length; turn++) {
          record();
          await flush(gate, ledger, nowMs).catch(() => {});
          if (turn % 3 === 0) ledger.arrive();
          if (restartEach > 0 && turn % restartEach === 0) gate.restart();
        }
        ledger.behave = () => "takes";
        ledger.during = () => {};
        await flush(gate, ledger, nowMs);
        ledger.arrive();
        expect(ledger.sums()).toEqual({ requests: recorded, price: recorded * 11, minutes: recorded });
        expect(Object.fromEntries(ledger.lastUsed)).toEqual(Object.fromEntries(lastUsed));
        expect(hoursOf(gate)).toEqual([]);
        ledger.sizes.length = 0;
        await flush(gate, ledger, nowMs);
        expect(ledger.sizes).toEqual([]);
      }),
      { numRuns: 80 },
    );
  }, 60_000);

  it("stays to be written where an hour grew while it was written", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    gate.append("r1", START_MS);
    let grows = true;
    ledger.during = () => {
      if (grows) gate.append("r2", START_MS + 1);
      grows = false;
    };
    await flush(gate, ledger, START_MS);
    expect(ledger.sums().requests).toBe(1);
    expect(hoursOf(gate)).toMatchObject([{ usage: { requests: 2 } }]);
    await flush(gate, ledger, START_MS);
    expect(ledger.sums().requests).toBe(2);
  });

  it("keeps a last use that could not be written, after a restart too", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    gate.append("r1", START_MS + 5_123);
    ledger.behave = () => "fails";
    await expect(flush(gate, ledger, START_MS)).rejects.toThrow("fails");
    gate.restart();
    ledger.behave = () => "takes";
    await flush(gate, ledger, START_MS);
    expect(Object.fromEntries(ledger.lastUsed)).toEqual({ key: START_MS + 5_123 });
  });

  it("knows of hours of earlier versions the minute in which a key was last used", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    gate.append("r1", START_MS + 60_001);
    gate.append("r2", START_MS + 11 * 60_000 + 1);
    for (const { key, usage } of hoursOf(gate)) {
      const { lastEventMs: _, endUser: __, estimates: ___, ...earlier } = usage;
      gate.sql.putUsageHour(key, JSON.stringify(earlier));
    }
    expect(hoursOf(gate)).toMatchObject([{ usage: { endUser: null, estimates: { requests: 0 } } }]);
    await flush(gate, ledger, START_MS);
    expect(ledger.lastUsed.get("key")).toBe(START_MS + 11 * 60_000);
  });

  it("goes in writes of a bounded size, and of what was written only the rest goes again", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    const users = FLUSH_HOURS * 2 + 100;
    for (let user = 0; user < users; user++) gate.append(`r${user}`, START_MS, { endUser: `user-${user}` });
    let writes = 0;
    ledger.behave = () => (++writes === 2 ? "fails" : "takes");
    await expect(flush(gate, ledger, START_MS)).rejects.toThrow("fails");
    await flush(gate, ledger, START_MS);
    expect(ledger.sizes).toEqual([FLUSH_HOURS, FLUSH_HOURS, FLUSH_HOURS, 100]);
    expect(ledger.sums().requests).toBe(users);
  });

  it("comes to an end while the same hour goes on growing", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    let calls = 0;
    const record = () => gate.append(`r${calls++}`, START_MS);
    record();
    ledger.during = record;
    await flush(gate, ledger, START_MS);
    expect(ledger.sizes).toEqual([1]);
  });
});

describe("hours in the gate", () => {
  it("are told apart by each part of their name, end users too", () => {
    const gate = new TestGate();
    gate.append("r0", START_MS);
    gate.append("r00", START_MS + 59 * 60_000);
    const others = [
      { endUser: "eve" },
      { endUser: "max" },
      { model: "n" },
      { keyId: "other" },
      { kind: "embeddings" as const },
      { serviceTier: "flex" as const },
      { batch: true },
    ];
    for (const [at, more] of others.entries()) gate.append(`r${at + 1}`, START_MS, more);
    gate.append("later", START_MS + HOUR_MS);
    expect(hoursOf(gate).map(({ usage }) => usage.requests)).toHaveLength(others.length + 2);
    const named = hoursOf(gate).filter(({ usage }) => usage.endUser !== null);
    expect(named.map(({ usage }) => [usage.endUser, usage.requests])).toEqual([
      ["eve", 1],
      ["max", 1],
    ]);
  });

  it("count every event of one commit", () => {
    const gate = new TestGate();
    gate.append("r0", START_MS);
    for (const id of ["r1", "r2"])
      gate.journal.append({ ...DECISION, id, atMs: START_MS }, { ...EVENT, id, atMs: START_MS });
    gate.save();
    expect(hoursOf(gate)).toMatchObject([{ usage: { requests: 3 } }]);
  });

  it("count minutes, tokens, money and estimates of each event, across restarts", () => {
    const gate = new TestGate();
    gate.append("r1", START_MS + 60_000, { overrunTokens: 2 });
    gate.restart();
    gate.append("r2", START_MS + 60_000, { estimated: true, unseen: { tokens: 9, costMicrodollars: 4 } });
    gate.append("r3", START_MS + 59 * 60_000, { priceMicrodollars: null, costMicrodollars: null });
    const [hour] = hoursOf(gate);
    expect(hour?.usage).toEqual({
      hourMs: START_MS,
      kind: "completions",
      model: "m",
      keyId: "key",
      serviceTier: "default",
      batch: false,
      endUser: null,
      requests: 3,
      inputTokens: 15,
      cachedTokens: 3,
      outputTokens: 21,
      priceMicrodollars: 22,
      costMicrodollars: 6,
      minutes: { 1: [2, 10, 2, 14], 59: [1, 5, 1, 7] },
      estimates: {
        requests: 1,
        tokens: 12,
        costMicrodollars: 3,
        unseenTokens: 9,
        unseenCostMicrodollars: 4,
        overrunTokens: 0, // what exceeds a reservation is counted like all else
      },
      lastEventMs: START_MS + 59 * 60_000,
      remainder: { price: 0, cost: 0, seq: 3 },
    });
  });

  it("are forgotten 48 hours after they ended, once the ledger has them, and never counted again from zero", async () => {
    const gate = new TestGate();
    const ledger = new TestLedger();
    const stored = () =>
      gate.storage.sql.exec<{ hour_ms: number }>("select hour_ms from usage_hour order by hour_ms").toArray();
    gate.append("old", START_MS);
    gate.append("next", START_MS + HOUR_MS);
    gate.sql.removeSyncedUsage(START_MS + 10 * HOUR_MS, 100); // the ledger has none of them yet
    expect(stored()).toHaveLength(2);
    await flush(gate, ledger, START_MS + 100 * SYNCED_HOURS_MS); // this machine's clock alone decides nothing
    expect(stored()).toHaveLength(2);
    ledger.behave = () => "fails";
    gate.append("r1", START_MS + SYNCED_HOURS_MS + HOUR_MS);
    await flush(gate, ledger, START_MS + SYNCED_HOURS_MS + HOUR_MS).catch(() => {});
    expect(stored()).toHaveLength(3);
    ledger.behave = () => "takes";
    gate.append("r2", START_MS + SYNCED_HOURS_MS + HOUR_MS);
    await flush(gate, ledger, START_MS + SYNCED_HOURS_MS + HOUR_MS);
    expect(stored().map(({ hour_ms }) => hour_ms)).toEqual([START_MS + HOUR_MS, START_MS + SYNCED_HOURS_MS + HOUR_MS]);
    gate.restart();
    gate.append("clock went back", START_MS);
    await flush(gate, ledger, START_MS);
    expect(ledger.sums().requests).toBe(5);
  });
});
