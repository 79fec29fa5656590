import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CHUNK_BYTES, chunkNonce, chunksOf, lastChunk, TAG_BYTES } from "../../../src/core/sealed-chunks";

const SEALED = CHUNK_BYTES + TAG_BYTES;
const anySize = fc.oneof(
  fc.integer({ min: 1, max: 5 * CHUNK_BYTES }),
  fc.constantFrom(1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES),
);

describe("the chunks of a range", () => {
  it("hold all of it and lie within the sealed file, and no chunk is read in vain", () => {
    fc.assert(
      fc.property(anySize, fc.nat(), fc.nat(), (bytes, a, b) => {
        const [first, last] = [a % bytes, b % bytes].sort((x, y) => x - y) as [number, number];
        const { from, offset, length, skip, take } = chunksOf(bytes, { first, last });
        const sealedLength = bytes + (lastChunk(bytes) + 1) * TAG_BYTES;
        expect(offset).toBe(from * SEALED);
        expect(offset + length).toBeLessThanOrEqual(sealedLength);
        expect(offset % SEALED).toBe(0);
        expect((offset + length) % SEALED === 0 || offset + length === sealedLength).toBe(true);
        expect(from * CHUNK_BYTES + skip).toBe(first);
        expect(take).toBe(last - first + 1);
        expect(skip).toBeLessThan(CHUNK_BYTES);
        const chunks = Math.ceil(length / SEALED);
        expect(chunks).toBe(Math.floor(last / CHUNK_BYTES) - Math.floor(first / CHUNK_BYTES) + 1);
      }),
    );
  });

  it("have a nonce each, and the last one another than it would have in the middle", () => {
    const nonces = [0, 1, 255, 256, 65_536, 2 ** 32 - 1].flatMap((index) => [
      chunkNonce(index, false),
      chunkNonce(index, true),
    ]);
    expect(new Set(nonces.map(String)).size).toBe(nonces.length);
    for (const nonce of nonces) expect(nonce).toHaveLength(12);
  });
});
