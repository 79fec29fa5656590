/**
 * The safetensors format (huggingface/safetensors, "Format"): 8 bytes of header length, a JSON header, raw tensors.
 * Read with hard bounds, because a file may come from anywhere.
 */
export interface Tensor {
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array;
}

const MAX_HEADER_BYTES = 1024 * 1024;
const MAX_DIMENSIONS = 8;
const BYTES_OF_DTYPE: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 };

/** @throws TypeError that names what is wrong with the file */
export function parseSafetensors(file: ArrayBuffer): Map<string, Tensor> {
  if (file.byteLength < 8) throw new TypeError("safetensors: shorter than its header length");
  const headerBytes = new DataView(file).getBigUint64(0, true);
  if (headerBytes > BigInt(MAX_HEADER_BYTES)) throw new TypeError(`safetensors: header of ${headerBytes} bytes`);
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > file.byteLength) throw new TypeError("safetensors: header reaches beyond the file");
  const entries = parseHeader(new Uint8Array(file, 8, Number(headerBytes)));
  const tensors = new Map<string, Tensor>();
  let end = 0; // tensors lie one behind the other, without holes and without overlap
  for (const entry of entries.sort((a, b) => a.from - b.from)) {
    if (entry.from !== end) throw new TypeError(`safetensors: "${entry.name}" overlaps or leaves a hole`);
    end = entry.to;
    if (dataStart + end > file.byteLength) throw new TypeError(`safetensors: "${entry.name}" reaches beyond the file`);
    tensors.set(entry.name, { shape: entry.shape, data: floats(file, dataStart + entry.from, entry) });
  }
  if (dataStart + end !== file.byteLength) throw new TypeError("safetensors: bytes behind the last tensor");
  return tensors;
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
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw new TypeError("safetensors: header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new TypeError("safetensors: header is not an object");
  }
  return Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, value]) => parseEntry(name, value));
}

function parseEntry(name: string, value: unknown): Entry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const size = typeof dtype === "string" && Object.hasOwn(BYTES_OF_DTYPE, dtype) ? BYTES_OF_DTYPE[dtype] : undefined;
  if (typeof dtype !== "string" || size === undefined)
    throw new TypeError(`safetensors: "${name}" has dtype ${String(dtype)}`);
  if (!isNaturals(shape) || shape.length > MAX_DIMENSIONS)
    throw new TypeError(`safetensors: "${name}" has a bad shape`);
  if (!isNaturals(offsets) || offsets.length !== 2) throw new TypeError(`safetensors: "${name}" has bad offsets`);
  const count = shape.reduce((product, dimension) => product * dimension, 1);
  const [from, to] = offsets as [number, number];
  if (!Number.isSafeInteger(count) || to - from !== count * size) {
    throw new TypeError(`safetensors: "${name}" has offsets that do not fit its shape`);
  }
  return { name, dtype, shape, count, from, to };
}

const isNaturals = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

/** Copied, so that any alignment will do. */
function floats(file: ArrayBuffer, at: number, { dtype, count }: Entry): Float32Array {
  if (dtype === "F32") return new Float32Array(file.slice(at, at + 4 * count));
  const halves = new Uint16Array(file.slice(at, at + 2 * count));
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
