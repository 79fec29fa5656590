import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AdmissionBook, type RateRule } from "../../../src/core/admission-book";
import { DRAW_MS, type DrawCost, type Lease } from "../../../src/core/gate-leases";
import { LeaseBook } from "../../../src/core/lease-book";
import { type Facts, request, START_MS } from "./requests";

const PRICE = { input: 1_000_000, output: 1_000_000 }; // a token is a micro-dollar
const rules = (requests: number, tokens: number, spend: number): RateRule[] => [
  { key: "rpm/model/m", name: "requests_per_minute", unit: "requests", limit: requests },
  { key: "tpm/model/m", name: "tokens_per_minute", unit: "tokens", limit: tokens },
  { key: "spend/month@UTC/project/", name: "monthly_spend", unit: "microdollars", limit: spend },
];

const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("call" as const),
      isolate: fc.nat(2),
      tokens: fc.integer({ min: 1, max: 20 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("finish" as const),
      which: fc.nat(30),
      share: fc.double({ min: 0, max: 1.2, noNaN: true }),
      acknowledged: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("release" as const), which: fc.nat(30) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 50, 200, 500, 799, 800, 5_000, 30_000, 61_000),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("kill" as const), isolate: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const HOLD_MS = 10_000;
interface Running {
  readonly id: string;
  readonly isolate: number;
  readonly leaseId: string | null;
  readonly cost: DrawCost;
  isAlive: boolean;
}

/** One gate, three isolates with clocks of their own, calls that end, vanish, or die with their isolate. */
class World {
  book = new AdmissionBook<Facts>();
  isolates = [0, 1, 2].map(() => new LeaseBook<null>(16));
  nowMs = START_MS;
  made = 0;
  running: Running[] = [];
  /** When each call was let through, by the gate's time. */
  admittedAtMs: number[] = [];
  /** Micro-dollars of calls that are settled or booked at their worst. */
  spent = 0;
  drawn = 0;
  asked = 0;
  readonly returns: { leaseId: string; isolate: number; atMs: number }[] = [];
  readonly stored = {
    holds: new Map<string, never>(),
    leases: new Map<string, Lease<Facts>>(),
    buckets: new Map<string, { rule: string; bucketMs: number; count: number }>(),
  };

  constructor(
    readonly rates: readonly RateRule[],
    readonly inFlightLimit = 200,
  ) {}

  /** Isolates' clocks differ from the gate's, and from each other. */
  clockOf = (isolate: number) => this.nowMs + isolate * 12_345;

  do(each: Step): void {
    if (each.do === "wait") this.wait(each.ms);
    else if (each.do === "call") this.call(each.isolate, each.tokens);
    else if (each.do === "kill") this.kill(each.isolate);
    else if (each.do === "restart") this.restart();
    else this.end(each);
    this.check();
  }

  /** Time passes, and what is due on the way happens. */
  wait(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const next = this.returns.sort((a, b) => a.atMs - b.atMs)[0];
      if (!next || next.atMs > untilMs) break;
      this.returns.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      this.giveBack(next.leaseId, next.isolate);
    }
    this.nowMs = untilMs;
    for (const hold of this.book.expire(this.nowMs).unreconciled) {
      this.spent += hold.promptTokens + hold.outputTokens;
      this.running = this.running.filter(({ id }) => id !== hold.requestId);
    }
    for (const lease of this.book.expireLeases(this.nowMs)) {
      this.spent += lease.microdollars;
      this.running = this.running.filter(({ leaseId }) => leaseId !== lease.id);
    }
  }

  call(isolate: number, tokens: number): void {
    const id = `r${this.made++}`;
    const cost = { tokens, microdollars: tokens };
    const leases = this.isolates[isolate] as LeaseBook<null>;
    const draw = leases.draw("m", id, () => cost, this.clockOf(isolate));
    if (draw) {
      this.drawn++;
      this.admit({ id, isolate, leaseId: draw.leaseId, cost, isAlive: true });
      return;
    }
    this.asked++;
    const asked = request(id, {
      rates: [...this.rates],
      price: PRICE,
      promptTokens: tokens,
      outputTokens: 0,
      holdMs: HOLD_MS,
      inFlightLimit: this.inFlightLimit,
      queueLength: 0,
    });
    const before = this.book.rates(this.rates, this.nowMs);
    const hasSlot = this.book.inFlight < this.inFlightLimit;
    const { verdict } = this.book.admit(asked, this.nowMs);
    const fits = hasSlot && before.every(({ used, limit, unit }) => used + (unit === "requests" ? 1 : tokens) <= limit);
    expect(verdict, "no refusal but a true one").toBe(fits ? "granted" : "refused");
    if (verdict !== "granted") return;
    this.admit({ id, isolate, leaseId: null, cost, isAlive: true });
    const lease = this.book.lease(`l${id}`, asked, leases.wanted("m", this.clockOf(isolate)), this.nowMs);
    if (!lease) return;
    leases.put(
      "m",
      { id: lease.id, draws: lease.draws, tokens: lease.tokens, microdollars: lease.microdollars, extra: null },
      this.clockOf(isolate),
      this.clockOf(isolate),
    );
    this.returns.push({ leaseId: lease.id, isolate, atMs: this.nowMs + DRAW_MS });
  }

  admit(call: Running): void {
    this.running.push(call);
    this.admittedAtMs.push(this.nowMs);
  }

  end(each: Extract<Step, { do: "finish" | "release" }>): void {
    const alive = this.running.filter(({ isAlive }) => isAlive);
    const call = alive.at(each.which % Math.max(1, alive.length));
    if (!call) return;
    const leases = this.isolates[call.isolate] as LeaseBook<null>;
    if (each.do === "release" && call.leaseId && leases.release(call.leaseId, call.id)) {
      this.admittedAtMs.splice(this.admittedAtMs.lastIndexOf(this.nowMs), 0); // it stays counted as a call that was let through
      this.running = this.running.filter((other) => other !== call);
      return;
    }
    const share = each.do === "finish" ? each.share : 0;
    const used = {
      tokens: Math.floor(call.cost.tokens * share),
      microdollars: Math.floor(call.cost.microdollars * share),
    };
    const isSettled = call.leaseId
      ? this.book.settleDraw(call.leaseId, { requestId: call.id, ...call.cost }, used, this.nowMs) !== undefined
      : this.book.settle(call.id, used, this.nowMs).settled;
    expect(isSettled, "a call that nobody booked yet can be settled").toBe(true);
    this.spent += Math.min(used.microdollars, call.cost.microdollars);
    this.running = this.running.filter((other) => other !== call);
    // The answer may be lost; then the isolate still counts it as under way, and the gate knows better.
    const acknowledged = each.do === "release" || each.acknowledged;
    if (call.leaseId && acknowledged) leases.settled(call.leaseId, call.id);
    if (call.leaseId && !acknowledged) this.unacknowledged.add(call.id);
  }
  readonly unacknowledged = new Set<string>();

  giveBack(leaseId: string, isolate: number): void {
    const running = (this.isolates[isolate] as LeaseBook<null>)
      .close(leaseId)
      .filter(({ requestId }) => !this.unacknowledged.has(requestId));
    this.book.returnLease(
      leaseId,
      running.map(({ requestId, cost }) => ({ requestId, ...cost })),
      this.nowMs,
    );
  }

  /** Its calls and its leases are never heard of again. */
  kill(isolate: number): void {
    this.isolates[isolate] = new LeaseBook<null>(16);
    for (const call of this.running) if (call.isolate === isolate) call.isAlive = false;
    for (let at = this.returns.length - 1; at >= 0; at--)
      if (this.returns[at]?.isolate === isolate) this.returns.splice(at, 1);
  }

  restart(): void {
    this.save();
    this.book = AdmissionBook.restore<Facts>({
      holds: [...this.stored.holds.values()],
      leases: [...this.stored.leases.values()],
      buckets: [...this.stored.buckets.values()],
    });
  }

  save(): void {
    const { holds, leases, buckets } = this.book.takeDirty();
    for (const hold of holds.upsert) this.stored.holds.set(hold.requestId, hold as never);
    for (const id of holds.remove) this.stored.holds.delete(id);
    for (const lease of leases.upsert) this.stored.leases.set(lease.id, lease);
    for (const id of leases.remove) this.stored.leases.delete(id);
    for (const bucket of buckets.upsert) this.stored.buckets.set(`${bucket.rule} ${bucket.bucketMs}`, bucket);
    for (const { rule, bucketMs } of buckets.remove) this.stored.buckets.delete(`${rule} ${bucketMs}`);
  }

  check(): void {
    this.save();
    const [requests, , spend] = this.book.rates(this.rates, this.nowMs);
    const lastMinute = this.admittedAtMs.filter((atMs) => atMs > this.nowMs - 60_000).length;
    expect(lastMinute, "in every interval of 60 s at most the limit").toBeLessThanOrEqual(requests?.limit ?? 0);
    expect(this.running.length, "no more run than may").toBeLessThanOrEqual(this.inFlightLimit);
    const worst = this.running.reduce((sum, { cost }) => sum + cost.microdollars, 0);
    expect(this.spent + worst, "spend never exceeds its limit").toBeLessThanOrEqual(spend?.limit ?? 0);
    expect(spend?.used, "what is committed is counted").toBeGreaterThanOrEqual(this.spent + worst);
  }
}

