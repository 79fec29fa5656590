import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FairCounter, type FairRequest, FairShare, type FairSlot } from "../../../src/core/fair-share";

const FOREVER = Number.MAX_SAFE_INTEGER;
const OPTIONS = { slots: 3, queueLength: 1_000, slotMs: 60_000, burst: 0 };
const asked = (id: string, tenant: string, more: Partial<FairRequest> = {}): FairRequest => ({
  ...{ id, tenant, key: "key", weight: 1, inputTokens: 10, giveUpAtMs: FOREVER },
  ...more,
});

type Step =
  | ({ do: "ask"; tenant: string; key: string; weight: number; inputTokens: number } & {
      sequences: number;
      patienceMs: number;
    })
  | { do: "narrow"; which: number; sequences: number }
  | { do: "finish"; which: number; inputTokens: number; moreTokens: number }
  | { do: "progress"; which: number; moreTokens: number }
  | { do: "leave"; which: number }
  | { do: "wait"; ms: number }
  | { do: "resize"; slots: number }
  | { do: "restart" };
const which = fc.nat(9);
const tokens = fc.nat(100);
const asks = (...patienceMs: number[]) =>
  fc.record({
    do: fc.constant("ask" as const),
    tenant: fc.constantFrom("a", "b", "c", "d"),
    key: fc.constantFrom("k", "l"),
    weight: fc.constantFrom(1, 2, 4), // exact in binary, so that sums in another order are the same sums
    inputTokens: tokens,
    sequences: fc.constantFrom(1, 1, 2, 16),
    patienceMs: fc.constantFrom(...patienceMs),
  });
const finishes = fc.record({ do: fc.constant("finish" as const), which, inputTokens: tokens, moreTokens: tokens });
const others = [
  { weight: 5, arbitrary: finishes },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("progress" as const), which, moreTokens: tokens }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), which }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("narrow" as const), which, sequences: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(1, 400, 30_000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resize" as const), slots: fc.integer({ min: 0, max: 5 }) }) },
];
const lives = (...steps: fc.WeightedArbitrary<Step>[]) =>
  fc.array<Step>(fc.oneof(...others, ...steps), { maxLength: 150, size: "max" });
/** What a wait may be like is forgotten at a restart, so who has no patience at all, or all of it, decides alike. */
const life = lives({ weight: 8, arbitrary: asks(0, FOREVER, FOREVER) });
const lifeWithRestarts = lives(
  { weight: 8, arbitrary: asks(0, 500, 20_000, FOREVER) },
  { weight: 1, arbitrary: fc.constant({ do: "restart" as const }) },
);

/** What an honest caller and an honest store know of a dispatcher, beside the dispatcher itself. */
class World {
  share: FairShare;
  nowMs = 0;
  running: FairSlot[] = [];
  waiting: FairRequest[] = [];
  /** Weighted service by tenant and by tenant/key, as the calls themselves count it. */
  readonly ledger = new Map<string, number>();
  readonly counters = new Map<string, FairCounter[]>();
  readonly slots = new Map<string, FairSlot>();
  #made = 0;

  constructor(public options = OPTIONS) {
    this.share = new FairShare(options);
  }

  /** @returns what was decided, for comparison */
  step(step: Step): unknown {
    const decided = this.#decide(step);
    return [decided, this.grant()];
  }

  ask(request: FairRequest): string {
    const verdict = this.share.ask(request, this.nowMs);
    expect(this.share.ask(request, this.nowMs), "the same answer again").toEqual(verdict);
    if (verdict.verdict === "granted") this.#start(verdict.slot);
    if (verdict.verdict === "waiting") this.waiting.push(request);
    return `${verdict.verdict} ${verdict.verdict === "waiting" ? verdict.position : ""}`;
  }

  /** @returns the calls that were let in, in order */
  grant(): string[] {
    const granted = this.share.grantWaiting(this.nowMs);
    for (const slot of granted) {
      const of = this.waiting.filter(({ tenant, key }) => tenant === slot.tenant && key === slot.key);
      expect(of[0]?.id, "first come, first served within a key").toBe(slot.id);
      this.waiting = this.waiting.filter(({ id }) => id !== slot.id);
      this.#start(slot);
    }
    this.save();
    return granted.map(({ id }) => id);
  }

