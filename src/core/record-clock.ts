/**
 * How far the stamp of a record may lie before that of an earlier record, in milliseconds. A refusal is stamped when it
 * happened and recorded up to a second later, so records are only nearly in order of time; nothing lags more than this.
 */
export const STAMP_LAG_MS = 10_000;

/**
 * Stamps records so that none lags {@link STAMP_LAG_MS} or more behind an earlier one, whatever the machine's clock does:
 * readers that know the bound can stop at it. Pure.
 */
export class RecordClock {
  #floorMs: number;

  /** @param lastMs stamp of the newest record, where there is one: a later life of the object stamps none below it */
  constructor(lastMs: number | undefined) {
    this.#floorMs = lastMs ?? Number.NEGATIVE_INFINITY;
  }

  /** The time of a record that is appended now and says it happened at `atMs`. */
  stamp(atMs: number): number {
    const stampMs = Math.max(atMs, this.#floorMs);
    this.#floorMs = Math.max(this.#floorMs, stampMs - STAMP_LAG_MS);
    return stampMs;
  }

  /** No record is stamped earlier than this any more. */
  get floorMs(): number {
    return this.#floorMs;
  }
}

/** A half-open time, either side of it may be missing. */
export interface TimeBounds {
  readonly fromMs: number | null;
  readonly toMs: number | null;
}

export const isWithin = (atMs: number, { fromMs, toMs }: TimeBounds): boolean =>
  (fromMs === null || atMs >= fromMs) && (toMs === null || atMs < toMs);

/** Whether neither this record nor any later one (`asc`), or earlier one (`desc`), lies within the bounds. */
export const endsReading = (atMs: number, order: "asc" | "desc", { fromMs, toMs }: TimeBounds): boolean =>
  order === "asc" ? toMs !== null && atMs >= toMs + STAMP_LAG_MS : fromMs !== null && atMs < fromMs - STAMP_LAG_MS;
