import { Buffer } from "node:buffer";
import { BodyFlow } from "./body-flow";

const READ_BYTES = 64 * 1024;

/**
 * A stream looked at through one buffer: bytes are read into it, looked at and taken, and nothing is allocated on
 * the way, so that a body of any size leaves no garbage behind. Views of it are good until the next call.
 */
export class ByteWindow {
  readonly #reader: ReadableStreamBYOBReader;
  readonly #bytes: Buffer;
  readonly #flow: BodyFlow;
  #read: ArrayBuffer = new ArrayBuffer(READ_BYTES);
  #start = 0;
  #end = 0;
  #isDone = false;

  /**
   * @param most how much may have to be seen at once
   * @param before what is seen as if it stood before the stream
   * @param patienceMs with a stream that brings nothing
   */
  constructor(body: ReadableStream<Uint8Array>, most: number, before: Uint8Array, patienceMs?: number) {
    this.#flow = new BodyFlow(patienceMs);
    this.#reader = body.getReader({ mode: "byob" });
    this.#bytes = Buffer.alloc(most + READ_BYTES);
    this.#bytes.set(before);
    this.#end = before.byteLength;
  }

  /** Bytes in sight. */
  get size(): number {
    return this.#end - this.#start;
  }

  /** Where those bytes begin, from here; −1 where they are not in sight. */
  indexOf(bytes: Uint8Array): number {
    const at = this.#bytes.subarray(this.#start, this.#end).indexOf(bytes);
    return at;
  }

  /** Takes so many bytes that are in sight. */
  take(count: number): Uint8Array {
    const taken = this.#bytes.subarray(this.#start, this.#start + count);
    this.#start += count;
    return taken;
  }

  /** Brings more into sight. @returns false at the end of the stream @throws ApiError 408 for one that stalls */
  async more(): Promise<boolean> {
    if (this.#isDone) return false;
    this.#bytes.copyWithin(0, this.#start, this.#end);
    [this.#start, this.#end] = [0, this.size];
    const room = Math.min(READ_BYTES, this.#bytes.byteLength - this.#end);
    const { done, value } = await this.#flow.next(
      () => this.#reader.read(new Uint8Array(this.#read, 0, room)),
      () => this.cancel(),
    );
    this.#isDone = done;
    if (!value) return false;
    this.#bytes.set(value, this.#end);
    this.#end += value.byteLength;
    this.#read = value.buffer as ArrayBuffer;
    return !done;
  }

  cancel(): Promise<void> {
    return this.#reader.cancel();
  }
}
