import type { AdmissionBook } from "../src/core/admission-book";
import { type EndedRequests, REMEMBER_ENDED_MS } from "../src/core/ended-requests";
import type { CallFacts, DecisionRecord } from "../src/core/records";
import type { AdmissionStatements, ParkedRow } from "./gate-admission-statements";
import type { GateJournal } from "./journal";
import { alertedBy, alertRecord } from "./refusals";
import type { GateWindows } from "./stored-windows";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";

interface GateWriterDeps {
  readonly sql: Statements;
  readonly statements: AdmissionStatements;
  readonly book: AdmissionBook<CallFacts>;
  readonly windows: GateWindows;
  readonly ended: EndedRequests;
  readonly journal: GateJournal;
}

/**
 * Writes what a gate's memory has and its storage has not. A single record that storage does not take is parked beside
 * the others and alarmed, so that it stops nobody else; where storage takes nothing at all, the commit fails as a whole.
 */
export class GateWriter {
  readonly #deps: GateWriterDeps;

  constructor(deps: GateWriterDeps) {
    this.#deps = deps;
  }

  /** The caller is inside one transaction. @throws where the transaction must not stand */
  write(nowMs: number): void {
    this.#writeJournal(nowMs);
    const { sql, statements, book, windows, ended } = this.#deps;
    const { holds, leases, buckets } = book.takeDirty();
    for (const { rule, bucketMs, count } of buckets.upsert) sql.putBucket(rule, bucketMs, count);
    for (const { rule, bucketMs } of buckets.remove) sql.removeBucket(rule, bucketMs);
    windows.sweep(buckets.upsert.length, nowMs);
    for (const id of leases.remove) sql.removeLease(id);
    for (const requestId of holds.remove) sql.removeHold(requestId);
    for (const lease of leases.upsert) {
      const body = JSON.stringify(lease);
      // Whoever waits for its commit finds it gone and gives nothing out.
      const drop = () => book.returnLease(lease.id, [], nowMs);
      this.#tryTo(() => sql.putLease(lease.id, body), { kind: "lease", name: lease.id, body, nowMs }, drop);
    }
    for (const hold of holds.upsert) {
      const { requestId } = hold;
      const body = JSON.stringify(hold);
      const drop = () => {
        book.release(requestId);
        ended.add(requestId, nowMs, true);
      };
      this.#tryTo(() => sql.putHold(requestId, body), { kind: "hold", name: requestId, body, nowMs }, drop);
    }
    for (const { requestId, endedAtMs } of ended.takeDirty())
      statements.putEnded(requestId, endedAtMs, nowMs - REMEMBER_ENDED_MS);
  }

  /** A parked row keeps its place in the hash chain: whoever follows the chain finds it among the parked ones. */
  #writeJournal(nowMs: number): void {
    const { journal, ended } = this.#deps;
    const parked: JournalDbRow[] = [];
    const park = (row: JournalDbRow, error: unknown) => {
      this.#park({ kind: "journal", name: row.id, body: JSON.stringify(row), nowMs }, error);
      ended.add(row.id, nowMs, true);
      parked.push(row);
    };
    journal.save(park);
    for (const { decision } of parked.splice(0)) {
      const about = alertedBy(JSON.parse(decision) as DecisionRecord);
      // Under an id of its own: that of the record may be what storage does not take.
      journal.append(alertRecord({ ...about, requestId: `parked_${about.requestId}` }, "record_parked", nowMs), null);
    }
    journal.save(park);
  }

  #tryTo(write: () => void, row: Unwritten, drop: () => void): void {
    try {
      write();
    } catch (error) {
      this.#park(row, error);
      drop();
    }
  }

  /** @throws where this cannot be written either */
  #park({ nowMs, ...row }: Unwritten, error: unknown): void {
    const reason = String(error).slice(0, 500);
    this.#deps.statements.park({ ...row, reason, at_ms: nowMs });
    console.error(JSON.stringify({ event: "record_parked", kind: row.kind, name: row.name, reason }));
  }
}

type Unwritten = Omit<ParkedRow, "reason" | "at_ms"> & { readonly nowMs: number };
