import { endsReading, isWithin } from "../src/core/record-clock";
import { journalRowOf } from "./journal";
import { journalRows } from "./journal-rows";
import type { JournalSegments } from "./segments";
import type { JournalPage, JournalQuery, JournalRow } from "./tenant-gate.messages";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";

/** Rows looked at for one page; a sparse filter gets a short page that says there is more. */
const SCAN_ROWS = 20_000;

/** One page of decisions: from the tail, and from sealed segments where the page reaches further back. */
export async function readDecisions(
  sql: Statements,
  segments: Pick<JournalSegments, "read">,
  query: JournalQuery,
  scanRows = SCAN_ROWS,
): Promise<JournalPage> {
  const rows: JournalRow[] = [];
  let scanned = 0;
  let lastSeq: number | null = null;
  for await (const chunk of journalRows(sql, segments, query)) {
    for (const row of chunk) {
      if (endsReading(row.at_ms, query.order, query)) return { rows, hasMore: false, lastSeq };
      if (++scanned > scanRows) return { rows, hasMore: true, lastSeq };
      const read = matching(row, query);
      // There is more only where another row matches: nobody turns to a page that is empty.
      if (read && rows.length === query.limit) return { rows, hasMore: true, lastSeq };
      if (read) rows.push(read);
      lastSeq = row.seq;
    }
  }
  return { rows, hasMore: false, lastSeq };
}

function matching(row: JournalDbRow, query: JournalQuery): JournalRow | undefined {
  if (!isWithin(row.at_ms, query)) return undefined;
  const read = journalRowOf(row);
  const { model, keyId } = read.decision;
  const isAsked = (query.model === null || model === query.model) && (query.keyId === null || keyId === query.keyId);
  return isAsked ? read : undefined;
}
