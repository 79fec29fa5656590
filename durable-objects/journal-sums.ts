import type { UsageEvent } from "../src/core/records";
import { journalRows } from "./decision-reader";
import type { JournalSegments } from "./segments";
import type { JournalSums } from "./tenant-gate.messages";
import type { Statements } from "./tenant-gate-statements";

/** Events between two times, from the tail and the sealed segments: each is there once, whatever else was written. */
export async function journalSums(
  sql: Statements,
  segments: JournalSegments,
  fromMs: number,
  toMs: number,
): Promise<JournalSums> {
  let [events, priceMicrodollars, costMicrodollars] = [0, 0, 0];
  const sealed = segments.list().filter((segment) => segment.toMs < fromMs);
  const afterSeq = sealed.at(-1)?.lastSeq ?? null;
  for await (const row of journalRows(sql, segments, { order: "asc", afterSeq })) {
    if (row.at_ms >= toMs) break; // rows are in order of time
    if (row.at_ms < fromMs || row.event === null) continue;
    const event = JSON.parse(row.event) as UsageEvent;
    events++;
    priceMicrodollars += event.priceMicrodollars ?? 0;
    costMicrodollars += event.costMicrodollars ?? 0;
  }
  return { events, priceMicrodollars, costMicrodollars };
}