describe("leases", () => {
  const limits = fc.record({
    requests: fc.integer({ min: 1, max: 400 }),
    tokens: fc.integer({ min: 20, max: 5_000 }),
    spend: fc.integer({ min: 20, max: 20_000 }),
  });

  it("keep every limit exact, with several isolates, clocks, kills, lost answers and restarts, and refuse nobody falsely", () => {
    fc.assert(
      fc.property(
        limits,
        fc.integer({ min: 1, max: 60 }),
        fc.array(step, { maxLength: 200 }),
        ({ requests, tokens, spend }, slots, steps) => {
          const world = new World(rules(requests, tokens, spend), slots);
          for (const each of steps) world.do(each);
          // Everything ends: what lives is settled, what died is booked when its time is over.
          for (const call of [...world.running])
            if (call.isAlive)
              world.do({
                do: "finish",
                which: world.running.filter(({ isAlive }) => isAlive).indexOf(call),
                share: 1,
                acknowledged: true,
              });
          world.do({ do: "wait", ms: DRAW_MS });
          world.wait(HOLD_MS);
          const [, , money] = world.book.rates(world.rates, world.nowMs);
          expect(money?.held).toBe(0);
          expect(money?.settled).toBe(world.spent);
          expect(world.book.inFlight).toBe(0);
        },
      ),
      { numRuns: 1_500 },
    );
  });

  it("spare a busy caller most of its questions", () => {
    const world = new World(rules(1_000_000, 1_000_000, 1_000_000));
    for (let calls = 0; calls < 1_000; calls++) {
      world.do({ do: "call", isolate: 0, tokens: 1 });
      world.do({ do: "finish", which: 0, share: 1, acknowledged: true });
      world.do({ do: "wait", ms: 1 });
    }
    expect(world.drawn).toBeGreaterThan(900);
    expect(world.drawn + world.asked).toBe(1_000);
  });

  it("shrink to nothing near a limit, so that the last calls are admitted one by one and all of them are", () => {
    const world = new World(rules(100, 1_000_000, 1_000_000));
    for (let calls = 0; calls < 300; calls++) {
      world.do({ do: "call", isolate: calls % 3, tokens: 1 });
      world.do({ do: "finish", which: 0, share: 1, acknowledged: true });
    }
    world.do({ do: "wait", ms: DRAW_MS });
    for (let calls = 0; calls < 100; calls++) world.do({ do: "call", isolate: calls % 3, tokens: 1 });
    expect(world.admittedAtMs.length).toBe(100);
  });

  it("count from their grant until a full minute after the end of their draw time", () => {
    const book = new AdmissionBook<Facts>();
    const asked = request("a", {
      rates: rules(1_000, 100_000, 100_000),
      price: PRICE,
      promptTokens: 1,
      outputTokens: 0,
      inFlightLimit: 100,
    });
    const startMs = START_MS - (START_MS % 250);
    book.lease("l", asked, 10, startMs);
    const used = (atMs: number) => book.rates(asked.rates, atMs)[0]?.used;
    expect(book.inFlight, "each draw may be a running call").toBe(10);
    const endMs = startMs + 750 + 250; // of the bucket in which the draw time ends
    expect([used(startMs), used(endMs + 60_000 - 1), used(endMs + 60_000)]).toEqual([10, 10, 0]);
  });

  it("do not keep what was counted after them from leaving in its time", () => {
    const book = new AdmissionBook<Facts>();
    const asked = (id: string) =>
      request(id, {
        rates: rules(1_000, 100_000, 100_000),
        price: PRICE,
        promptTokens: 1,
        outputTokens: 0,
        inFlightLimit: 100,
      });
    const startMs = START_MS - (START_MS % 250);
    book.lease("l", asked("a"), 10, startMs);
    book.admit(asked("b"), startMs + 1);
    expect(book.rates(asked("c").rates, startMs + 60_250)[0]?.used).toBe(10);
  });

  it("give back with their return what nobody drew, of every limit, once", () => {
    const book = new AdmissionBook<Facts>();
    const limits = rules(1_000, 100_000, 100_000);
    const asked = { rates: limits, price: PRICE, promptTokens: 2, outputTokens: 0, inFlightLimit: 100 };
    book.lease("l", request("a", asked), 10, START_MS);
    const used = () => book.rates(limits, START_MS).map((rule) => rule.used);
    expect([used(), book.inFlight]).toEqual([[10, 20, 20], 10]);
    const running = [{ requestId: "d", tokens: 2, microdollars: 2 }];
    for (let times = 0; times < 2; times++) {
      book.returnLease("l", running, START_MS);
      expect([used(), book.inFlight]).toEqual([[1, 2, 2], 1]);
    }
    book.settleDraw("l", { requestId: "d", tokens: 2, microdollars: 2 }, { tokens: 1, microdollars: 1 }, START_MS);
    expect([used(), book.inFlight]).toEqual([[1, 1, 1], 0]); // a request that was made stays counted
  });

  it("are granted to nobody while somebody waits for a slot", () => {
    const book = new AdmissionBook<Facts>();
    const asked = (id: string) =>
      request(id, { rates: rules(1_000, 100_000, 100_000), price: PRICE, inFlightLimit: 8 });
    for (let made = 0; made < 8; made++) book.admit(asked(`a${made}`), START_MS);
    expect(book.admit(asked("waits"), START_MS).verdict).toBe("waiting");
    for (let made = 0; made < 6; made++) book.release(`a${made}`);
    expect(book.admit(asked("newcomer"), START_MS).verdict, "nor is a slot").toBe("waiting");
    book.leave("newcomer");
    expect(book.lease("l", asked("a7"), 10, START_MS)).toBeUndefined();
    book.leave("waits");
    expect(book.lease("l", asked("a7"), 10, START_MS)).toMatchObject({ draws: 1 });
  });

  it("take at most an eighth of what is left of a limit, and a fourth of the free slots", () => {
    const leased = (requests: number, inFlightLimit: number) =>
      new AdmissionBook<Facts>().lease(
        "l",
        request("a", { rates: rules(requests, 100_000, 100_000), price: PRICE, inFlightLimit, outputTokens: 0 }),
        ...([16, START_MS] as const),
      )?.draws;
    expect([leased(7, 100), leased(8, 100), leased(80, 100), leased(1_000, 100)]).toEqual([undefined, 1, 10, 16]);
    expect([leased(1_000, 3), leased(1_000, 4), leased(1_000, 40)]).toEqual([undefined, 1, 10]);
  });

  it("do not set the clock forward over a restart", () => {
    const book = new AdmissionBook<Facts>();
    const asked = (id: string) =>
      request(id, {
        rates: rules(1_000, 100_000, 100_000),
        price: PRICE,
        promptTokens: 1,
        outputTokens: 0,
        inFlightLimit: 100,
      });
    book.admit(asked("early"), START_MS - 59_900);
    book.lease("l", asked("a"), 10, START_MS);
    const { leases, buckets } = book.takeDirty();
    const restored = AdmissionBook.restore<Facts>({ holds: [], leases: leases.upsert, buckets: buckets.upsert });
    expect(restored.rates(asked("c").rates, START_MS + 1)[0]?.used).toBe(11);
    expect(restored.leaseOf("l")).toEqual(book.leaseOf("l"));
  });

  it("give no more draws than were counted, however small the calls are", () => {
    const book = new LeaseBook<null>(16);
    book.put("m", { id: "l", draws: 2, tokens: 100, microdollars: 100, extra: null }, 0, 0);
    const small = () => ({ tokens: 1, microdollars: 1 });
    expect(["a", "b", "c"].map((id) => book.draw("m", id, small, 1) !== undefined)).toEqual([true, true, false]);
  });

  it("are not asked for by a caller that comes now and then", () => {
    const book = new LeaseBook<null>(16);
    expect([book.wanted("m", 0), book.wanted("m", 1_000), book.wanted("m", 5_000)]).toEqual([0, 0, 0]);
    expect([book.wanted("m", 5_100), book.wanted("m", 5_200), book.wanted("m", 5_300)]).toEqual([1, 2, 4]);
  });

  it("are drawn on no longer than 800 ms after they were asked for, however long the answer took", () => {
    const book = new LeaseBook<null>(16);
    const lease = { id: "l", draws: 5, tokens: 50, microdollars: 0, extra: null };
    expect(book.put("m", lease, 1_000, 1_700)).toBe(100);
    const cost = () => ({ tokens: 1, microdollars: 0 });
    expect(book.draw("m", "a", cost, 1_799)).toMatchObject({ leaseId: "l" });
    expect(book.draw("m", "b", cost, 1_800)).toBeUndefined();
    expect(book.draw("n", "c", cost, 1_700)).toBeUndefined(); // a lease is for one name alone
  });
});
