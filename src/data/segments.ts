import type { Segment } from "../../durable-objects/ports";
import type { TenantData } from "./tenant-data";

/** Lists a sealed journal segment in the tenant's manifest. */
export async function listSegment(data: TenantData, gate: string, segment: Segment, nowMs: number): Promise<void> {
  const { fromMs, toMs, firstSeq, lastSeq, objectKey, sizeBytes, lastHash } = segment;
  const { journalSegment } = data.tables;
  const row = { gate, firstSeq, lastSeq, objectKey, sizeBytes, fromMs, toMs, lastHash };
  const times = { createdAtMs: nowMs, updatedAtMs: nowMs };
  await data.batch([data.upsert(journalSegment, [journalSegment.gate, journalSegment.firstSeq], { ...row, ...times })]);
}
