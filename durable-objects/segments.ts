import { objectName } from "../src/core/object-name";
import type { DataKeys, ObjectHome, Segment, SegmentStore, WrappedKey } from "./ports";
import type { JournalDbRow, SegmentRow, Statements } from "./tenant-gate-statements";

/** A segment is sealed when the tail holds this many rows, or its oldest row is this old. */
export const SEGMENT_ROWS = 10_000;
export const SEGMENT_AGE_MS = 24 * 3_600_000;
/** Younger rows stay in the tail, so that a settlement that is retried still finds its record there. */
export const TAIL_AGE_MS = 15 * 60_000;

/**
 * The older part of a gate's journal: runs of rows, gzipped, sealed under the tenant's data key, in object storage.
 * Format version 1: JSON lines of journal rows in order.
 */
export class JournalSegments {
  constructor(
    readonly home: () => ObjectHome,
    readonly sql: Statements,
    readonly ports: { readonly segments: SegmentStore; readonly dataKeys: DataKeys },
    readonly dataKey: () => WrappedKey,
    readonly transaction: (work: () => void) => void,
  ) {}

  list(): Segment[] {
    return this.sql.segments().map(segmentOf);
  }

  /** Seals the oldest rows, if there are enough of them or they are old enough. */
  async sealOldest(nowMs: number): Promise<boolean> {
    const span = this.sql.journalSpan();
    if (span.first === null || span.first_ms === null) return false;
    if (span.rows < SEGMENT_ROWS && nowMs - span.first_ms < SEGMENT_AGE_MS) return false;
    const rows = this.sql.journalFrom(span.first, SEGMENT_ROWS).filter((row) => row.at_ms <= nowMs - TAIL_AGE_MS);
    const first = rows.at(0);
    const last = rows.at(-1);
    if (!first || !last) return false;
    const home = this.home();
    const plain = await gzip(rows.map((row) => JSON.stringify(row)).join("\n"));
    const purpose = segmentPurpose(first.seq);
    const sealed = await this.ports.dataKeys.seal(home, this.dataKey(), purpose, plain);
    const segment: Segment = {
      firstSeq: first.seq,
      lastSeq: last.seq,
      objectKey: `${objectName(home)}/${purpose}`,
      sizeBytes: sealed.length,
      fromMs: first.at_ms,
      toMs: last.at_ms,
      lastHash: last.hash,
    };
    await this.ports.segments.put(home, segment, sealed);
    this.transaction(() => {
      this.sql.putSegment(rowOf(segment));
      this.sql.removeJournal(segment.firstSeq, segment.lastSeq);
    });
    return true;
  }

  async read(segment: Segment): Promise<JournalDbRow[]> {
    const home = this.home();
    const sealed = await this.ports.segments.get(home, segment);
    const purpose = segmentPurpose(segment.firstSeq);
    const plain = await this.ports.dataKeys.open(home, this.dataKey(), purpose, sealed);
    const lines = (await gunzip(plain)).split("\n");
    return lines.map((line) => JSON.parse(line) as JournalDbRow);
  }
}

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
