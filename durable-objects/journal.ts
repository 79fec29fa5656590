import { chainHash, GENESIS, receipt } from "../src/core/hash-chain";
import { RecordClock } from "../src/core/record-clock";
import type { DecisionRecord, UsageEvent } from "../src/core/records";
import { NO_REMAINDER } from "../src/core/remainders";
import type { JournalTail } from "./journal-tail";
import type { SealedReceipts } from "./sealed-receipts";
import type { JournalRow } from "./tenant-gate.messages";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";
import { UsageHours } from "./usage-hours";

/** What is told of a call that is already recorded. */
export interface Recorded {
  readonly receipt: string;
  readonly event: Pick<UsageEvent, "outcome">;
}

/**
 * The journal's tail in a gate: decisions in a hash chain, usage events beside them, and usage by hour. Appending
 * changes memory; `save` writes what was appended since, inside the group's transaction.
 */
export class GateJournal {
  readonly usage: UsageHours;
  readonly #sql: Statements;
  readonly #sha256: (text: string) => string;
  readonly #tail: JournalTail;
  readonly #sealed: SealedReceipts;
  readonly #clock: RecordClock;
  #lastSeq: number;
  #lastHash: string;
  #unsaved: JournalDbRow[] = [];

  constructor(sql: Statements, sha256: (text: string) => string, tail: JournalTail, sealed: SealedReceipts) {
    this.usage = new UsageHours(sql);
    this.#sql = sql;
    this.#sha256 = sha256;
    this.#tail = tail;
    this.#sealed = sealed;
    const last = sql.lastJournalRow();
    const segment = sql.lastSegment();
    this.#lastSeq = last?.seq ?? segment?.last_seq ?? 0;
    this.#lastHash = last?.hash ?? segment?.last_hash ?? GENESIS;
    this.#clock = new RecordClock(last?.at_ms ?? segment?.to_ms);
  }

  /**
   * @param remainder what the call left of its model's money
   * @returns the receipt of the appended decision
   */
  append(happened: DecisionRecord, counted: UsageEvent | null, remainder = NO_REMAINDER): string {
    const seq = this.#lastSeq + 1;
    const atMs = this.#clock.stamp(happened.atMs);
    const decision = { ...happened, atMs };
    const event = counted && { ...counted, atMs };
    // The event is part of what is chained: a changed bill breaks the chain as a changed decision does.
    const hash = chainHash(this.#lastHash, seq, { decision, event }, this.#sha256);
    const row: JournalDbRow = {
      seq,
      id: decision.id,
      at_ms: atMs,
      hash,
      event: event && JSON.stringify(event),
      decision: JSON.stringify(decision),
    };
    this.#unsaved.push(row);
    this.#tail.add(row);
    this.#lastSeq = seq;
    this.#lastHash = hash;
    if (event) this.usage.count(event, seq, remainder);
    return receipt(seq, hash);
  }

  /** The receipt of a call that is already recorded, so that settling twice answers as settling once. */
  recorded(requestId: string): Recorded | undefined {
    const unsaved = this.#unsaved.find((row) => row.id === requestId && row.event !== null);
    const row = unsaved ?? this.#sql.eventRow(requestId);
    if (!row?.event) return this.#sealed.find(requestId);
    return { receipt: receipt(row.seq, row.hash), event: JSON.parse(row.event) as UsageEvent };
  }

  /** @param park takes a row that storage does not; without it such a row fails the transaction */
  save(park: (row: JournalDbRow, error: unknown) => void = fail): void {
    for (const row of this.#unsaved) {
      try {
        this.#sql.appendJournal(row);
      } catch (error) {
        park(row, error);
      }
    }
    this.usage.save();
    this.#unsaved = [];
  }

  /** No record is stamped earlier than this any more, in Unix milliseconds. */
  get floorMs(): number {
    return this.#clock.floorMs;
  }
}

function fail(_: JournalDbRow, error: unknown): never {
  throw error;
}

export const journalRowOf = (row: JournalDbRow): JournalRow => ({
  seq: row.seq,
  hash: row.hash,
  decision: JSON.parse(row.decision) as DecisionRecord,
});
