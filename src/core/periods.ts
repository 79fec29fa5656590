/**
 * What a limit counts over: a sliding window in buckets, or a calendar day or month of a time zone. Pure: names and
 * times in, times out. Names are stored with what was counted, so they never change their meaning.
 */
export interface Period {
  /** `minute`, `24h`, `day@<zone>` or `month@<zone>`. */
  readonly name: string;
  /** Start of the bucket that a time counts in. */
  bucketOf(atMs: number): number;
  /** When what was counted in that bucket counts no longer. */
  leavesAtMs(bucketMs: number): number;
  /** The longest time that a count can stand in the way. */
  readonly longestMs: number;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** In every interval of `windowMs` at most the limit: a bucket leaves a full window after its end. */
const sliding = (name: string, bucketMs: number, windowMs: number): Period => ({
  name,
  bucketOf: (atMs) => atMs - (atMs % bucketMs),
  leavesAtMs: (startMs) => startMs + bucketMs + windowMs,
  longestMs: bucketMs + windowMs,
});

export const MINUTE = sliding("minute", 250, 60_000);
export const ROLLING_DAY = sliding("24h", 300_000, DAY_MS);

/**
 * A day or month of a time zone's calendar begins when its clocks first show it, or anything later: where they skip
 * midnight, at the jump; where they turn back over midnight, only once, so that buckets follow each other without a
 * gap. A day that a zone skipped whole (Samoa, 2011-12-30) has no bucket.
 * @throws RangeError for a time zone that the runtime does not know
 */
function calendar(unit: "day" | "month", timeZone: string): Period {
  const longestMs = unit === "day" ? 2 * DAY_MS : 32 * DAY_MS;
  const offsetMs = offsetsOf(timeZone);
  const find = (atMs: number): readonly [fromMs: number, toMs: number] => {
    let midnight = midnightBefore(unit, atMs + offsetMs(atMs));
    let [fromMs, toMs] = [firstShown(midnight, offsetMs), 0];
    for (;;) {
      midnight = midnightAfter(unit, midnight);
      toMs = firstShown(midnight, offsetMs);
      if (toMs > atMs) return [fromMs, toMs];
      fromMs = toMs; // the clocks were turned back over midnight: what has begun stays
    }
  };
  // The one that was asked for last: a calendar is slow, and mostly it is the same. It changes no answer.
  let last = find(0);
  const at = (atMs: number) => {
    if (atMs < last[0] || atMs >= last[1]) last = find(atMs);
    return last;
  };
  const leavesAtMs = (startMs: number) => {
    const [fromMs, toMs] = at(startMs);
    // An earlier version named a bucket that begins with a skipped midnight by a time up to two hours before it.
    return fromMs === startMs ? toMs : at(startMs + 2 * HOUR_MS)[1];
  };
  return { name: `${unit}@${timeZone}`, bucketOf: (atMs) => at(atMs)[0], leavesAtMs, longestMs };
}

const known = new Map<string, Period>();

/** @throws RangeError for a name that is none */
export function periodNamed(name: string): Period {
  const found = FIXED.get(name) ?? known.get(name);
  if (found) return found;
  const [, unit, timeZone] = /^(day|month)@(.+)$/.exec(name) ?? [];
  if (!timeZone || (unit !== "day" && unit !== "month")) throw new RangeError(`${name} is no period`);
  const period = calendar(unit, timeZone); // an unknown zone throws now, not when it is first counted
  const [oldest] = known.keys();
  if (known.size >= MAX_KNOWN && oldest !== undefined) known.delete(oldest);
  known.set(name, period);
  return period;
}
const FIXED = new Map<string, Period>([MINUTE, ROLLING_DAY].map((period) => [period.name, period]));
/** Zones have many spellings, and each one's calendar takes some 10 KB; it is made anew in less than a millisecond. */
const MAX_KNOWN = 200;

/** As a clock shows it, in milliseconds, like all that is called local here. */
function midnightBefore(unit: "day" | "month", localMs: number): number {
  const local = new Date(localMs);
  return Date.UTC(local.getUTCFullYear(), local.getUTCMonth(), unit === "day" ? local.getUTCDate() : 1);
}

function midnightAfter(unit: "day" | "month", midnight: number): number {
  const local = new Date(midnight);
  return unit === "day" ? midnight + DAY_MS : Date.UTC(local.getUTCFullYear(), local.getUTCMonth() + 1);
}

/** No clock of the world is, or was, as far from UTC. */
const FARTHEST_MS = 16 * HOUR_MS;
/** No zone changes its clocks twice in so short a time. */
const STEP_MS = 8 * HOUR_MS;

/** When a zone's clocks first show this local time, or a later one. */
function firstShown(localMs: number, offsetMs: (atMs: number) => number): number {
  for (let fromMs = localMs - FARTHEST_MS; ; ) {
    const offset = offsetMs(fromMs);
    const toMs = fromMs + STEP_MS;
    const changesMs = offsetMs(toMs) === offset ? toMs : changeBetween(fromMs, toMs, offsetMs);
    const shownMs = Math.max(fromMs, localMs - offset);
    if (shownMs < changesMs) return shownMs;
    fromMs = changesMs;
  }
}

/** The first second, to the clock's own, at which a zone's clocks show another time than they would have. */
function changeBetween(fromMs: number, toMs: number, offsetMs: (atMs: number) => number): number {
  const offset = offsetMs(fromMs);
  let [before, after] = [fromMs, toMs];
  while (after - before > 1_000) {
    const middle = before + Math.ceil((after - before) / 2_000) * 1_000;
    if (middle >= after) break;
    if (offsetMs(middle) === offset) before = middle;
    else after = middle;
  }
  return after;
}

/** How far a zone's clocks are ahead of UTC, in whole seconds, as milliseconds. @throws RangeError for an unknown zone */
function offsetsOf(timeZone: string): (atMs: number) => number {
  if (timeZone === "UTC") return () => 0;
  const numeric = "numeric";
  const format = new Intl.DateTimeFormat("en-US", {
    ...{ timeZone, hourCycle: "h23", era: undefined, year: numeric, month: numeric, day: numeric },
    ...{ hour: numeric, minute: numeric, second: numeric },
  });
  return (atMs) => {
    const at: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(atMs)) at[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = at;
    return Date.UTC(year, month - 1, day, hour % 24, minute, second) - (atMs - (((atMs % 1000) + 1000) % 1000));
  };
}
