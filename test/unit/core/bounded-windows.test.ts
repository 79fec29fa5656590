import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Counted, Draw, RateRule, RuleBucket } from "../../../src/core/rate-windows";
import { RateWindows, type StoredWindows } from "../../../src/core/rate-windows";
import { START_MS } from "./requests";

const SUBJECTS = ["ada", "bob", "cy", "dan", "eve", "fay"];
const rulesOf = (subject: string): RateRule[] => [
  { key: `requests/minute/end_user/${subject}`, name: "requests", unit: "requests", limit: 5 },
  { key: `tokens/24h/end_user/${subject}`, name: "tokens", unit: "tokens", limit: 400 },
  { key: `spend/month@UTC/end_user/${subject}`, name: "spend", unit: "microdollars", limit: 900, mode: "alert" },
];
const drawOf = (subject: string, tokens: number): Draw => ({
  ...{ rates: rulesOf(subject), promptTokens: tokens, outputTokens: 20, choices: 1, outputLowerable: true },
  price: { input: 1_000_000, output: 1_000_000 },
});

/** What is stored of windows, as a table of buckets. */
class Table implements StoredWindows {
  readonly rows = new Map<string, RuleBucket>();
  read = 0;

  write(rates: RateWindows): void {
    const { upsert, remove } = rates.takeDirty();
    for (const row of upsert) this.rows.set(`${row.rule} ${row.bucketMs}`, row);
    for (const { rule, bucketMs } of remove) this.rows.delete(`${rule} ${bucketMs}`);
  }
  buckets(rule: string) {
    const rows = [...this.rows.values()].filter((row) => row.rule === rule);
    this.read += rows.length;
    return rows;
  }
  rules(prefix: string, after: string, limit: number) {
    const rules = new Set([...this.rows.values()].map(({ rule }) => rule));
    return [...rules]
      .filter((rule) => rule.startsWith(prefix) && rule > after)
      .sort()
      .slice(0, limit);
  }
}

const subject = fc.constantFrom(...SUBJECTS);
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant("call" as const), subject, tokens: fc.integer({ min: 1, max: 90 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("lease" as const), subject, tokens: fc.integer({ min: 1, max: 9 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("giveBack" as const), which: fc.nat(30), tokens: fc.nat(90) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("claim" as const), subject }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 249, 800, 60_250, 86_700_000, 2_700_000_000),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("save" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);

/** The same history under both: windows that stay in memory, and windows of which two do. */
class Twins {
  readonly stores = [new Table(), new Table()] as const;
  whole = RateWindows.restore({ atMs: 0, aheadMs: 800 });
  bounded = this.#bounded();
  nowMs = START_MS;
  readonly counted: { readonly whole: Counted; readonly bounded: Counted }[] = [];

  #bounded() {
    return RateWindows.restore({ stored: this.stores[1], atMs: 0, aheadMs: 800, maxWindows: 2 });
  }

  both<T>(ask: (rates: RateWindows) => T): T {
    for (const rates of [this.whole, this.bounded]) rates.tick(this.nowMs);
    const [whole, bounded] = [ask(this.whole), ask(this.bounded)];
    expect(bounded).toEqual(whole);
    return whole;
  }

  play(each: typeof step extends fc.Arbitrary<infer T> ? T : never): void {
    if (each.do === "wait") this.nowMs += each.ms;
    if (each.do === "save") this.save();
    if (each.do === "restart") this.restart();
    if (each.do === "claim") this.both((rates) => rates.claim(drawOf(each.subject, 1)));
    if (each.do === "call") {
      const fit = this.both((rates) => rates.fit(drawOf(each.subject, each.tokens), this.nowMs));
      if ("rule" in fit) return;
      this.count((rates) => rates.count({ ...drawOf(each.subject, each.tokens), outputTokens: fit.outputTokens }));
      this.both((rates) => rates.takeAlerts());
    }
    if (each.do === "lease") {
      const draws = this.both((rates) => rates.timesItFits(drawOf(each.subject, each.tokens), 4));
      if (draws === 0) return;
      this.count((rates) => rates.countLease(drawOf(each.subject, each.tokens), draws, this.nowMs + 800).counted);
      this.both((rates) => rates.takeAlerts());
    }
    if (each.do === "giveBack") {
      const at = this.counted[each.which % Math.max(1, this.counted.length)];
      if (!at) return;
      for (const [rates, counted] of [
        [this.whole, at.whole],
        [this.bounded, at.bounded],
      ] as const) {
        rates.tick(this.nowMs);
        rates.giveBackUnused(counted, { tokens: each.tokens, microdollars: each.tokens });
      }
    }
  }

  count(count: (rates: RateWindows) => Counted): void {
    const [whole, bounded] = [this.whole, this.bounded].map((rates) => {
      rates.tick(this.nowMs);
      return count(rates);
    });
    expect(bounded).toEqual(whole);
    this.counted.push({ whole: whole as Counted, bounded: bounded as Counted });
  }

  save(): void {
    this.stores[0].write(this.whole);
    this.stores[1].write(this.bounded);
    expect(this.bounded.size, "only two stay").toBeLessThanOrEqual(2);
  }

  restart(): void {
    this.save();
    this.whole = RateWindows.restore({ buckets: [...this.stores[0].rows.values()], atMs: this.nowMs, aheadMs: 800 });
    this.bounded = this.#bounded();
  }

  check(): void {
    for (const { key } of SUBJECTS.flatMap(rulesOf)) this.both((rates) => rates.state(key, this.nowMs));
    const keys = this.both((rates) => new Set(rates.keys("requests/minute/end_user/", 100)));
    expect(this.both((rates) => rates.keys("requests/minute/end_user/", 1).length)).toBe(Math.min(1, keys.size));
  }
}

describe("windows that leave memory", () => {
  it("count, refuse, alert and are listed as if they had stayed, whatever leaves, comes back or is restarted", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.boolean(), (steps, looks) => {
        const twins = new Twins();
        for (const each of steps) {
          twins.play(each);
          if (looks) twins.check();
        }
        twins.check();
      }),
      { numRuns: 600 },
    );
  });

  it("are read once while they are asked for, and not at all where nothing is stored", () => {
    const table = new Table();
    const rates = RateWindows.restore({ stored: table, atMs: 0 });
    const look = () => {
      rates.tick(START_MS);
      return rates.fit(drawOf("ada", 1), START_MS);
    };
    rates.tick(START_MS);
    rates.count(drawOf("ada", 1));
    table.write(rates);
    const restarted = RateWindows.restore({ stored: table, atMs: 0 });
    for (let times = 0; times < 3; times++) restarted.fit(drawOf("ada", 1), START_MS);
    expect(table.read).toBe(2); // two hard rules, a bucket each
    for (let times = 0; times < 3; times++) look();
    expect(table.read).toBe(2);
  });

  it("stay while storage does not know yet what they counted", () => {
    const table = new Table();
    const rates = RateWindows.restore({ stored: table, atMs: 0, maxWindows: 2 });
    rates.tick(START_MS);
    for (const one of SUBJECTS) rates.count(drawOf(one, 1));
    expect(rates.size).toBe(18);
    for (const one of SUBJECTS) expect(rates.state(rulesOf(one)[0]?.key ?? "", START_MS).used).toBe(1);
    table.write(rates);
    expect(rates.size).toBeLessThanOrEqual(2);
    for (const one of SUBJECTS) expect(rates.state(rulesOf(one)[0]?.key ?? "", START_MS).used).toBe(1);
  });
});
