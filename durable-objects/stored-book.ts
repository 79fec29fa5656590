import { AdmissionBook, type Hold } from "../src/core/admission-book";
import type { Lease } from "../src/core/gate-leases";
import type { CallFacts } from "../src/core/records";
import type { AdmissionStatements } from "./gate-admission-statements";
import type { GateWindows } from "./stored-windows";
import type { Statements } from "./tenant-gate-statements";

/**
 * The admission book as storage has it. What was counted stays there until somebody asks, so that waking costs no more
 * with many end users than with few. The clock goes on from the last grant or record.
 */
export function storedBook(
  sql: Statements,
  admission: AdmissionStatements,
  windows: GateWindows,
  maxDraws: number,
): AdmissionBook<CallFacts> {
  const leases = sql.leases().map((row) => JSON.parse(row.body) as Lease<CallFacts>);
  return AdmissionBook.restore<CallFacts>({
    holds: sql.holds().map((row) => JSON.parse(row.body) as Hold<CallFacts>),
    // Those of an earlier configuration are out there still.
    leases: maxDraws > 0 || leases.length > 0 ? leases : undefined,
    windows,
    atMs: admission.lastRecordMs() ?? 0,
  });
}
