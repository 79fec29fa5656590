import { describe, expect, it } from "vitest";
import { CHUNK_BYTES } from "../../../src/core/sealed-chunks";
import { fileStore, type StoredFile } from "../../../src/storage/files";
import { dataKeys } from "../../../src/storage/sealing";
import { segmentStore } from "../../../src/storage/segments";

const ada = { region: "global", tenantId: "proj_ada" };
const bob = { region: "global", tenantId: "proj_bob" };
const keys = dataKeys(new Map([[1, new Uint8Array(32).fill(1)]]));

/** One bucket in memory, with what the stores ask of R2. */
function memoryBucket() {
  const objects = new Map<string, Uint8Array>();
  const bucket = {
    put: async (key: string, bytes: Uint8Array) => void objects.set(key, bytes.slice()),
    get: async (key: string, options?: { range: { offset: number; length: number } }) => {
      const bytes = objects.get(key);
      if (!bytes) return null;
      const { offset, length } = options?.range ?? { offset: 0, length: bytes.length };
      const part = bytes.slice(offset, offset + length);
      return { body: new Blob([part]).stream(), arrayBuffer: async () => part.buffer };
    },
    delete: async (names: string[]) => names.forEach((key) => void objects.delete(key)),
  };
  return { objects, bucket: bucket as unknown as R2Bucket };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

const { objects, bucket } = memoryBucket();
const files = fileStore({ bucket: () => bucket, dataKeys: keys });
const [adas, bobs] = [await keys.create(ada), await keys.create(bob)];
const plain = new TextEncoder().encode("the same bytes in every file".repeat(4_000));
const put = (id: string) => files.put(ada, adas, id, once(plain));
const read = async (tenant: typeof ada, key: typeof adas, id: string, stored: StoredFile) => {
  const stream = await files.get(tenant, key, id, stored, null);
  return stream && new Uint8Array(await new Response(stream).arrayBuffer());
};

describe("the keys of files", () => {
  it("are each file's own: the same bytes in two files share nothing, and neither opens with the other's key", async () => {
    const [one, two, again] = [await put("file-1"), await put("file-2"), await put("file-3")];
    expect(await read(ada, adas, "file-1", one)).toEqual(plain);
    const bytesOf = (id: string) => objects.get(`global/proj_ada/files/v1/${id}`) as Uint8Array;
    for (const [a, b] of [
      ["file-1", "file-2"],
      ["file-2", "file-3"],
    ] as const) {
      expect(bytesOf(a).length).toBe(bytesOf(b).length);
      for (const at of [0, CHUNK_BYTES + 16]) {
        expect(Buffer.from(bytesOf(a)).subarray(at, at + 64)).not.toEqual(
          Buffer.from(bytesOf(b)).subarray(at, at + 64),
        );
      }
    }
    expect(new Set([one, two, again].map(({ sealedKey }) => sealedKey)).size).toBe(3);
    // The other file's bytes under this one's name and key.
    objects.set("global/proj_ada/files/v1/file-1", bytesOf("file-2"));
    await expect(read(ada, adas, "file-1", one)).rejects.toThrow();
    // The other file's key under this one's name.
    await expect(read(ada, adas, "file-1", { ...one, sealedKey: two.sealedKey })).rejects.toThrow();
  });

  it("open for their own tenant alone", async () => {
    const stored = await put("file-4");
    objects.set("global/proj_bob/files/v1/file-4", objects.get("global/proj_ada/files/v1/file-4") as Uint8Array);
    await expect(read(bob, bobs, "file-4", stored)).rejects.toThrow();
    await expect(read(bob, adas, "file-4", stored)).rejects.toThrow();
    await expect(read(ada, bobs, "file-4", stored)).rejects.toThrow();
  });

  it("open a file whole and in order, not cut, doubled or swapped", async () => {
    const stored = await put("file-5");
    const name = "global/proj_ada/files/v1/file-5";
    const sealed = objects.get(name) as Uint8Array;
    const size = CHUNK_BYTES + 16;
    const [first, second] = [sealed.slice(0, size), sealed.slice(size)];
    for (const changed of [Buffer.concat([second, first]), Buffer.concat([first, first])]) {
      objects.set(name, changed);
      await expect(read(ada, adas, "file-5", stored)).rejects.toThrow();
    }
    objects.set(name, first);
    await expect(read(ada, adas, "file-5", { ...stored, bytes: CHUNK_BYTES })).rejects.toThrow();
  });
});

describe("the objects of segments", () => {
  const listed: string[] = [];
  const manifest = async (_: unknown, { objectKey }: { objectKey: string }) => {
    expect(objects.has(objectKey)).toBe(true);
    listed.push(objectKey);
  };
  const segments = segmentStore({ bucket: () => bucket, manifest });
  const segment = (objectKey: string) => ({
    ...{ firstSeq: 1, lastSeq: 2, objectKey, sizeBytes: 3, fromMs: 0, toMs: 0, lastHash: "h" },
  });

  it("are there before their manifest row, and are read by their own tenant alone", async () => {
    const own = segment("global/proj_ada/journal/v1/000000000001");
    await segments.put({ ...ada, isolation: "pool" }, own, Uint8Array.of(1, 2, 3));
    expect(listed).toEqual([own.objectKey]);
    expect(await segments.get(ada, own)).toEqual(Uint8Array.of(1, 2, 3));
    await expect(segments.get(bob, own)).rejects.toThrow("another tenant");
    await expect(segments.get(ada, segment("global/proj_ada/files/v1/file-1"))).rejects.toThrow("another tenant");
    await expect(segments.get(ada, segment("global/proj_ada/journal/v1/9"))).rejects.toThrow("is missing");
  });

  it("are not listed where object storage did not take them", async () => {
    const failing = segmentStore({
      bucket: () => ({ put: () => Promise.reject(new Error("no")) }) as unknown as R2Bucket,
      manifest,
    });
    await expect(failing.put({ ...ada, isolation: "pool" }, segment("x"), Uint8Array.of(1))).rejects.toThrow("no");
    expect(listed).not.toContain("x");
  });
});
