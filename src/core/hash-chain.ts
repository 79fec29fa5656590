/** A chain of records in which each hash covers the one before, so that nothing can be changed or left out unseen. */
export const GENESIS = "0".repeat(64);

export interface ChainRow {
  readonly seq: number;
  readonly hash: string;
  readonly record: unknown;
}

type Sha256 = (text: string) => string;

/** SHA-256, in hex, of `previous "." seq "." canonical JSON of the record`. */
export function chainHash(previous: string, seq: number, record: unknown, sha256: Sha256): string {
  return sha256(`${previous}.${seq}.${canonicalJson(record)}`);
}

/** What a reply carries of its record: enough to find it, and to notice when it was changed. */
export const receipt = (seq: number, hash: string): string => `${seq}.${hash.slice(0, 16)}`;

/**
 * Follows the chain from `start`. Rows cut off at the end leave no trace in the rest: whoever must notice that compares
 * the last row with a checkpoint.
 * @returns the sequence number of the first row that does not follow from the one before, or null
 */
export function verifyChain(
  rows: readonly ChainRow[],
  sha256: Sha256,
  start = { seq: 0, hash: GENESIS },
): number | null {
  let { seq, hash } = start;
  for (const row of rows) {
    if (row.seq !== seq + 1 || row.hash !== chainHash(hash, row.seq, row.record, sha256)) return row.seq;
    ({ seq, hash } = row);
  }
  return null;
}

/**
 * JSON with keys sorted by UTF-16 code units, so that one record has one text, before and after it was stored (in the
 * spirit of RFC 8785). Fields that are undefined are left out, as JSON does.
 * @throws TypeError for what has no such text: numbers that are not finite, undefined inside lists, functions, and
 *   objects such as Date or Map, whose content their fields do not hold
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === "boolean" || typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number" && Number.isFinite(value)) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${Array.from(value, canonicalJson).join(",")}]`;
  if (typeof value === "object" && isPlain(value)) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(",")}}`;
  }
  throw new TypeError(`no canonical JSON for ${typeof value}`);
}

/** Made by a literal or by JSON, of whichever realm. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
