import { AdmissionBook, type Hold } from "../src/core/admission-book";
import type { Lease } from "../src/core/gate-leases";
import type { CallFacts } from "../src/core/records";
import type { Statements } from "./tenant-gate-statements";

/** The admission book as storage has it. */
export function storedBook(sql: Statements, maxDraws: number): AdmissionBook<CallFacts> {
  const leases = sql.leases().map((row) => JSON.parse(row.body) as Lease<CallFacts>);
  return AdmissionBook.restore<CallFacts>({
    holds: sql.holds().map((row) => JSON.parse(row.body) as Hold<CallFacts>),
    // Those of an earlier configuration are out there still.
    leases: maxDraws > 0 || leases.length > 0 ? leases : undefined,
    buckets: sql.buckets().map((row) => ({ rule: row.rule, bucketMs: row.bucket_ms, count: row.count })),
  });
}
