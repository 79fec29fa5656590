import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { DataKeys, WrappedKey } from "../../durable-objects/ports";
import { type ObjectAddress, objectName } from "../core/object-name";
import { type ByteRange, CHUNK_BYTES, chunkNonce, chunksOf, lastChunk, TAG_BYTES } from "../core/sealed-chunks";

/** Parts of an upload: R2 wants 5 MiB at least, and all but the last of one size. */
const CHUNKS_PER_PART = 80;
const PART_BYTES = CHUNKS_PER_PART * (CHUNK_BYTES + TAG_BYTES);

/** Removing waits so long for an answer; maintenance tries again. */
const REMOVE_TIMEOUT_MS = 10_000;

/** The R2 prefix under which a tenant's files lie. Version 1. */
export const filePrefix = (tenant: ObjectAddress): string => `${objectName(tenant)}/files/v1/`;

export interface StoredFile {
  readonly bytes: number;
  /** Of the plain bytes, hex. */
  readonly sha256: string;
  /** The file's own key, sealed with the tenant's, base64. */
  readonly sealedKey: string;
}

/** A tenant's files in R2, each sealed in chunks under a key of its own: AES-256-GCM. */
export function fileStore(stores: {
  readonly bucket: (tenant: ObjectAddress) => R2Bucket;
  readonly dataKeys: DataKeys;
  readonly removeTimeoutMs?: number;
}) {
  const purpose = (id: string) => `file ${id}`;
  return {
    /** Reads the source once, piece by piece; nothing stays behind where it fails. */
    async put(
      tenant: ObjectAddress,
      dataKey: WrappedKey,
      id: string,
      source: AsyncIterable<Uint8Array>,
    ): Promise<StoredFile> {
      const raw = crypto.getRandomValues(new Uint8Array(32));
      const sealedKey = Buffer.from(await stores.dataKeys.seal(tenant, dataKey, purpose(id), raw)).toString("base64");
      const upload = new PartedUpload(stores.bucket(tenant), filePrefix(tenant) + id);
      const hash = createHash("sha256");
      let bytes = 0;
      try {
        for await (const sealed of sealedChunks(await importKey(raw), source, (plain) => {
          hash.update(plain);
          bytes += plain.byteLength;
        }))
          await upload.add(sealed);
        await upload.end();
      } catch (error) {
        await upload.abort();
        throw error;
      }
      return { bytes, sha256: hash.digest("hex"), sealedKey };
    },

    /** The bytes of a range, opened as they are read; null where the object is gone. */
    async get(
      tenant: ObjectAddress,
      dataKey: WrappedKey,
      id: string,
      { bytes, sealedKey }: Pick<StoredFile, "bytes" | "sealedKey">,
      range: ByteRange | null,
    ): Promise<ReadableStream<Uint8Array> | null> {
      const sealed = new Uint8Array(Buffer.from(sealedKey, "base64"));
      const key = await importKey(await stores.dataKeys.open(tenant, dataKey, purpose(id), sealed));
      const chunks = chunksOf(bytes, range ?? { first: 0, last: Math.max(0, bytes - 1) });
      const { offset, length } = chunks;
      const object = await stores.bucket(tenant).get(filePrefix(tenant) + id, { range: { offset, length } });
      if (!object) return null;
      const take = bytes === 0 ? 0 : chunks.take;
      return streamOf(opened(key, object.body, { ...chunks, take, last: lastChunk(bytes) }));
    },

    /** May be repeated. @throws when object storage fails, or does not answer in time */
    async remove(tenant: ObjectAddress, ids: readonly string[]): Promise<void> {
      if (ids.length === 0) return;
      const removed = stores.bucket(tenant).delete(ids.map((id) => filePrefix(tenant) + id));
      await within(stores.removeTimeoutMs ?? REMOVE_TIMEOUT_MS, removed);
    },
  };
}
export type FileStore = ReturnType<typeof fileStore>;

