import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MINUTE, type Period, periodNamed, ROLLING_DAY } from "../../../src/core/periods";

const [HOUR_MS, DAY_MS] = [3_600_000, 86_400_000];
const [FROM_MS, TO_MS] = [Date.UTC(2026, 0, 1), Date.UTC(2031, 0, 1)];
/** Names that are only links to others, and spellings that no list has. */
const LINKS = ["UTC", "Etc/UTC", "GMT", "Etc/GMT+12", "Etc/GMT-14", "Cuba", "Egypt", "Chile/Continental", "US/Samoa"];
const ZONES = [...new Set([...Intl.supportedValuesOf("timeZone"), ...LINKS])];

/** What a wall clock there shows, by the runtime's own calendar. */
interface Wall {
  date(atMs: number): string;
  readonly offsetMs: (atMs: number) => number;
}
function wallOf(timeZone: string): Wall {
  const numeric = "2-digit" as const;
  const [year, month, day, hour, minute, second] = ["numeric", numeric, numeric, numeric, numeric, numeric] as const;
  const days = new Intl.DateTimeFormat("en-CA", { timeZone, year, month, day });
  const clock = new Intl.DateTimeFormat("sv-SE", { timeZone, year, month, day, hour, minute, second });
  return {
    date: (atMs) => days.format(atMs),
    offsetMs: (atMs) => Date.parse(`${clock.format(atMs).replace(" ", "T")}Z`) - Math.floor(atMs / 1_000) * 1_000,
  };
}

/** Seconds at which the clocks are changed, found by halving the weeks in which they are. */
function changesOf({ offsetMs }: Wall, fromMs: number, toMs: number): number[] {
  const changes: number[] = [];
  const week = 7 * DAY_MS;
  let offset = offsetMs(fromMs);
  for (let at = fromMs; at < toMs; at += week) {
    const next = offsetMs(at + week);
    if (next === offset) continue;
    let [before, after] = [at, at + week];
    while (after - before > 1_000) {
      const middle = Math.floor((before + after) / 2_000) * 1_000;
      if (offsetMs(middle) === offset) before = middle;
      else after = middle;
    }
    changes.push(after);
    offset = next;
  }
  return changes;
}

const day = (zone: string) => periodNamed(`day@${zone}`);
const month = (zone: string) => periodNamed(`month@${zone}`);
const iso = (atMs: number) => new Date(atMs).toISOString();

/** A bucket is a stretch of time with one date; each time lies in one, and the next one begins where it ends. */
function assertBucket(period: Period, atMs: number, label: (atMs: number) => string, about: string): void {
  const startMs = period.bucketOf(atMs);
  const endMs = period.leavesAtMs(startMs);
  const told = () => `${about} at ${iso(atMs)}: ${iso(startMs)} to ${iso(endMs)}`;
  if (!(startMs <= atMs && atMs < endMs)) expect.fail(`outside its bucket: ${told()}`);
  if (period.bucketOf(endMs - 1) !== startMs) expect.fail(`its last millisecond is elsewhere: ${told()}`);
  if (period.bucketOf(endMs) !== endMs) expect.fail(`the next one does not begin at its end: ${told()}`);
  if (period.bucketOf(startMs) !== startMs) expect.fail(`its start is elsewhere: ${told()}`);
  if (endMs - startMs > period.longestMs) expect.fail(`longer than it says: ${told()}`);
  if (label(atMs) !== label(startMs)) expect.fail(`another date than at its start: ${told()}`);
  if (label(endMs) === label(startMs)) expect.fail(`ends before its date does: ${told()}`);
  if (label(startMs - 1) === label(startMs)) expect.fail(`begins after its date does: ${told()}`);
}
function assertZone(zone: string, times: Iterable<number>): void {
  const wall = wallOf(zone);
  const [days, months] = [day(zone), month(zone)];
  for (const atMs of times) {
    assertBucket(days, atMs, wall.date, days.name);
    assertBucket(months, atMs, (each) => wall.date(each).slice(0, 7), months.name);
  }
}

function* hours(fromMs: number, toMs: number, stepMs = HOUR_MS): Generator<number> {
  for (let atMs = fromMs; atMs < toMs; atMs += stepMs) yield atMs;
}

/** Titles stand only where they apply, so that nothing counts as skipped. */
const longProof = process.env.PROVE ? it : (_title: string, _test: () => void, _timeoutMs?: number) => {};