  progress(index: number, moreTokens: number): void {
    const slot = this.running[index % Math.max(1, this.running.length)];
    if (!slot) return;
    const outputTokens = slot.outputTokens + moreTokens;
    expect(this.share.progress(slot.id, outputTokens, this.nowMs)).toBe(true);
    this.running = this.running.map((other) => (other.id === slot.id ? { ...slot, outputTokens } : other));
    this.#count(slot, 2 * moreTokens);
  }

  finish(index: number, inputTokens: number, moreTokens: number): void {
    const [slot] = this.running.splice(index % Math.max(1, this.running.length), 1);
    if (!slot) return;
    const used = { inputTokens, outputTokens: slot.outputTokens + moreTokens };
    expect(this.share.finish(slot.id, used, this.nowMs)).toBe(true);
    expect(this.share.finish(slot.id, used, this.nowMs)).toBe(false);
    this.#count(slot, inputTokens - slot.inputTokens + 2 * moreTokens);
  }

  narrow(index: number, sequences: number): void {
    const slot = this.running[index % Math.max(1, this.running.length)];
    if (!slot) return;
    this.share.narrow(slot.id, sequences);
    const left = { ...slot, sequences: Math.min(slot.sequences ?? 1, sequences) };
    this.running = this.running.map((other) => (other.id === slot.id ? left : other));
  }

  get sequences(): number {
    return this.running.reduce((sum, { sequences = 1 }) => sum + sequences, 0);
  }

  leave(index: number): void {
    const [request] = this.waiting.splice(index % Math.max(1, this.waiting.length), 1);
    if (request) expect([this.share.leave(request.id), this.share.leave(request.id)]).toEqual([true, false]);
  }

  save(): void {
    const { tenants, slots } = this.share.takeDirty();
    for (const { tenant, counters } of tenants) this.counters.set(tenant, counters);
    for (const slot of slots.upsert) this.slots.set(slot.id, slot);
    for (const id of slots.remove) this.slots.delete(id);
  }

  /** The memory is gone, and with it those who waited. */
  restored(): FairShare {
    return FairShare.restore(
      { counters: [...this.counters.values()].flat(), slots: [...this.slots.values()] },
      this.options,
    );
  }

  #decide(step: Step): unknown {
    if (step.do === "ask") {
      const { tenant, key, weight, inputTokens, sequences, patienceMs } = step;
      const giveUpAtMs = patienceMs === FOREVER ? FOREVER : this.nowMs + patienceMs;
      return this.ask(asked(`r${this.#made++}`, tenant, { key, weight, inputTokens, sequences, giveUpAtMs }));
    }
    if (step.do === "narrow") return this.narrow(step.which, step.sequences);
    if (step.do === "finish") return this.finish(step.which, step.inputTokens, step.moreTokens);
    if (step.do === "progress") return this.progress(step.which, step.moreTokens);
    if (step.do === "leave") return this.leave(step.which);
    if (step.do === "wait") {
      this.nowMs += step.ms;
      const { freed, gaveUp } = this.share.expire(this.nowMs);
      this.running = this.running.filter(({ id }) => !freed.some((slot) => slot.id === id));
      expect(this.waiting.map(({ id }) => id)).toEqual(expect.arrayContaining(gaveUp));
      this.waiting = this.waiting.filter(({ id }) => !gaveUp.includes(id));
      return [freed.map(({ id }) => id).sort(), gaveUp];
    }
    if (step.do === "resize") {
      this.options = { ...this.options, slots: step.slots };
      return this.share.resize(step.slots);
    }
    this.share = this.restored();
    this.waiting = [];
    return undefined;
  }

  #start(slot: FairSlot): void {
    this.running.push(slot);
    expect(slot.sequences).toBeGreaterThanOrEqual(1);
    expect(this.sequences, "sequences at once").toBeLessThanOrEqual(this.options.slots);
    this.#count(slot, slot.inputTokens);
  }

  #count({ tenant, key, weight }: FairSlot, cost: number): void {
    for (const name of [tenant, `${tenant}/${key}`]) this.ledger.set(name, this.of(name) + cost / weight);
  }

  of(name: string): number {
    return this.ledger.get(name) ?? 0;
  }
}

