import { isWithin } from "../src/core/record-clock";
import type { UsageEvent } from "../src/core/records";
import { journalRows } from "./journal-rows";
import type { JournalSegments } from "./segments";
import type { JournalSums } from "./tenant-gate.messages";
import type { Statements } from "./tenant-gate-statements";

/** Events between two times, from the tail and the sealed segments: each is there once, whatever else was written. */
export async function journalSums(
  sql: Statements,
  segments: Pick<JournalSegments, "read">,
  fromMs: number,
  toMs: number,
): Promise<JournalSums> {
  let [events, priceMicrodollars, costMicrodollars] = [0, 0, 0];
  const bounds = { fromMs, toMs };
  for await (const rows of journalRows(sql, segments, { order: "asc", afterSeq: null, ...bounds })) {
    for (const row of rows) {
      if (row.event === null || !isWithin(row.at_ms, bounds)) continue;
      const event = JSON.parse(row.event) as UsageEvent;
      events++;
      priceMicrodollars += event.priceMicrodollars ?? 0;
      costMicrodollars += event.costMicrodollars ?? 0;
    }
  }
  return { events, priceMicrodollars, costMicrodollars };
}