describe("calendar days and months of a time zone", () => {
  it("lie without a gap beside each other, one date each, round every change of the clocks of 2026 to 2030 in every zone", () => {
    let changed = 0;
    for (const zone of ZONES) {
      const changes = changesOf(wallOf(zone), FROM_MS, TO_MS);
      changed += changes.length;
      for (const at of changes) {
        assertZone(zone, [at - DAY_MS, at - HOUR_MS, at - 1, at, at + 1, at + HOUR_MS, at + 2 * HOUR_MS, at + DAY_MS]);
      }
      assertZone(zone, [FROM_MS, Date.UTC(2028, 1, 29, 12), TO_MS]);
    }
    expect(changed).toBeGreaterThan(1_000);
  }, 60_000);

  longProof(
    "lie without a gap beside each other, one date each, in every hour of 2026 to 2030 in every zone",
    () => {
      for (const zone of ZONES) {
        const wall = wallOf(zone);
        for (const [period, length] of [
          [day(zone), "2026-01-01".length],
          [month(zone), "2026-01".length],
        ] as const) {
          const label = (atMs: number) => wall.date(atMs).slice(0, length);
          let startMs = Number.NaN;
          for (const atMs of hours(FROM_MS, TO_MS)) {
            if (period.bucketOf(atMs) !== startMs) assertBucket(period, atMs, label, period.name);
            startMs = period.bucketOf(atMs);
            if (label(atMs) !== label(startMs)) expect.fail(`${period.name} at ${iso(atMs)}`);
          }
        }
      }
    },
    3_600_000,
  );

  it.each([
    ["Africa/Cairo", "2026-04-23T22:00:00.000Z", "2026-04-24T21:00:00.000Z"],
    ["America/Santiago", "2026-09-06T04:00:00.000Z", "2026-09-07T03:00:00.000Z"],
    ["Atlantic/Azores", "2026-03-29T01:00:00.000Z", "2026-03-30T00:00:00.000Z"],
    ["America/Havana", "2026-03-08T05:00:00.000Z", "2026-03-09T04:00:00.000Z"],
    ["Asia/Beirut", "2026-03-28T22:00:00.000Z", "2026-03-29T21:00:00.000Z"],
  ])("begin with the jump where midnight does not exist: %s", (zone, start, end) => {
    const [startMs, endMs] = [Date.parse(start), Date.parse(end)];
    const period = day(zone);
    const before = period.bucketOf(startMs - 1);
    expect(iso(period.leavesAtMs(before))).toBe(start);
    for (const atMs of hours(startMs, endMs, HOUR_MS / 4)) expect(iso(period.bucketOf(atMs))).toBe(start);
    expect(iso(period.leavesAtMs(startMs))).toBe(end);
    // What an earlier version counted under an earlier name of this day counts to the day's end.
    expect(iso(period.leavesAtMs(startMs - HOUR_MS))).toBe(end);
  });

  it("have 23 and 25 hours where the clocks are changed", () => {
    const lengths = (zone: string, date: string) => {
      const startMs = day(zone).bucketOf(Date.parse(date));
      return (day(zone).leavesAtMs(startMs) - startMs) / HOUR_MS;
    };
    expect(lengths("Europe/Berlin", "2026-03-29T12:00:00Z")).toBe(23);
    expect(lengths("Europe/Berlin", "2026-10-25T12:00:00Z")).toBe(25);
    expect(lengths("Africa/Cairo", "2026-10-29T12:00:00Z")).toBe(25);
    expect(lengths("Australia/Lord_Howe", "2026-04-04T16:00:00Z")).toBe(24.5);
  });

  it.each([
    ["Pacific/Apia", "2011-12-29T10:00:00.000Z", "2011-12-30T10:00:00.000Z"],
    ["Pacific/Kwajalein", "1993-08-20T12:00:00.000Z", "1993-08-21T12:00:00.000Z"],
    ["Pacific/Kiritimati", "1994-12-30T10:00:00.000Z", "1994-12-31T10:00:00.000Z"],
  ])("leave out a day that the zone left out: %s", (zone, start, end) => {
    const period = day(zone);
    expect(iso(period.bucketOf(Date.parse(end) - 1))).toBe(start);
    expect(iso(period.leavesAtMs(Date.parse(start)))).toBe(end);
    assertZone(zone, hours(Date.parse(start) - 3 * DAY_MS, Date.parse(end) + 3 * DAY_MS));
  });

  it.each([
    ["America/St_Johns", "2006-10-29"], // at one minute past midnight, back to the day before
    ["America/Juneau", "1867-10-18"], // a day twice
    ["Asia/Manila", "1844-12-31"],
    ["Europe/Dublin", "1916-10-01"],
    ["Africa/Monrovia", "1972-01-07"],
    ["Antarctica/Casey", "2010-03-05"],
  ])("begin once, in order and without a gap, where the clocks were turned back over midnight: %s %s", (zone, date) => {
    const [fromMs, toMs] = [Date.parse(date) - 3 * DAY_MS, Date.parse(date) + 3 * DAY_MS];
    for (const period of [day(zone), month(zone)]) {
      let [startMs, endMs] = [period.bucketOf(fromMs), period.leavesAtMs(period.bucketOf(fromMs))];
      for (const atMs of hours(fromMs, toMs, 60_000)) {
        if (atMs >= endMs) [startMs, endMs] = [endMs, period.leavesAtMs(endMs)];
        if (period.bucketOf(atMs) !== startMs) expect.fail(`${period.name} at ${iso(atMs)}`);
        if (atMs >= endMs) expect.fail(`${period.name} ends at its start, ${iso(startMs)}`);
      }
      // The same when nothing near was asked before.
      for (const atMs of hours(fromMs + 60_000, toMs, 600_000)) {
        const inOrder = period.bucketOf(atMs);
        period.bucketOf(0);
        if (period.bucketOf(atMs) !== inOrder) expect.fail(`${period.name} at ${iso(atMs)}, asked alone`);
      }
    }
  });

  it("do not depend on what was asked before", () => {
    const zones = ["Africa/Cairo", "America/Havana", "Atlantic/Azores", "America/St_Johns", "Pacific/Apia", "UTC"];
    const times = fc.array(fc.integer({ min: FROM_MS, max: TO_MS }), { minLength: 2, maxLength: 30 });
    const nearGaps = fc.constantFrom(
      "2026-04-23T21:30:00Z",
      "2026-03-08T04:30:00Z",
      "2026-03-29T00:30:00Z",
      "2006-10-29T02:31:00Z",
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        times,
        nearGaps,
        fc.constantFrom("day", "month"),
        (zone, asked, gap, unit) => {
          const near = [-2, -1, -0.5, 0, 0.5, 1, 2].map((hour) => Date.parse(gap) + hour * HOUR_MS);
          const all = [...asked, ...near];
          const [one, two] = [periodNamed(`${unit}@${zone}`), periodNamed(`${unit}@${zone.toUpperCase()}`)];
          const answers = (period: Period, order: readonly number[]) =>
            new Map(order.map((atMs) => [atMs, [period.bucketOf(atMs), period.leavesAtMs(atMs)]]));
          const [forwards, backwards] = [answers(one, all), answers(two, all.toReversed())];
          for (const atMs of all) expect(backwards.get(atMs)).toEqual(forwards.get(atMs));
        },
      ),
    );
  });

  it("keep no more calendars than there is memory for, however a zone is spelled", () => {
    const spelled = (index: number) =>
      "america/argentina/buenos_aires".replace(/[a-z]/g, (letter, at: number) =>
        (index >> (at % 12)) & 1 ? letter.toUpperCase() : letter,
      );
    const first = day(spelled(0));
    expect(day(spelled(0))).toBe(first);
    for (let index = 1; index <= 400; index++) day(spelled(index));
    expect(day(spelled(0))).not.toBe(first);
    expect(day(spelled(0)).bucketOf(FROM_MS)).toBe(first.bucketOf(FROM_MS));
  });
});

describe("periods", () => {
  it.each([MINUTE, ROLLING_DAY])("$name: a bucket counts for a full window after its end", (period) => {
    const bucketMs = period.bucketOf(FROM_MS + 123_456);
    expect(bucketMs).toBeLessThanOrEqual(FROM_MS + 123_456);
    expect(period.leavesAtMs(bucketMs) - bucketMs).toBe(period.longestMs);
    expect(periodNamed(period.name)).toBe(period);
  });

  it.each(["hour", "day@", "week@UTC", "day@Nowhere/Land", "month@../etc"])("refuses %s, which is none", (name) => {
    expect(() => periodNamed(name)).toThrow(RangeError);
  });
});
