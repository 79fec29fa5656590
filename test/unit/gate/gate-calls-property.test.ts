import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { AdmitReply, FinishReply } from "../../../durable-objects/tenant-gate.messages";
import { SimulatedGate } from "./simulated-gate";

const IDS = ["r0", "r1", "r2", "r3", "r4", "r5"];
const id = fc.constantFrom(...IDS);
const draw = fc.constantFrom("d0", "d1", "d2", "d3", "d4");
const tokens = fc.oneof({ weight: 3, arbitrary: fc.nat(30) }, { weight: 1, arbitrary: fc.constant(null) });

/** One message to the gate, or something that happens to it. */
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("admit" as const), id, wantedDraws: fc.constantFrom(0, 0, 15) }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("finish" as const), id, tokens }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("draw" as const), id, draw, tokens }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("return" as const), id, running: fc.subarray(["d0", "d1", "d2"]) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), id }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(0, 0, 90, 900, 5_000, 61_000) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("revoke" as const), isRevoked: fc.boolean() }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/**
 * Callers, isolates and a network that repeat, delay, reorder and lose messages as they like. What is true of any
 * order is checked: at each answer, and after everything had time to end.
 */
class Chaos {
  readonly gate: SimulatedGate;
  /** Ids of which the gate has said or heard that they are over. */
  readonly ended = new Set<string>();
  /** Those of them that were refused without having held anything. */
  readonly refused = new Set<string>();
  readonly settled = new Map<string, string | null>();
  readonly grants = new Map<string, Set<number>>();
  isRevoked = false;

  constructor(limits: { inFlight: number; tokensPerMinute: number; requestsPerMinute: number }) {
    this.gate = new SimulatedGate(limits);
  }

  async play(each: Step): Promise<void> {
    const { gate } = this;
    switch (each.do) {
      case "admit": {
        const wasEnded = this.ended.has(each.id);
        const reply = gate.admit(each.id, { wantedDraws: each.wantedDraws, holdMs: 60_000 });
        this.hear(reply, (answer) => this.admitted(each.id, answer, wasEnded));
        break;
      }
      case "finish":
        this.hear(gate.finish(each.id, each.tokens), (answer) => this.finished(each.id, each.tokens, answer));
        if (each.tokens === null) this.voided(each.id);
        break;
      case "draw": {
        const name = `${each.id}-${each.draw}`;
        this.hear(gate.finish(name, each.tokens, each.id), (answer) => this.finished(name, each.tokens, answer));
        break;
      }
      case "return": {
        const running = each.running.map((name) => ({ requestId: `${each.id}-${name}`, tokens: 30, microdollars: 30 }));
        this.hear(gate.returnLease(each.id, running), () => {});
        break;
      }
      case "leave":
        this.hear(gate.leave(each.id), () => {});
        this.voided(each.id);
        this.voided(`lease_${each.id}`, this.ended.has(each.id) && this.settled.has(each.id));
        break;
      case "wait":
        await vi.advanceTimersByTimeAsync(each.ms);
        break;
      case "restart":
        await gate.settle(); // a message that was never answered may have been received or not
        gate.wake();
        for (const refused of this.refused) this.ended.delete(refused); // nothing of them was ever held
        this.refused.clear();
        break;
      case "revoke":
        if (each.isRevoked === this.isRevoked) break;
        this.isRevoked = each.isRevoked;
        gate.change({ type: each.isRevoked ? "delete_key" : "restore_key", id: "key" });
    }
    this.look();
  }

  hear<T>(reply: Promise<T>, answered: (answer: T) => void): void {
    reply.then(answered).catch((error: unknown) => this.problems.push(error));
  }
  readonly problems: unknown[] = [];

  admitted(requestId: string, answer: AdmitReply, wasEnded: boolean): void {
    if (answer.admitted) expect(wasEnded, `${requestId} was over before it was asked for`).toBe(false);
    else if ("refusal" in answer && !this.ended.has(requestId)) {
      this.ended.add(requestId);
      this.refused.add(requestId);
    }
  }

  finished(requestId: string, tokens: number | null, answer: FinishReply): void {
    if (!answer.settled || tokens === null) return;
    const known = this.settled.get(requestId);
    if (known !== undefined) expect(answer.receipt, "every settlement of an id answers as the first").toBe(known);
    this.settled.set(requestId, answer.receipt);
    this.over(requestId);
  }

  over(requestId: string): void {
    this.ended.add(requestId);
    this.refused.delete(requestId);
  }

  /** From now on nothing may be booked under it. */
  voided(requestId: string, isExempt = false): void {
    this.over(requestId);
    if (!isExempt && !this.voidedAtMs.has(requestId)) this.voidedAtMs.set(requestId, Date.now());
  }
  readonly voidedAtMs = new Map<string, number>();

  look(): void {
    for (const { requestId, grantedAtMs } of this.gate.book.holds()) {
      const grants = this.grants.get(requestId) ?? new Set();
      this.grants.set(requestId, grants.add(grantedAtMs));
      expect(grants.size, `${requestId} is held once`).toBe(1);
    }
    expect(this.gate.failures, "the gate never dies").toEqual([]);
    if (this.problems.length > 0) throw this.problems[0];
  }

  /** Whatever was left open has had its time; then nothing is held, and the ledger is what was answered. */
  async end(): Promise<void> {
    const { gate } = this;
    await vi.advanceTimersByTimeAsync(200_000);
    this.look();
    expect(gate.book.inFlight).toBe(0);
    expect(gate.book.waiting).toBe(0);
    expect(gate.rows("hold")).toEqual([]);
    expect(gate.rows("parked")).toEqual([]);
    const events = gate.events();
    const ids = events.map((event) => event.id);
    expect(new Set(ids).size, "no id is booked twice").toBe(ids.length);
    for (const { id: booked, atMs } of events) {
      expect(atMs, `${booked} was given back`).toBeLessThanOrEqual(this.voidedAtMs.get(booked) ?? atMs);
    }
    const completed = events.filter(({ outcome }) => outcome === "completed").map((event) => event.id);
    expect(new Set(completed)).toEqual(new Set(this.settled.keys()));
    const booked = events.reduce((sum, { priceMicrodollars }) => sum + (priceMicrodollars ?? 0), 0);
    expect(gate.spend()).toEqual({ settled: booked, held: 0 });
    if (this.isRevoked) gate.change({ type: "restore_key", id: "key" });
    gate.change({ type: "set_model_limits", model: "m", requestsPerMinute: 1_000, tokensPerMinute: 1_000_000 });
    expect(await gate.admit("new"), "the gate serves on").toMatchObject({ admitted: true });
  }
}

describe("a gate whose messages are repeated, delayed, lost and reordered", () => {
  beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  it("holds no id twice, books what it answered, ends everything, and never dies", async () => {
    const limits = fc.record({
      inFlight: fc.constantFrom(1, 4, 40),
      tokensPerMinute: fc.constantFrom(60, 300, 1_000, 100_000),
      requestsPerMinute: fc.constantFrom(2, 10, 1_000),
    });
    const property = fc.asyncProperty(limits, fc.array(step, { maxLength: 60 }), async (given, steps) => {
      vi.useFakeTimers({ now: Date.UTC(2026, 5, 15, 12) });
      try {
        const chaos = new Chaos(given);
        for (const each of steps) await chaos.play(each);
        await chaos.end();
      } finally {
        vi.useRealTimers();
      }
    });
    await fc.assert(property, { numRuns: 400 });
  }, 60_000);
});
