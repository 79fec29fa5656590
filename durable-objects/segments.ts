import { objectName } from "../src/core/object-name";
import { bytesOf, SEGMENT_LIMITS, type SegmentLimits } from "./journal-tail";
import type { DataKeys, ObjectHome, Segment, SegmentStore, WrappedKey } from "./ports";
import type { SealedReceipts } from "./sealed-receipts";
import type { JournalDbRow, SegmentRow, Statements } from "./tenant-gate-statements";

/** Segments of one turn, so that an alarm stays within its CPU time; what is left is due at once. */
const SEGMENTS_PER_TURN = 16;
/** In `meta`: the last number of the run that is being sealed. */
const SEALING = "sealing";

/** What sealing needs of its gate. */
export interface SegmentDeps {
  readonly sql: Statements;
  readonly home: () => ObjectHome;
  readonly segments: SegmentStore;
  readonly dataKeys: DataKeys;
  readonly dataKey: () => WrappedKey;
  readonly receipts: SealedReceipts;
  readonly transaction: (work: () => void) => void;
  readonly limits?: SegmentLimits;
}

/** The oldest rows of the tail, up to one segment's worth. */
interface Run {
  readonly rows: readonly JournalDbRow[];
  readonly isFull: boolean;
}

/**
 * The older part of a gate's journal: runs of rows, gzipped, sealed under the tenant's data key, in object storage.
 * Format version 1: JSON lines of journal rows in order.
 */
export class JournalSegments {
  readonly #deps: SegmentDeps;
  readonly #limits: SegmentLimits;

  constructor(deps: SegmentDeps) {
    this.#deps = deps;
    this.#limits = deps.limits ?? SEGMENT_LIMITS;
  }

  /**
   * Seals what is due, oldest first, and forgets receipts that nobody needs any more.
   * @returns when there is something to do again; undefined while there is nothing to seal
   */
  async sealDue(nowMs: number): Promise<number | undefined> {
    const { youngMs } = this.#limits;
    const sealMs = await this.#sealRuns(nowMs);
    const forgetMs = this.#deps.receipts.forget(nowMs - youngMs, youngMs);
    if (sealMs === undefined || forgetMs === undefined) return sealMs ?? forgetMs;
    return Math.min(sealMs, forgetMs);
  }

  /** @throws where the object is missing, opens for nobody, or holds other rows than its segment says */
  async read(segment: SegmentRow): Promise<JournalDbRow[]> {
    const { segments, dataKeys, dataKey } = this.#deps;
    const home = this.#deps.home();
    const sealed = await segments.get(home, segmentOf(segment));
    const plain = await dataKeys.open(home, dataKey(), segmentPurpose(segment.first_seq), sealed);
    const rows = (await gunzip(plain)).split("\n").map((line) => JSON.parse(line) as JournalDbRow);
    const [first, last] = [rows.at(0), rows.at(-1)];
    if (first?.seq !== segment.first_seq || last?.seq !== segment.last_seq || last.hash !== segment.last_hash) {
      throw new Error(`journal segment ${segment.object_key} holds other rows than its manifest says`);
    }
    return rows;
  }

  async #sealRuns(nowMs: number): Promise<number | undefined> {
    for (let sealed = 0; sealed < SEGMENTS_PER_TURN; sealed++) {
      const next = this.#next(nowMs);
      if (!next || "dueMs" in next) return next?.dueMs;
      await this.#seal(next.rows, nowMs);
    }
    return nowMs;
  }

  /** The rows to seal now, or when there will be some; undefined for an empty tail. */
  #next(nowMs: number): Pick<Run, "rows"> | { readonly dueMs: number } | undefined {
    const { sql } = this.#deps;
    const { ageMs, youngMs, hotBytes } = this.#limits;
    // A run that was begun is sealed as it was planned: an object's name then always stands for the same rows, and a
    // late write of an attempt that was given up changes nothing.
    const planned = sql.journalUpTo(Number(sql.meta(SEALING) ?? 0));
    if (planned.length > 0) return { rows: planned };
    const run = this.#oldest();
    const [first] = run.rows;
    if (!first) return undefined;
    const young = run.rows.findIndex((row) => row.at_ms > nowMs - youngMs);
    const old = young === -1 ? run.rows : run.rows.slice(0, young);
    if (run.isFull && (young === -1 || sql.databaseBytes() > hotBytes)) return run;
    if (old.length > 0 && first.at_ms <= nowMs - ageMs) return { rows: old };
    const isAgedMs = first.at_ms + ageMs;
    return { dueMs: run.isFull ? Math.min(newestOf(run.rows) + youngMs, isAgedMs) : isAgedMs };
  }

  #oldest(): Run {
    const { rows: maxRows, bytes: maxBytes } = this.#limits;
    const rows: JournalDbRow[] = [];
    let bytes = 0;
    for (const row of this.#deps.sql.oldestJournal(maxRows)) {
      rows.push(row);
      bytes += bytesOf(row);
      if (bytes >= maxBytes) return { rows, isFull: true };
    }
    return { rows, isFull: rows.length >= maxRows };
  }

  async #seal(rows: readonly JournalDbRow[], nowMs: number): Promise<void> {
    const { sql, segments, dataKeys, dataKey, receipts, transaction } = this.#deps;
    const [first, last] = [rows.at(0), rows.at(-1)];
    if (!first || !last) return;
    sql.putMeta(SEALING, String(last.seq));
    const home = this.#deps.home();
    const purpose = segmentPurpose(first.seq);
    const plain = await gzip(rows.map((row) => JSON.stringify(row)).join("\n"));
    const sealed = await dataKeys.seal(home, dataKey(), purpose, plain);
    const segment: Segment = {
      firstSeq: first.seq,
      lastSeq: last.seq,
      objectKey: `${objectName(home)}/${purpose}`,
      sizeBytes: sealed.length,
      fromMs: Math.min(...rows.map((row) => row.at_ms)),
      toMs: newestOf(rows),
      lastHash: last.hash,
    };
    await segments.put(home, segment, sealed);
    transaction(() => {
      sql.putSegment(rowOf(segment));
      receipts.keep(rows, nowMs - this.#limits.youngMs);
      sql.removeJournal(segment.firstSeq, segment.lastSeq);
    });
  }
}

const newestOf = (rows: readonly JournalDbRow[]) => Math.max(...rows.map((row) => row.at_ms));

/** Also the end of its object key; digits padded so that a listing is in order. */
const segmentPurpose = (firstSeq: number) => `journal/v1/${String(firstSeq).padStart(12, "0")}`;

const segmentOf = (row: SegmentRow): Segment => ({
  firstSeq: row.first_seq,
  lastSeq: row.last_seq,
  objectKey: row.object_key,
  sizeBytes: row.size_bytes,
  fromMs: row.from_ms,
  toMs: row.to_ms,
  lastHash: row.last_hash,
});
const rowOf = (segment: Segment): SegmentRow => ({
  first_seq: segment.firstSeq,
  last_seq: segment.lastSeq,
  object_key: segment.objectKey,
  size_bytes: segment.sizeBytes,
  from_ms: segment.fromMs,
  to_ms: segment.toMs,
  last_hash: segment.lastHash,
});

async function gzip(text: string): Promise<Uint8Array> {
  const compressed = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(compressed).arrayBuffer());
}

async function gunzip(bytes: Uint8Array): Promise<string> {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