/** A failure of so long a history is told as it is: shrinking it takes minutes. */
const LONG = { numRuns: 40, endOnFailure: true };
const MOST_TOKENS = 50;
const CALL_COST = MOST_TOKENS + 2 * MOST_TOKENS;
/** What happens between two requests: one call that runs makes some tokens, another one ends. */
const work = fc.record({
  which,
  inputTokens: fc.integer({ min: 1, max: MOST_TOKENS }),
  /** Of the tokens that its prompt was announced with, those that it had. */
  truth: fc.double({ min: 0, max: 1, noNaN: true }),
  first: fc.nat(MOST_TOKENS / 2),
  more: fc.nat(MOST_TOKENS / 2),
  another: fc.constantFrom("c", "d", null),
});
type Work = typeof work extends fc.Arbitrary<infer W> ? W : never;
const works = fc.array(work, { minLength: 100, maxLength: 300 });
const slotCounts = fc.integer({ min: 1, max: 4 });
const bursts = fc.constantFrom(0, 64, 1_024);

function serve(world: World, { which: index, truth, first, more }: Work): void {
  if (world.running[index % world.running.length]?.outputTokens === 0) world.progress(index, first);
  world.finish(0, Math.ceil((world.running[0]?.inputTokens ?? 0) * truth), more);
  world.grant();
}

type Asker = (index: number) => Pick<FairRequest, "tenant" | "key" | "weight">;
/**
 * Two that always have something waiting, and others that come and go.
 * @returns the largest difference of their weighted service in any interval, by the calls' own count
 */
function contest(
  done: readonly Work[],
  options: { readonly slots: number; readonly burst: number },
  one: Asker,
  two: Asker,
  name: (of: FairRequest) => string,
): number {
  const world = new World({ ...OPTIONS, queueLength: 100_000, ...options });
  const differences: number[] = [];
  for (const [index, each] of done.entries()) {
    const { inputTokens } = each;
    const asking = [one, two].map((asker, at) => asked(`${at} ${index}`, "", { ...asker(index), inputTokens }));
    // Twice each, while at most one ends: both have more and more waiting.
    for (const request of asking) for (const id of [request.id, `${request.id} again`]) world.ask({ ...request, id });
    if (each.another) world.ask(asked(`another ${index}`, each.another, { inputTokens }));
    const [ofOne = 0, ofTwo = 0] = asking.map((request) => world.of(name(request)));
    if (index >= options.slots) differences.push(ofOne - ofTwo);
    serve(world, each);
  }
  return Math.max(...differences) - Math.min(...differences);
}

