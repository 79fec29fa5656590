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

const DAY_MS = 86_400_000;

/** In every interval of `windowMs` at most the limit: a bucket leaves a full window after its end. */
const sliding = (name: string, bucketMs: number, windowMs: number): Period => ({
  name,
  bucketOf: (atMs) => atMs - (atMs % bucketMs),
  leavesAtMs: (startMs) => startMs + bucketMs + windowMs,
  longestMs: bucketMs + windowMs,
});

export const MINUTE = sliding("minute", 250, 60_000);
export const ROLLING_DAY = sliding("24h", 300_000, DAY_MS);

/** @throws RangeError for a time zone that the runtime does not know */
function calendar(unit: "day" | "month", timeZone: string): Period {
  const longestMs = unit === "day" ? 2 * DAY_MS : 32 * DAY_MS;
  // The start of the next one: any time in it will do, and 36 hours or 45 days after the start are in it.
  const nextOf = (startMs: number) => startOf(unit, timeZone, startMs + (unit === "day" ? 1.5 : 45) * DAY_MS);
  let [fromMs, toMs] = [0, 0]; // the one that was asked for last: a calendar is slow, and mostly it is the same
  const bucketOf = (atMs: number) => {
    if (atMs < fromMs || atMs >= toMs) {
      fromMs = startOf(unit, timeZone, atMs);
      toMs = nextOf(fromMs);
    }
    return fromMs;
  };
  const leavesAtMs = (startMs: number) => (bucketOf(startMs) === startMs ? toMs : nextOf(startMs));
  return { name: `${unit}@${timeZone}`, bucketOf, leavesAtMs, longestMs };
}

const known = new Map<string, Period>([MINUTE, ROLLING_DAY].map((period) => [period.name, period]));

/** @throws RangeError for a name that is none */
export function periodNamed(name: string): Period {
  const found = known.get(name);
  if (found) return found;
  const [, unit, timeZone] = /^(day|month)@(.+)$/.exec(name) ?? [];
  if (!timeZone || (unit !== "day" && unit !== "month")) throw new RangeError(`${name} is no period`);
  const period = calendar(unit, timeZone);
  period.bucketOf(0); // an unknown zone throws now, not when it is first counted
  if (known.size < MAX_KNOWN) known.set(name, period);
  return period;
}
const MAX_KNOWN = 500; // there are fewer time zones than this

/** Midnight, of the day or of the first of the month, that a time zone's clocks last showed. */
function startOf(unit: "day" | "month", timeZone: string, atMs: number): number {
  const local = new Date(atMs + offsetMs(timeZone, atMs));
  const midnight = Date.UTC(local.getUTCFullYear(), local.getUTCMonth(), unit === "day" ? local.getUTCDate() : 1);
  // The offset of that midnight may be another than that of now; asked twice, it is the right one.
  const near = midnight - offsetMs(timeZone, midnight - offsetMs(timeZone, atMs));
  return midnight - offsetMs(timeZone, near);
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** How far a zone's clocks are ahead of UTC, in whole seconds. */
function offsetMs(timeZone: string, atMs: number): number {
  if (timeZone === "UTC") return 0;
  const format = formats.get(timeZone) ?? formatOf(timeZone);
  const at: Record<string, number> = {};
  for (const { type, value } of format.formatToParts(atMs)) at[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = at;
  return Date.UTC(year, month - 1, day, hour % 24, minute, second) - (atMs - (((atMs % 1000) + 1000) % 1000));
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  const numeric = "numeric";
  const format = new Intl.DateTimeFormat("en-US", {
    ...{ timeZone, hourCycle: "h23", era: undefined, year: numeric, month: numeric, day: numeric },
    ...{ hour: numeric, minute: numeric, second: numeric },
  });
  formats.set(timeZone, format);
  return format;
}
