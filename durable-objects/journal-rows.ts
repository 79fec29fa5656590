import { endsReading, STAMP_LAG_MS, type TimeBounds } from "../src/core/record-clock";
import type { JournalSegments } from "./segments";
import type { JournalDbRow, SegmentRow, Statements } from "./tenant-gate-statements";

/** Rows of the tail that one step reads. */
const CHUNK_ROWS = 500;

/** Which rows are read: those beyond the cursor, in that order, until no more of them can lie within the bounds. */
export interface RowsQuery extends TimeBounds {
  readonly order: "asc" | "desc";
  readonly afterSeq: number | null;
}

/**
 * Rows in the order of their numbers, each exactly once, whatever is appended or sealed while they are read: before
 * every step it is looked up anew where the next number lies, in the tail or in a segment. Rows outside of the bounds
 * may be among them, because stamps are only nearly in order.
 */
export async function* journalRows(
  sql: Statements,
  segments: Pick<JournalSegments, "read">,
  query: RowsQuery,
): AsyncGenerator<readonly JournalDbRow[]> {
  const { order } = query;
  let at = query.afterSeq;
  for (;;) {
    const step = order === "asc" ? stepUp(sql, at ?? 0, query) : stepDown(sql, at ?? Number.MAX_SAFE_INTEGER, query);
    if (!step) return;
    const rows = "rows" in step ? step.rows : await rowsOf(segments, step.segment, at, order);
    if (rows.length > 0) yield rows;
    const last = rows.at(-1);
    if (last && endsReading(last.at_ms, order, query)) return;
    at = last?.seq ?? ("segment" in step ? endOf(step.segment, order) : null);
  }
}

type Step = { readonly rows: readonly JournalDbRow[] } | { readonly segment: SegmentRow } | undefined;

/** Tail and segments never overlap, and the tail is always the newer part. */
function stepUp(sql: Statements, after: number, { fromMs }: TimeBounds): Step {
  const newestMs = fromMs === null ? Number.NEGATIVE_INFINITY : fromMs - STAMP_LAG_MS;
  const segment = sql.segmentAtOrAfter(after + 1, newestMs);
  if (segment) return { segment };
  const rows = sql.journalFrom(fromMs === null ? after + 1 : skipOlder(sql, after + 1, newestMs), CHUNK_ROWS);
  return rows.length > 0 ? { rows } : undefined;
}

function stepDown(sql: Statements, before: number, { toMs }: TimeBounds): Step {
  const oldestMs = toMs === null ? Number.POSITIVE_INFINITY : toMs + STAMP_LAG_MS;
  const rows = sql.journalBefore(toMs === null ? before : skipNewer(sql, before, oldestMs), CHUNK_ROWS);
  if (rows.length > 0) return { rows };
  const segment = sql.segmentBefore(before, oldestMs);
  return segment && { segment };
}

async function rowsOf(
  segments: Pick<JournalSegments, "read">,
  segment: SegmentRow,
  at: number | null,
  order: "asc" | "desc",
): Promise<JournalDbRow[]> {
  const rows = await segments.read(segment);
  if (order === "asc") return rows.filter((row) => row.seq > (at ?? 0));
  return rows.filter((row) => row.seq < (at ?? Number.MAX_SAFE_INTEGER)).reverse();
}

const endOf = ({ first_seq, last_seq }: SegmentRow, order: "asc" | "desc") => (order === "asc" ? last_seq : first_seq);

/** A number before which every row of the tail is older than the bounds: where a row lags behind that, all before it do. */
function skipOlder(sql: Statements, from: number, newestMs: number): number {
  return bisect(sql, from, (atMs) => atMs < newestMs).low;
}

/** A number from which on every row of the tail is newer than the bounds. */
function skipNewer(sql: Statements, before: number, oldestMs: number): number {
  return Math.min(before, bisect(sql, 0, (atMs) => atMs < oldestMs).high);
}

/** Halves the tail until two neighbours are left of which the first is `isBefore` and the second is not. */
function bisect(sql: Statements, from: number, isBefore: (atMs: number) => boolean) {
  let low = Math.max(from, sql.firstJournalSeq() ?? 0);
  let high = (sql.lastJournalRow()?.seq ?? 0) + 1;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const row = sql.journalStamp(middle);
    if (row && isBefore(row.at_ms)) low = row.seq + 1;
    else high = middle;
  }
  return { low, high };
}
