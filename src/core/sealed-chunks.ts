/**
 * Where the bytes of a file lie once it is sealed in chunks, each with its own tag, so that a part of it can be opened
 * without the rest (after STREAM: Hoang, Reyhanitabar, Rogaway & Vizár, CRYPTO 2015). An empty file has one chunk.
 */
export const CHUNK_BYTES = 64 * 1024;
export const TAG_BYTES = 16;
const SEALED_BYTES = CHUNK_BYTES + TAG_BYTES;

export const lastChunk = (bytes: number): number => Math.max(0, Math.ceil(bytes / CHUNK_BYTES) - 1);

/** Bytes first to last, both included. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** Which chunks a range of the plain file needs, where they lie, and what of the first and last one is not asked for. */
export function chunksOf(bytes: number, { first, last }: ByteRange) {
  const [from, to] = [Math.floor(first / CHUNK_BYTES), Math.floor(last / CHUNK_BYTES)];
  const sealedLength = bytes + (lastChunk(bytes) + 1) * TAG_BYTES;
  const offset = from * SEALED_BYTES;
  return {
    from,
    offset,
    length: Math.min((to + 1) * SEALED_BYTES, sealedLength) - offset,
    skip: first - from * CHUNK_BYTES,
    take: last - first + 1,
  };
}

/** A nonce for each chunk of one key: its number, and whether it is the last, so that a cut file does not open. */
export function chunkNonce(index: number, isLast: boolean): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(7, index);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}
