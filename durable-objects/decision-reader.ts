import { journalRowOf } from "./journal";
import type { JournalSegments } from "./segments";
import type { JournalPage, JournalQuery, JournalRow } from "./tenant-gate.messages";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";

const CHUNK_ROWS = 500;
/** Rows looked at for one page; a sparse filter gets a short page that says there is more. */
const SCAN_ROWS = 20_000;

/** One page of decisions: from the tail, and from sealed segments where the page reaches further back. */
export async function readDecisions(
  sql: Statements,
  segments: JournalSegments,
  query: JournalQuery,
): Promise<JournalPage> {
  const rows: JournalRow[] = [];
  let scanned = 0;
  let lastSeq: number | null = null;
  for await (const row of journalRows(sql, segments, query)) {
    if (rows.length === query.limit || ++scanned > SCAN_ROWS) return { rows, hasMore: true, lastSeq };
    lastSeq = row.seq;
    if (isOutside(row, query)) break;
    const read = journalRowOf(row);
    if (matches(read, query)) rows.push(read);
  }
  return { rows, hasMore: false, lastSeq };
}

/** Every row beyond the cursor, in the order asked for, whether it lies in the tail or in a segment. */
export async function* journalRows(
  sql: Statements,
  segments: JournalSegments,
  { order, afterSeq }: Pick<JournalQuery, "order" | "afterSeq">,
): AsyncGenerator<JournalDbRow> {
  if (order === "desc") {
    let before = afterSeq ?? Number.MAX_SAFE_INTEGER;
    for (;;) {
      const chunk = sql.journalBefore(before, CHUNK_ROWS);
      yield* chunk;
      before = chunk.at(-1)?.seq ?? before;
      if (chunk.length < CHUNK_ROWS) break;
    }
    for (const segment of segments.list().reverse()) {
      if (segment.firstSeq >= before) continue;
      yield* (await segments.read(segment)).filter((row) => row.seq < before).reverse();
    }
    return;
  }
  let after = afterSeq ?? 0;
  for (const segment of segments.list()) {
    if (segment.lastSeq <= after) continue;
    yield* (await segments.read(segment)).filter((row) => row.seq > after);
    after = segment.lastSeq;
  }
  for (;;) {
    const chunk = sql.journalFrom(after + 1, CHUNK_ROWS);
    yield* chunk;
    after = chunk.at(-1)?.seq ?? after;
    if (chunk.length < CHUNK_ROWS) return;
  }
}

/** Rows are in order of time, so the first one beyond the bound ends the reading. */
function isOutside(row: JournalDbRow, { order, fromMs, toMs }: JournalQuery): boolean {
  return order === "desc" ? fromMs !== null && row.at_ms < fromMs : toMs !== null && row.at_ms >= toMs;
}

function matches({ decision }: JournalRow, { fromMs, toMs, model, keyId }: JournalQuery): boolean {
  return (
    (fromMs === null || decision.atMs >= fromMs) &&
    (toMs === null || decision.atMs < toMs) &&
    (model === null || decision.model === model) &&
    (keyId === null || decision.keyId === keyId)
  );
}