async function within(timeoutMs: number, work: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`object storage did not answer within ${timeoutMs} ms`)), timeoutMs);
  });
  await Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const importKey = (raw: Uint8Array) => crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);

/** One object, in one piece where it is small, else in parts; memory holds one part. */
class PartedUpload {
  readonly #bucket: R2Bucket;
  readonly #key: string;
  readonly #part = new Uint8Array(PART_BYTES);
  #filled = 0;
  #upload: R2MultipartUpload | undefined;
  readonly #parts: R2UploadedPart[] = [];

  constructor(bucket: R2Bucket, key: string) {
    this.#bucket = bucket;
    this.#key = key;
  }

  async add(sealed: ArrayBuffer): Promise<void> {
    if (this.#filled === PART_BYTES) await this.#send();
    this.#part.set(new Uint8Array(sealed), this.#filled);
    this.#filled += sealed.byteLength;
    sealed.transfer(0); // gives its memory back now, and not when a collection comes
  }

  async end(): Promise<void> {
    if (!this.#upload) return void (await this.#bucket.put(this.#key, this.#part.subarray(0, this.#filled)));
    await this.#send();
    await this.#upload.complete(this.#parts);
  }

  async abort(): Promise<void> {
    await this.#upload?.abort().catch(() => {}); // R2 forgets parts that nobody completes by itself
  }

  async #send(): Promise<void> {
    this.#upload ??= await this.#bucket.createMultipartUpload(this.#key);
    const number = this.#parts.length + 1;
    this.#parts.push(await this.#upload.uploadPart(number, this.#part.subarray(0, this.#filled)));
    this.#filled = 0;
  }
}

/** Chunks of one size, the last one shorter; which one is last is known only when nothing follows. */
async function* sealedChunks(
  key: CryptoKey,
  source: AsyncIterable<Uint8Array>,
  onPlain: (plain: Uint8Array) => void,
): AsyncGenerator<ArrayBuffer> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  let index = 0;
  const seal = async (isLast: boolean) => {
    const algorithm = { name: "AES-GCM", iv: chunkNonce(index++, isLast) };
    return crypto.subtle.encrypt(algorithm, key, chunk.subarray(0, filled));
  };
  for await (const piece of source) {
    onPlain(piece);
    for (let at = 0; at < piece.byteLength; ) {
      if (filled === CHUNK_BYTES) {
        yield await seal(false);
        filled = 0;
      }
      const part = piece.subarray(at, at + CHUNK_BYTES - filled);
      chunk.set(part, filled);
      filled += part.byteLength;
      at += part.byteLength;
    }
  }
  yield await seal(true);
}

async function* opened(
  key: CryptoKey,
  sealed: ReadableStream<Uint8Array>,
  chunks: { readonly from: number; readonly last: number; readonly skip: number; readonly take: number },
): AsyncGenerator<Uint8Array> {
  let { from: index, skip, take } = chunks;
  for await (const chunk of inPieces(sealed, CHUNK_BYTES + TAG_BYTES)) {
    const algorithm = { name: "AES-GCM", iv: chunkNonce(index, index === chunks.last) };
    const plain = new Uint8Array(await crypto.subtle.decrypt(algorithm, key, chunk));
    const wanted = plain.subarray(skip, skip + take);
    index++;
    skip = 0;
    take -= wanted.byteLength;
    if (wanted.byteLength > 0) yield wanted;
  }
}

/** Made as it is read; whoever leaves stops it. */
function streamOf(bytes: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await bytes.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => void bytes.return(undefined),
  });
}

/** The same bytes in pieces of one size; the last may be shorter. */
async function* inPieces(stream: ReadableStream<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(size);
  let filled = 0;
  for await (const bytes of stream) {
    for (let at = 0; at < bytes.byteLength; ) {
      const part = bytes.subarray(at, at + size - filled);
      piece.set(part, filled);
      filled += part.byteLength;
      at += part.byteLength;
      if (filled < size) continue;
      yield piece;
      piece = new Uint8Array(size);
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}
