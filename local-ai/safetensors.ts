/**
 * The safetensors format (huggingface/safetensors, "Format"): 8 bytes of header length, a JSON header, raw tensors.
 * Read with hard bounds, because a file may come from anywhere.
 */
export interface Tensor {
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array;
}

/** What it costs to read it is bounded by this and by the size of the file. */
const MAX_HEADER_BYTES = 1024 * 1024;
const MAX_DIMENSIONS = 8;
/** Of a name that an error quotes. */
const MAX_QUOTED_CHARACTERS = 100;
const BYTES_OF_DTYPE: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 };
const METADATA = "__metadata__";

/**
 * Reads F32, F16 and BF16 as float32.
 * @throws TypeError that names what is wrong with the file
 */
export function parseSafetensors(file: ArrayBuffer | Uint8Array): Map<string, Tensor> {
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file);
  if (bytes.length < 8) throw new TypeError("safetensors: shorter than its header length");
  const headerBytes = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (headerBytes > BigInt(MAX_HEADER_BYTES)) throw new TypeError(`safetensors: header of ${headerBytes} bytes`);
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > bytes.length) throw new TypeError("safetensors: header reaches beyond the file");
  const entries = parseHeader(bytes.subarray(8, dataStart));
  const data = bytes.subarray(dataStart);
  let end = 0; // tensors lie one behind the other, without holes and without overlap
  for (const { name, from, to } of entries.sort((a, b) => a.from - b.from || a.to - b.to)) {
    if (from !== end) throw new TypeError(`safetensors: ${quoted(name)} overlaps or leaves a hole`);
    end = to;
    if (end > data.length) throw new TypeError(`safetensors: ${quoted(name)} reaches beyond the file`);
  }
  if (end !== data.length) throw new TypeError("safetensors: bytes behind the last tensor");
  // Only now, when nothing can be wrong any more, is memory taken for the values.
  return new Map(entries.map((entry) => [entry.name, { shape: entry.shape, data: floats(data, entry) }]));
}

/**
 * Writes float32 tensors in the order given, behind a header that ends at a multiple of 8 bytes.
 * @param metadata the format's free-form strings; Hugging Face's tools write `{ format: "pt" }`
 * @throws TypeError when a shape does not fit its data, a name is reserved, or the header would be too long to read
 */
export function serialiseSafetensors(
  tensors: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const entries = tensors instanceof Map ? [...tensors] : Object.entries(tensors as Readonly<Record<string, Tensor>>);
  const members: [string, unknown][] = metadata ? [[METADATA, metadata]] : [];
  let end = 0;
  for (const [name, { shape, data }] of entries) {
    if (name === METADATA) throw new TypeError(`safetensors: "${METADATA}" is no name for a tensor`);
    if (!isNaturals(shape) || shape.length > MAX_DIMENSIONS || countOf(shape) !== data.length) {
      throw new TypeError(`safetensors: ${quoted(name)} has ${data.length} values in shape [${shape}]`);
    }
    members.push([name, { dtype: "F32", shape, data_offsets: [end, end + data.byteLength] }]);
    end += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(members)));
  const headerBytes = Math.ceil(json.length / 8) * 8;
  if (headerBytes > MAX_HEADER_BYTES) throw new TypeError(`safetensors: header of ${headerBytes} bytes`);
  const file = new Uint8Array(8 + headerBytes + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.fill(0x20, 8, 8 + headerBytes);
  file.set(json, 8);
  let at = 8 + headerBytes;
  for (const [, { data }] of entries) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}

interface Entry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly count: number;
  readonly from: number;
  readonly to: number;
}

function parseHeader(bytes: Uint8Array): Entry[] {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch {
    throw new TypeError("safetensors: header is not JSON");
  }
  if (!isRecord(header)) throw new TypeError("safetensors: header is not an object");
  if (!text.startsWith("{")) throw new TypeError("safetensors: header does not begin with {");
  const entries: Entry[] = [];
  let keys = 0;
  for (const [name, value] of Object.entries(header)) {
    if (!isRecord(value)) throw new TypeError(`safetensors: ${quoted(name)} is not an object`);
    keys += 1 + Object.keys(value).length;
    if (name !== METADATA) entries.push(parseEntry(name, value));
    else if (!Object.values(value).every((text) => typeof text === "string"))
      throw new TypeError(`safetensors: "${METADATA}" holds something else than strings`);
  }
  // Of two equal names JSON.parse keeps one in silence; readers would differ in which.
  if (keys !== countKeys(text)) throw new TypeError("safetensors: a name occurs twice in the header");
  return entries;
}

function parseEntry(name: string, value: Readonly<Record<string, unknown>>): Entry {
  const { dtype, shape, data_offsets: offsets, ...others } = value;
  const size = typeof dtype === "string" && Object.hasOwn(BYTES_OF_DTYPE, dtype) ? BYTES_OF_DTYPE[dtype] : undefined;
  if (typeof dtype !== "string" || size === undefined) {
    const what = typeof dtype === "string" ? quoted(dtype) : "that is not a string";
    throw new TypeError(`safetensors: ${quoted(name)} has a dtype ${what}; F32, F16 and BF16 are read`);
  }
  if (Object.keys(others).length > 0) throw new TypeError(`safetensors: ${quoted(name)} has unknown members`);
  if (!isNaturals(shape) || shape.length > MAX_DIMENSIONS)
    throw new TypeError(`safetensors: ${quoted(name)} has a bad shape`);
  if (!isNaturals(offsets) || offsets.length !== 2) throw new TypeError(`safetensors: ${quoted(name)} has bad offsets`);
  const count = countOf(shape);
  const [from, to] = offsets as [number, number];
  if (count === undefined || to - from !== count * size) {
    throw new TypeError(`safetensors: ${quoted(name)} has offsets that do not fit its shape`);
  }
  return { name, dtype, shape, count, from, to };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isNaturals = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
const quoted = (name: string): string => JSON.stringify(name.slice(0, MAX_QUOTED_CHARACTERS));

/** @returns undefined when the product is no exact number, even if a zero in the shape would end it well */
function countOf(shape: readonly number[]): number | undefined {
  let count = 1;
  for (const dimension of shape) {
    count *= dimension;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

/** Names in all objects of a valid JSON text: a colon outside of strings stands behind each, and nowhere else. */
function countKeys(json: string): number {
  let count = 0;
  let isString = false;
  for (let i = 0; i < json.length; i++) {
    const character = json[i];
    if (character === '"') isString = !isString;
    else if (character === "\\") i++;
    else if (character === ":" && !isString) count++;
  }
  return count;
}

/** Copied, so that any alignment will do. */
function floats(data: Uint8Array, { dtype, count, from, to }: Entry): Float32Array {
  const copy = data.slice(from, to).buffer;
  if (dtype === "F32") return new Float32Array(copy);
  const halves = new Uint16Array(copy);
  const bits = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const half = halves[i] as number;
    bits[i] = dtype === "BF16" ? half << 16 : float16Bits(half);
  }
  return new Float32Array(bits.buffer);
}

/** IEEE 754 binary16 → the bits of the same number in binary32. */
function float16Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  let fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  let shift = 113; // subnormal: normalise
  while ((fraction & 0x400) === 0) {
    fraction <<= 1;
    shift--;
  }
  return sign | (shift << 23) | ((fraction & 0x3ff) << 13);
}
