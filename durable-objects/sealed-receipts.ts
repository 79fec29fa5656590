import { receipt } from "../src/core/hash-chain";
import type { Outcome, UsageEvent } from "../src/core/records";
import type { Recorded } from "./journal";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";

/** A call whose record was sealed young; its settlement may still be retried. */
export type ReceiptRow = { seq: number; id: string; receipt: string; outcome: string };

/**
 * Receipts of calls whose records went into a segment while they were young, because the gate had to make room. Each
 * stays as long as the record would have stayed in the tail.
 */
export class SealedReceipts {
  readonly #sql: Statements;
  #isEmpty: boolean; // so that a gate that never had to make room looks at nothing

  constructor(sql: Statements) {
    this.#sql = sql;
    this.#isEmpty = sql.firstReceipt() === undefined;
  }

  find(requestId: string): Recorded | undefined {
    const row = this.#isEmpty ? undefined : this.#sql.receiptOf(requestId);
    return row && { receipt: row.receipt, event: { outcome: row.outcome as Outcome } };
  }

  /** Keeps those of rows that are younger than `youngSinceMs`; inside the transaction that removes the rows. */
  keep(rows: readonly JournalDbRow[], youngSinceMs: number): void {
    for (const row of rows) {
      if (row.event === null || row.at_ms <= youngSinceMs) continue;
      const { outcome } = JSON.parse(row.event) as UsageEvent;
      this.#sql.putReceipt({ seq: row.seq, id: row.id, receipt: receipt(row.seq, row.hash), outcome });
      this.#isEmpty = false;
    }
  }

  /**
   * Forgets those of segments whose newest row is no longer young.
   * @returns when the next ones can be forgotten
   */
  forget(youngSinceMs: number, youngMs: number): number | undefined {
    for (;;) {
      const first = this.#sql.firstReceipt();
      const segment = first && this.#sql.segmentAtOrAfter(first.seq, Number.NEGATIVE_INFINITY);
      this.#isEmpty = first === undefined;
      if (!segment) return undefined;
      if (segment.to_ms > youngSinceMs) return segment.to_ms + youngMs;
      this.#sql.removeReceipts(segment.last_seq);
    }
  }
}
