import type { JournalDbRow, Statements } from "./tenant-gate-statements";

/** When the journal's oldest rows leave the gate for a sealed segment. */
export interface SegmentLimits {
  /** Rows of one segment at most. */
  readonly rows: number;
  /** Bytes of one segment at most, before it is compressed: sealing holds a few times as much in memory. */
  readonly bytes: number;
  /** A row that is this old is sealed, however few there are. */
  readonly ageMs: number;
  /** Younger rows stay in the tail while there is room. */
  readonly youngMs: number;
  /** Bytes of the gate's whole database above which young rows are sealed as well. */
  readonly hotBytes: number;
}
const MIB = 1_024 * 1_024;
/** A gate keeps 1 GB at most: half of that is for what arrives while it seals. */
export const SEGMENT_LIMITS: SegmentLimits = {
  rows: 10_000,
  bytes: 8 * MIB,
  ageMs: 24 * 3_600_000,
  youngMs: 15 * 60_000,
  hotBytes: 512 * MIB,
};

const utf8 = new TextEncoder();

/** Bytes of a row's texts, near enough to what a line of a segment takes. */
export const bytesOf = ({ decision, event, id, hash }: JournalDbRow): number =>
  utf8.encode(decision).length + (event === null ? 0 : utf8.encode(event).length) + id.length + hash.length;

/** Says when it is worth looking for something to seal, from what is appended; it never counts what is stored. */
export class JournalTail {
  readonly #sql: Statements;
  readonly #limits: SegmentLimits;
  #rows: number;
  #bytes = 0;

  constructor(sql: Statements, limits = SEGMENT_LIMITS) {
    this.#sql = sql;
    this.#limits = limits;
    const last = sql.lastJournalRow();
    const sealedSeq = sql.lastSegment()?.last_seq ?? 0;
    this.#rows = last ? last.seq - sealedSeq : 0;
  }

  add(row: JournalDbRow): void {
    this.#rows++;
    this.#bytes += bytesOf(row);
  }

  /** When there may be something to seal, after something was appended at `nowMs`. */
  dueMs(nowMs: number): number {
    const { rows, bytes, ageMs, youngMs, hotBytes } = this.#limits;
    if (this.#rows < rows && this.#bytes < bytes) return nowMs + ageMs;
    // Counting begins anew: a promise is kept for what is there, and who keeps it looks for what is left.
    this.#rows = 0;
    this.#bytes = 0;
    return this.#sql.databaseBytes() > hotBytes ? nowMs : nowMs + youngMs;
  }
}
