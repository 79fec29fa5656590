import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readDecisions } from "../../../durable-objects/decision-reader";
import { journalSums } from "../../../durable-objects/journal-sums";
import type { JournalQuery } from "../../../durable-objects/tenant-gate.messages";
import { STAMP_LAG_MS } from "../../../src/core/record-clock";
import { DECISION, EVENT, SMALL, TestGate } from "./gate";

const ALL: JournalQuery = {
  limit: 100,
  order: "asc",
  afterSeq: null,
  fromMs: null,
  toMs: null,
  model: null,
  keyId: null,
};

/** What the journal should say: a plain array of what was appended. */
interface Expected {
  readonly seq: number;
  readonly atMs: number;
  readonly model: string;
  readonly keyId: string;
  readonly isEvent: boolean;
}

const MAX_DISTURBANCES = 25;

/** Appends and seals at moments that fast-check chooses, beside an array that is told the same. */
class Interleaving {
  readonly gate = new TestGate({ ...SMALL, ageMs: 1_000_000, youngMs: 20_000 });
  readonly appended: Expected[] = [];
  readonly #choices: Iterator<number>;
  #nowMs = 1_000_000;
  #disturbances = 0;

  constructor(choices: readonly number[]) {
    let at = 0;
    this.#choices = { next: () => ({ value: choices[at++ % choices.length] ?? 0, done: false }) };
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  append(): void {
    const choice = this.#choices.next().value;
    this.#nowMs += (choice % 7) * 1_500;
    const atMs = this.#nowMs - (choice % 3) * 4_000; // a refusal is stamped when it happened
    const model = choice % 2 ? "m" : "n";
    const keyId = choice % 5 ? "key" : "other";
    const id = `r${this.appended.length}`;
    const isEvent = choice % 4 !== 0;
    if (isEvent) this.gate.append(id, atMs, { model, keyId });
    else this.gate.refuse(id, atMs);
    const stored = this.gate.sql.lastJournalRow();
    const of = isEvent ? { model, keyId } : { model: "m", keyId: "key" };
    this.appended.push({ seq: stored?.seq ?? 0, atMs: stored?.at_ms ?? 0, ...of, isEvent });
  }

  /** Something of what goes on in a gate meanwhile. */
  async disturb(): Promise<void> {
    if (this.#disturbances++ > MAX_DISTURBANCES) return; // a reader that follows would never come to an end
    const choice = this.#choices.next().value % 6;
    if (choice < 2) for (let more = 0; more <= choice * 3; more++) this.append();
    if (choice === 2 || choice === 3) await this.gate.segments.sealDue(this.#nowMs);
    if (choice === 4) await this.gate.segments.sealDue(this.#nowMs + 2_000_000); // everything
    if (choice === 5) this.gate.restart();
  }
}

const isAsked = (row: Expected, { fromMs, toMs, model, keyId }: JournalQuery) =>
  (fromMs === null || row.atMs >= fromMs) &&
  (toMs === null || row.atMs < toMs) &&
  (model === null || row.model === model) &&
  (keyId === null || row.keyId === keyId);

const choices = fc.array(fc.nat({ max: 1_000 }), { minLength: 8, maxLength: 60 });
const bound = fc.option(fc.integer({ min: 990_000, max: 1_150_000 }), { nil: null });
const query = fc.record({
  limit: fc.integer({ min: 1, max: 7 }),
  order: fc.constantFrom("asc" as const, "desc" as const),
  fromMs: bound,
  toMs: bound,
  model: fc.constantFrom(null, null, "m"),
  keyId: fc.constantFrom(null, null, "other"),
});

describe("pages of decisions", () => {
  it("have every record once and in order, whatever is appended or sealed while they are read", async () => {
    await fc.assert(
      fc.asyncProperty(choices, query, fc.integer({ min: 3, max: 40 }), async (chosen, asked, scanRows) => {
        const world = new Interleaving(chosen);
        for (let records = 0; records < 20 + ((chosen[0] ?? 0) % 40); records++) {
          world.append();
          if (records % 9 === 8) await world.disturb();
        }
        world.gate.store.beforeGet = () => world.disturb();
        world.gate.store.beforePut = async () => world.append();
        const before = [...world.appended];
        const seqs: number[] = [];
        let afterSeq: number | null = null;
        for (;;) {
          const page = await readDecisions(world.gate.sql, world.gate.segments, { ...asked, afterSeq }, scanRows);
          expect(page.rows.length).toBeLessThanOrEqual(asked.limit);
          seqs.push(...page.rows.map(({ seq }) => seq));
          if (!page.hasMore) break;
          expect(page.lastSeq).not.toBeNull();
          afterSeq = page.lastSeq;
          await world.disturb();
        }
        // Ascending, what was appended meanwhile is read as well; descending, the reading began before it.
        const whole = asked.order === "asc" ? world.appended : before;
        const expected = whole.filter((row) => isAsked(row, { ...ALL, ...asked })).map(({ seq }) => seq);
        if (asked.order === "desc") expected.reverse();
        const known = new Set(before.map(({ seq }) => seq));
        const old = (list: readonly number[]) => list.filter((seq) => known.has(seq));
        expect(old(seqs)).toEqual(old(expected));
        expect(new Set(seqs).size).toBe(seqs.length);
        expect(seqs.filter((seq) => !expected.includes(seq) && known.has(seq))).toEqual([]);
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  it("begin behind their cursor, either way, in the tail and in segments", async () => {
    const gate = new TestGate();
    for (let record = 1; record <= 13; record++) gate.append(`r${record}`, record);
    await gate.segments.sealDue(1_000_000);
    expect(gate.sql.lastSegment()?.last_seq).toBe(10);
    const seqs = async (order: "asc" | "desc", afterSeq: number | null) =>
      (await readDecisions(gate.sql, gate.segments, { ...ALL, order, afterSeq })).rows.map(({ seq }) => seq);
    for (let cursor = 0; cursor <= 14; cursor++) {
      const all = Array.from({ length: 13 }, (_, index) => index + 1);
      expect(await seqs("asc", cursor)).toEqual(all.filter((seq) => seq > cursor));
      expect(await seqs("desc", cursor)).toEqual(all.filter((seq) => seq < cursor).reverse());
    }
  });

  it("say that there is more only where another record matches", async () => {
    const gate = new TestGate();
    for (let record = 1; record <= 12; record++) gate.append(`r${record}`, record, { model: record < 9 ? "m" : "n" });
    const page = (more: Partial<JournalQuery>) => readDecisions(gate.sql, gate.segments, { ...ALL, ...more });
    expect(await page({ model: "m", limit: 8 })).toMatchObject({ hasMore: false });
    expect(await page({ model: "m", limit: 7 })).toMatchObject({ hasMore: true, lastSeq: 7 });
    expect(await page({ model: "n", limit: 4 })).toMatchObject({ hasMore: false });
    expect(await page({ model: "n", limit: 3, order: "desc" })).toMatchObject({ hasMore: true, lastSeq: 10 });
    expect(await page({ toMs: 5, limit: 4 })).toMatchObject({ hasMore: false });
    expect(await page({ fromMs: 9, limit: 4, order: "desc" })).toMatchObject({ hasMore: false });
  });

  it("find a refusal that was recorded after calls that came later, with a start time in either order", async () => {
    const gate = new TestGate();
    gate.append("first", 100_000);
    gate.append("late", 101_000);
    gate.refuse("early", 100_200); // recorded when its second had passed
    const ids = async (order: "asc" | "desc", fromMs: number, toMs: number | null) =>
      (await readDecisions(gate.sql, gate.segments, { ...ALL, order, fromMs, toMs })).rows.map(
        ({ decision }) => decision.id,
      );
    expect(await ids("desc", 100_500, null)).toEqual(["late"]);
    expect(await ids("asc", 0, 101_000)).toEqual(["first", "early"]);
    expect(await ids("desc", 100_100, 100_500)).toEqual(["early"]);
  });

  it("look at few rows of a long tail where a time is asked for", async () => {
    const gate = new TestGate({ ...SMALL, rows: 1_000_000 });
    for (let record = 0; record < 4_000; record++) gate.journal.append({ ...row(record) }, null);
    gate.save();
    for (const order of ["asc", "desc"] as const) {
      const asked = { ...ALL, order, fromMs: 2_000_000, toMs: 2_005_000 };
      const page = await readDecisions(gate.sql, gate.segments, asked, 100);
      expect(page).toMatchObject({ hasMore: false });
      expect(page.rows).toHaveLength(5);
    }
  });
});

describe("sums of the journal", () => {
  it("have every event of their time once, whatever is appended or sealed while they are added up", async () => {
    await fc.assert(
      fc.asyncProperty(choices, bound, bound, async (chosen, from, to) => {
        const world = new Interleaving(chosen);
        for (let records = 0; records < 20 + ((chosen[0] ?? 0) % 60); records++) {
          world.append();
          if (records % 9 === 8) await world.disturb();
        }
        const [fromMs, toMs] = [from ?? 0, Math.min(to ?? Number.POSITIVE_INFINITY, world.nowMs - 2 * STAMP_LAG_MS)];
        const inTime = () => world.appended.filter((row) => row.isEvent && row.atMs >= fromMs && row.atMs < toMs);
        world.gate.store.beforeGet = () => world.disturb();
        const sums = await journalSums(world.gate.sql, world.gate.segments, fromMs, toMs);
        const events = inTime().length;
        expect(sums).toEqual({ events, priceMicrodollars: events * 11, costMicrodollars: events * 3 });
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  it("are whole while 25,000 records are sealed under them", async () => {
    const gate = new TestGate({ ...SMALL, rows: 5_000, bytes: 1e9 });
    for (let record = 0; record < 25_000; record++) gate.journal.append({ ...row(record) }, { ...event(record) });
    gate.save();
    await gate.segments.sealDue(0); // nothing is old enough
    const sealAll = () => gate.segments.sealDue(1e12);
    let sealing: Promise<unknown> | undefined;
    const from = gate.sql.journalFrom;
    Object.assign(gate.sql, {
      journalFrom: (...args: Parameters<typeof from>) => {
        const rows = from(...args);
        sealing ??= sealAll();
        return rows;
      },
    });
    const sums = await journalSums(gate.sql, gate.segments, 0, 1e12);
    expect(sums.events).toBe(25_000);
    await sealing;
    expect(gate.sql.lastSegment()?.last_seq).toBe(25_000);
    expect((await journalSums(gate.sql, gate.segments, 0, 1e12)).events).toBe(25_000);
  }, 60_000);
});

const row = (record: number) => ({ ...DECISION, id: `r${record}`, atMs: record * 1_000 });
const event = (record: number) => ({ ...EVENT, id: `r${record}`, atMs: record * 1_000 });