describe("fair share", () => {
  it("gives every slot and no more, leaves none free while anybody waits, and answers everybody once", () => {
    fc.assert(
      fc.property(lifeWithRestarts, bursts, (steps, burst) => {
        const world = new World({ ...OPTIONS, burst });
        for (const step of steps) {
          world.step(step);
          const { inFlight, queueDepth } = world.share.metrics(world.nowMs);
          expect([inFlight, queueDepth]).toEqual([world.sequences, world.waiting.length]);
          expect([...world.slots.keys()].sort()).toEqual(world.running.map(({ id }) => id).sort());
          if (queueDepth > 0) expect(inFlight, "work-conserving").toBeGreaterThanOrEqual(world.options.slots);
        }
      }),
      { numRuns: 500 },
    );
  }, 30_000);

  it("gives a call of several sequences the slots that are free, at least one, and never makes it wait for more", () => {
    const share = new FairShare({ ...OPTIONS, slots: 4 });
    const sequencesOf = (id: string) => share.slotOf(id)?.sequences;
    share.ask(asked("three", "a", { sequences: 3 }), 0);
    expect(share.ask(asked("sixteen", "b", { sequences: 16 }), 0)).toMatchObject({ verdict: "granted" });
    expect([sequencesOf("three"), sequencesOf("sixteen")]).toEqual([3, 1]);
    expect(share.ask(asked("waits", "c", { sequences: 16 }), 0)).toMatchObject({ verdict: "waiting" });
    expect(share.ask(asked("next", "d"), 0)).toMatchObject({ verdict: "waiting" });
    share.narrow("three", 2);
    expect(share.grantWaiting(0)).toMatchObject([{ id: "waits", sequences: 1 }]);
    share.finish("three", { inputTokens: 10, outputTokens: 10 }, 0);
    expect(share.grantWaiting(0)).toMatchObject([{ id: "next", sequences: 1 }]);
    expect(share.metrics(0)).toMatchObject({ inFlight: 3, queueDepth: 0 });
    share.resize(100, 5);
    expect(share.ask(asked("widest", "e", { sequences: 16 }), 0)).toMatchObject({ slot: { sequences: 5 } });
  });

  it("takes a slot that an earlier version stored for one sequence", () => {
    const tokens = { inputTokens: 1, outputTokens: 0 };
    const old: FairSlot = { id: "old", tenant: "a", key: "k", weight: 1, ...tokens, grantedAtMs: 0, deadlineMs: 9 };
    const share = FairShare.restore({ counters: [], slots: [old] }, { ...OPTIONS, slots: 3 });
    expect(share.metrics(0)).toMatchObject({ inFlight: 1 });
    expect(share.ask(asked("new", "b", { sequences: 16 }), 0)).toMatchObject({ slot: { sequences: 2 } });
    share.finish("old", { inputTokens: 1, outputTokens: 1 }, 0);
    expect(share.metrics(0)).toMatchObject({ inFlight: 2 });
  });

  it("gives no slot to a question that comes after its call was released or cancelled, and remembers so many of these", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    const ended = { verdict: "refused", reason: "ended", retryAfterMs: 0 };
    const nothing = { inputTokens: 0, outputTokens: 0 };
    share.ask(asked("served", "a"), 0);
    share.ask(asked("cancelled", "a"), 0);
    share.ask(asked("released", "a"), 0);
    share.leave("served"); // runs already: not touched
    expect(share.metrics(0)).toMatchObject({ inFlight: 1, queueDepth: 2 });
    share.leave("cancelled");
    share.finish("released", nothing, 0);
    share.finish("served", nothing, 0);
    share.leave("early");
    share.finish("early too", nothing, 0);
    expect(share.metrics(0)).toMatchObject({ inFlight: 0, queueDepth: 0 });
    for (const id of ["served", "cancelled", "released", "early", "early too"]) {
      expect(share.ask(asked(id, "a"), 0), id).toEqual(ended);
    }
    for (let index = 0; index < 10_000; index++) share.leave(`other ${index}`);
    expect(share.ask(asked("early", "a"), 0)).toMatchObject({ verdict: "granted" });
  });

  it("decides after a restart what it would have decided without one, but for those who waited", () => {
    fc.assert(
      fc.property(life, life, bursts, (before, after, burst) => {
        const [world, twin] = [new World({ ...OPTIONS, burst }), new World({ ...OPTIONS, burst })];
        for (const step of before) for (const each of [world, twin]) each.step(step);
        for (const each of [world, twin]) while (each.waiting.length > 0) each.leave(0);
        for (const each of [world, twin]) each.save();
        twin.share = twin.restored();
        for (const step of after) expect(twin.step(step)).toEqual(world.step(step));
      }),
      { numRuns: 500 },
    );
  }, 30_000);

  it("keeps the weighted service of two tenants that always have something waiting within the paper's bound", () => {
    fc.assert(
      fc.property(works, slotCounts, bursts, fc.constantFrom(1, 2, 4), (done, slots, burst, weight) => {
        const one = () => ({ tenant: "a", key: "k", weight });
        const two = () => ({ tenant: "b", key: "k", weight: 1 });
        const difference = contest(done, { slots, burst }, one, two, ({ tenant }) => tenant);
        expect(difference).toBeLessThanOrEqual(2 * slots * CALL_COST);
      }),
      LONG,
    );
  });

  it("gives a tenant with many keys what it gives one with a single key", () => {
    fc.assert(
      fc.property(works, slotCounts, bursts, fc.integer({ min: 2, max: 100 }), (done, slots, burst, keys) => {
        const many = (index: number) => ({ tenant: "a", key: `k${index % keys}`, weight: 1 });
        const single = () => ({ tenant: "b", key: "k", weight: 1 });
        const difference = contest(done, { slots, burst }, many, single, ({ tenant }) => tenant);
        expect(difference).toBeLessThanOrEqual(2 * slots * CALL_COST);
      }),
      LONG,
    );
  });

  it("keeps two keys of a tenant within the same bound of each other", () => {
    fc.assert(
      fc.property(works, slotCounts, bursts, (done, slots, burst) => {
        const of = (key: string) => () => ({ tenant: "a", key, weight: 1 });
        const name = ({ tenant, key }: FairRequest) => `${tenant}/${key}`;
        expect(contest(done, { slots, burst }, of("k"), of("l"), name)).toBeLessThanOrEqual(2 * slots * CALL_COST);
      }),
      LONG,
    );
  });

  it("gives who was away, however long, no more credit than the burst", () => {
    fc.assert(
      fc.property(works, works, slotCounts, bursts, fc.boolean(), (away, back, slots, burst, wasThere) => {
        const world = new World({ ...OPTIONS, queueLength: 100_000, slots, burst });
        if (wasThere) world.ask(asked("long ago", "back"));
        const ask = (tenant: string, when: string, { inputTokens }: Work, index: number) => {
          for (const twice of [1, 2]) world.ask(asked(`${tenant} ${when} ${index} ${twice}`, tenant, { inputTokens }));
        };
        for (const [index, each] of away.entries()) {
          ask("busy", "before", each, index);
          serve(world, each);
        }
        const [busyHad, backHad] = [world.of("busy"), world.of("back")];
        for (const [index, each] of back.entries()) {
          ask("back", "now", each, index);
          serve(world, each);
          const lead = world.of("back") - backHad - (world.of("busy") - busyHad);
          expect(lead).toBeLessThanOrEqual(2 * slots * CALL_COST + burst);
          if (!world.waiting.some(({ tenant }) => tenant === "busy")) break;
        }
      }),
      LONG,
    );
  });

  it("gives who comes and goes no more than one burst above those who stay, whenever one looks", () => {
    const visits = fc.array(fc.record({ calls: fc.nat(60), pause: fc.nat(60) }), { minLength: 5, maxLength: 30 });
    fc.assert(
      fc.property(works, visits, slotCounts, bursts, (done, pattern, slots, burst) => {
        const world = new World({ ...OPTIONS, queueLength: 100_000, slots, burst });
        let [lead, least, visit, pause] = [0, 0, 0, 0];
        for (const [index, each] of done.entries()) {
          for (const twice of [1, 2]) world.ask(asked(`stays ${index} ${twice}`, "stays", each));
          if (pause-- <= 0) {
            const { calls = 0, pause: next = 0 } = pattern[visit++ % pattern.length] ?? {};
            for (let call = 0; call < calls; call++) world.ask(asked(`visit ${index} ${call}`, "comes and goes", each));
            pause = next;
          }
          serve(world, each);
          lead = world.of("comes and goes") - world.of("stays");
          least = Math.min(least, lead);
          expect(lead - least).toBeLessThanOrEqual(2 * slots * CALL_COST + burst);
        }
      }),
      LONG,
    );
  });

  it("lets the calls of one who was away go first, as far as the burst reaches", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1, burst: 100 });
    const ask = (tenant: string, calls: number) => {
      for (let call = 0; call < calls; call++) share.ask(asked(`${tenant}${call}`, tenant), 0);
    };
    ask("flood", 30);
    const next = (running: string) => {
      share.finish(running, { inputTokens: 10, outputTokens: 20 }, 0);
      return share.grantWaiting(0)[0]?.id ?? "";
    };
    let running = "flood0";
    for (let call = 0; call < 10; call++) running = next(running);
    ask("quiet", 6);
    const order = Array.from({ length: 8 }, () => {
      running = next(running);
      return running.replace(/\d/g, "");
    });
    expect(order.join(" ")).toBe("quiet quiet quiet flood quiet flood quiet flood");
  });

  it("lets nobody wait for ever, even where others' calls come to nothing", () => {
    const rivals = ["b", "c", "d"];
    const call = fc.record({ inputTokens: fc.nat(4), outputTokens: fc.nat(4), truth: fc.constantFrom(0, 0, 1) });
    fc.assert(
      fc.property(fc.array(call, { minLength: 1, maxLength: 20 }), fc.integer({ min: 1, max: 2 }), (calls, slots) => {
        const share = new FairShare({ ...OPTIONS, queueLength: 100_000, slots });
        const running: FairSlot[] = [];
        let made = 0;
        const more = () => {
          for (const tenant of rivals) {
            const inputTokens = calls[made % calls.length]?.inputTokens ?? 0;
            const asking = share.ask(asked(`r${made++}`, tenant, { inputTokens }), 0);
            if (asking.verdict === "granted") running.push(asking.slot);
          }
        };
        for (let backlog = 0; backlog < 10; backlog++) more();
        share.ask(asked("patient", "a"), 0);
        // Each of the others may first come from one end of the bound to the other, a token at a time.
        const most = (rivals.length + 1) * 2 * slots * (4 + 2 * 4);
        for (let served = 0; served < most; served++) {
          const ended = running.shift();
          const { truth = 0, outputTokens = 0 } = calls[served % calls.length] ?? {};
          if (ended) {
            const used = { inputTokens: ended.inputTokens * truth, outputTokens: outputTokens * truth };
            share.finish(ended.id, used, 0);
          }
          running.push(...share.grantWaiting(0));
          if (running.some(({ id }) => id === "patient")) return;
          more();
        }
        expect.fail(`still waiting after ${most} others`);
      }),
    );
  });

  describe.each([
    ["tenant", (name: string) => ({ tenant: name, key: "key" })],
    ["key", (name: string) => ({ tenant: "tenant", key: name })],
  ])("a stream of newcomers, each a %s of its own", (_, named) => {
    const COST = 10 + 2 * 10;
    const scenario = fc.record({
      slots: slotCounts,
      burst: fc.constantFrom(0, 64, 2_048),
      newcomersPerGrant: fc.integer({ min: 1, max: 4 }),
      regulars: fc.nat(3),
      weights: fc.record({ patient: fc.constantFrom(1, 4, 16), newcomers: fc.constantFrom(1, 4, 16) }),
      /** Calls that the patient one and the regulars have had before, while they waited for each other. */
      history: fc.nat(40),
      hasOneRunning: fc.boolean(),
    });

    it("does not keep one who waits waiting beyond the stated bound, whatever the weights", () => {
      fc.assert(
        fc.property(scenario, ({ slots, burst, newcomersPerGrant, regulars, weights, history, hasOneRunning }) => {
          const world = new World({ ...OPTIONS, queueLength: 100_000, slots, burst });
          let made = 0;
          const ask = (name: string, weight: number) => {
            const id = `${name} ${made++}`;
            world.ask(asked(id, "", { ...named(name), weight }));
            return id;
          };
          const end = (at = 0) => {
            world.finish(at, 10, 10);
            return world.grant();
          };
          for (let call = 0; call < history; call++) {
            ask("patient", weights.patient);
            for (let regular = 0; regular < regulars; regular++) ask(`regular ${regular}`, 1);
            end();
          }
          const isWaiting = (name: string) => world.waiting.some(({ id }) => id.startsWith(name));
          for (let ends = 0; ends < 1_000 && isWaiting("patient"); ends++) end();
          const running = hasOneRunning ? ask("patient", weights.patient) : undefined;
          for (let ends = 0; ends < 1_000 && isWaiting("patient"); ends++) end();
          for (let slot = world.running.length; slot <= slots; slot++) ask("before", weights.newcomers);
          const patient = ask("patient", weights.patient);
          // U of the scheduler: calls that cost at most COST, and the smallest of the weights.
          const [u, step] = [slots * COST, Math.max(1, burst / 32)];
          const heaviest = Math.max(weights.patient, weights.newcomers);
          const others = regulars + 1; // and who filled the slots
          const most = Math.ceil((burst + u) / step) + 1 + others * (Math.ceil(((burst + u) * heaviest) / COST) + 1);
          for (let grants = 0; grants <= most; ) {
            if (world.running.some(({ id }) => id === patient)) return;
            for (let newcomer = 0; newcomer < newcomersPerGrant; newcomer++) ask(`new ${made}`, weights.newcomers);
            for (let regular = 0; regular < regulars; regular++) ask(`regular ${regular}`, 1);
            // Where there are several slots, its own call before runs on and on.
            const ended = world.running.findIndex(({ id }) => slots === 1 || id !== running);
            grants += end(ended).length;
          }
          expect.fail(`still waiting after ${most} grants`);
        }),
        { numRuns: 60, endOnFailure: true },
      );
    });

    it("is served in the order of coming, and leaves behind no more than a bounded number of counters", () => {
      const world = new World({ ...OPTIONS, slots: 1, burst: 2_048, queueLength: 100_000 });
      const order: string[] = [];
      for (let newcomer = 0; newcomer < 3_000; newcomer++) {
        for (const twice of ["a", "b"]) world.ask(asked(`${newcomer}${twice}`, "", named(`${newcomer}${twice}`)));
        world.finish(0, 10, 10);
        order.push(...world.grant());
      }
      expect(order).toEqual(
        [...order].sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10) || (a < b ? -1 : 1)),
      );
      expect([...world.counters.values()].flat().length).toBeLessThanOrEqual(2 * 1_000 + 10);
    }, 30_000);
  });

  it("lets a crowd of newcomers begin beside those who were there, not behind them", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1, burst: 2_048 });
    for (let call = 0; call < 300; call++) share.ask(asked(`flood ${call}`, "flood"), 0);
    for (let newcomer = 0; newcomer < 100; newcomer++) share.ask(asked(`new ${newcomer}`, `new ${newcomer}`), 0);
    let [running, flood, served] = ["flood 0", 0, 0];
    for (let grant = 0; grant < 300 && served < 100; grant++) {
      share.finish(running, { inputTokens: 10, outputTokens: 10 }, 0);
      running = share.grantWaiting(0)[0]?.id ?? "";
      if (running.startsWith("new")) served++;
      else flood++;
    }
    // The call that ran when they came has cost the flood more than they have had.
    expect([served, flood]).toEqual([100, 0]);
  });

  it("lets one who waits go after 32 newcomers at a burst of 2,048: two new tenants for each call that is served", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1, burst: 2_048, queueLength: 100_000 });
    const end = (id: string) => {
      share.finish(id, { inputTokens: 10, outputTokens: 10 }, 0);
      return share.grantWaiting(0)[0]?.id ?? "";
    };
    share.ask(asked("first", "flood"), 0);
    let running = "first";
    for (let call = 0; call < 200; call++) {
      for (const tenant of ["flood", "patient"]) share.ask(asked(`${tenant} ${call}`, tenant), 0);
      running = end(running);
    }
    for (let call = 0; call < 200; call++) share.leave(`patient ${call}`);
    share.ask(asked("patient", "patient"), 0);
    const order: string[] = [];
    for (let grant = 0; grant < 400; grant++) {
      for (const twice of ["a", "b"]) share.ask(asked(`new ${grant}${twice}`, `new ${grant}${twice}`), 0);
      running = end(running);
      order.push(running);
    }
    expect(order.indexOf("patient")).toBeGreaterThanOrEqual(0);
    expect(order.indexOf("patient")).toBe(32);
  });

  it.each([
    ["waits", 10],
    ["runs", 1],
  ])("pushes a newcomer back by nothing that nobody had: a prompt announced too large of one that %s", (_, before) => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    const flood = (from: number, to: number) => {
      for (let at = from; at < to; at++) share.ask(asked(`flood${at}`, "flood", { inputTokens: 100_000 }), 0);
    };
    flood(0, before);
    share.ask(asked("quiet", "quiet"), 0);
    flood(before, 20);
    share.finish("flood0", { inputTokens: 0, outputTokens: 0 }, 0);
    expect(share.grantWaiting(0)).toMatchObject([{ id: "quiet" }]);
  });

  it("remembers one whose call runs, however far the others have come meanwhile", () => {
    const world = new World({ ...OPTIONS, slots: 2 });
    for (const [tenant, calls] of [
      ["long", 1],
      ["busy", 100],
    ] as const) {
      for (let at = 0; at < calls; at++) world.ask(asked(`${tenant}${at}`, tenant));
    }
    for (let ended = 0; ended < 20; ended++) {
      world.finish(1, 10, 10);
      world.grant();
    }
    world.progress(0, 10_000);
    world.ask(asked("again", "long"));
    for (let ended = 0; ended < 20; ended++) {
      world.finish(1, 10, 10);
      expect(world.grant()).not.toContain("again");
    }
  });

  it("lets nobody in past the line, between the end of one call and the beginning of the next", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    for (const id of ["runs", "waits"]) share.ask(asked(id, "a"), 0);
    share.finish("runs", { inputTokens: 10, outputTokens: 10 }, 0);
    expect(share.ask(asked("late", "a"), 0)).toMatchObject({ verdict: "waiting" });
    expect(share.grantWaiting(0)).toMatchObject([{ id: "waits" }]);
  });

  it("charges what was really taken, however much was announced", () => {
    const share = new FairShare(OPTIONS);
    share.ask(asked("long", "tenant", { inputTokens: 0 }), 0);
    share.ask(asked("a", "tenant", { inputTokens: 1_000, weight: 2 }), 0);
    expect(share.servedOf("tenant")).toBe(500);
    share.progress("a", 10, 1);
    expect(share.servedOf("tenant")).toBe(510);
    share.finish("a", { inputTokens: 40, outputTokens: 30 }, 2);
    expect(share.servedOf("tenant")).toBe(50);
    expect(() => share.ask(asked("b", "tenant", { weight: 0 }), 3)).toThrow(RangeError);
  });

  it("frees a slot of which nothing is heard, and none that makes tokens", () => {
    const share = new FairShare({ ...OPTIONS, slotMs: 1_000 });
    for (const id of ["silent", "alive"]) share.ask(asked(id, "a"), 0);
    share.progress("alive", 5, 900);
    expect(share.nextDueMs()).toBe(1_000);
    expect(share.expire(1_000)).toMatchObject({ freed: [{ id: "silent" }], gaveUp: [] });
    expect(share.nextDueMs()).toBe(1_900);
    expect(share.progress("silent", 6, 1_100)).toBe(false);
  });

  it("forgets a request at the end of its patience, and names it", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    share.ask(asked("running", "a"), 0);
    share.ask(asked("hasty", "b", { giveUpAtMs: 500 }), 0);
    expect(share.nextDueMs()).toBe(500);
    expect(share.expire(499).gaveUp).toEqual([]);
    expect(share.metrics(499)).toEqual({ queueDepth: 1, oldestWaitMs: 499, inFlight: 1 });
    expect(share.expire(500).gaveUp).toEqual(["hasty"]);
    expect(share.metrics(500)).toEqual({ queueDepth: 0, oldestWaitMs: 0, inFlight: 1 });
  });

  it("refuses at once who would wait in vain, with an estimate by its own turn, not by the whole line", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1 });
    share.ask(asked("first", "flood"), 0);
    for (let index = 0; index < 100; index++) share.ask(asked(`flood${index}`, "flood"), 0);
    share.finish("first", { inputTokens: 10, outputTokens: 10 }, 1_000);
    share.grantWaiting(1_000);
    const flood = asked("one more", "flood", { giveUpAtMs: 31_000 });
    expect(share.ask(flood, 1_000)).toEqual({ verdict: "refused", reason: "queue_timeout", retryAfterMs: 100_000 });
    expect(share.ask({ ...flood, tenant: "quiet" }, 1_000)).toEqual({ verdict: "waiting", position: 1 });
  });

  it("keeps places in the line for others, however many requests one tenant sends", () => {
    const share = new FairShare({ ...OPTIONS, slots: 1, queueLength: 100 });
    const ask = (tenant: string, index: number) => share.ask(asked(`${tenant}${index}`, tenant), 0).verdict;
    const flood = Array.from({ length: 500 }, (_, index) => ask("flood", index));
    expect(flood.filter((verdict) => verdict === "waiting")).toHaveLength(50);
    expect(share.ask(asked("late", "flood"), 0)).toMatchObject({ verdict: "refused", reason: "queue_full" });
    expect(ask("quiet", 0)).toBe("waiting");
    for (let index = 0; index < 500; index++) ask(`tenant${index}`, 0);
    expect(share.metrics(0).queueDepth).toBe(100);
  });

  it.each([
    ["tenants", (index: number) => asked(`r${index}`, `tenant${index}`)],
    ["keys", (index: number) => asked(`r${index}`, "tenant", { key: `key${index}` })],
  ])("forgets %s that say nothing any more, so memory and store follow those who are there", (_, request) => {
    const world = new World({ ...OPTIONS, slots: 1 });
    const end = () => {
      world.finish(0, 10, 10);
      world.grant();
    };
    const kept = () => [...world.counters.values()].flat().length;
    for (let index = 0; index < 500; index++) {
      world.ask(request(index));
      end();
    }
    expect(kept(), "one after another").toBeLessThanOrEqual(3);
    // Somebody always waits, and goes on when all of them have been served.
    for (let index = 0; index < 300; index++) world.ask({ ...request(0), id: `regular${index}` });
    for (let index = 500; index < 700; index++) {
      world.ask(request(index));
      end();
    }
    for (let ends = 0; ends < 500 && world.waiting.some(({ id }) => !id.startsWith("regular")); ends++) end();
    for (let calls = 0; calls < 3; calls++) end();
    expect(world.waiting.length).toBeGreaterThan(0);
    expect(kept(), "beside one who always waits").toBeLessThanOrEqual(3);
  });

  it("forgets a tenant at its end, though its calls go on", () => {
    const world = new World({ ...OPTIONS, slots: 1 });
    for (const id of ["running", "waiting"]) world.ask(asked(id, "gone"));
    world.ask(asked("other", "other"));
    world.save();
    expect(world.counters.get("gone")).toHaveLength(2);
    world.share.forget("gone");
    world.save();
    expect(world.counters.get("gone")).toEqual([]);
    for (let ended = 0; ended < 3; ended++) {
      world.finish(0, 10, 10);
      world.grant();
    }
    expect(world.counters.get("gone")).toEqual([]);
    expect(world.share.metrics(0)).toMatchObject({ queueDepth: 0, inFlight: 0 });
  });
});
