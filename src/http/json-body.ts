import { type JsonProblem, scanJson } from "../core/json-scan";
import { ApiError } from "../errors";
import { BodyFlow } from "./body-flow";

/** Of a JSON body; `core/json-scan.ts` bounds what is in it. */
export const MAX_JSON_BYTES = 8 * 1024 * 1024;
/** Of a body that is too large this much is read and thrown away, so that its sender gets to read the answer. */
const MAX_DRAINED_BYTES = 4 * MAX_JSON_BYTES;
const FIRST_BYTES = 16 * 1024;
const NOTHING = new Uint8Array();

/**
 * Reads a JSON body within bounds: size before anything is parsed, depth and numbers of members and values before
 * anything is built, then duplicate keys and text that no store or model should meet (lone surrogates, NUL).
 * @throws ApiError 400 `invalid_json` or `invalid_value`, 408 `request_timeout`, 413 `request_too_large`, 415
 */
export async function readJson(request: Request): Promise<unknown> {
  const encoding = request.headers.get("content-encoding");
  if (encoding && encoding !== "identity") {
    throw new ApiError(
      "unsupported_media_type",
      `Send the body uncompressed; content-encoding "${encoding}" is not read.`,
    );
  }
  return parseJson(await readBytes(request));
}

/** @throws ApiError 400 `invalid_json` or `invalid_value` */
export function parseJson(bytes: Uint8Array): unknown {
  const text = decode(bytes);
  const outline = scanJson(text);
  if ("problem" in outline) throw refused(outline);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidJson("The request body is not valid JSON.");
  }
  if (keysIn(value) !== outline.colons) throw invalidJson("The request body has an object with a key twice.");
  if (outline.hasCodeEscapes) assertTexts(value);
  return value;
}

/**
 * The bytes of a body, within its bound.
 * @param patienceMs with a body that brings nothing
 * @throws ApiError 400 `invalid_json` for more than was announced, 408 `request_timeout`, 413 `request_too_large`
 */
export async function readBytes(request: Pick<Request, "body" | "headers">, patienceMs?: number): Promise<Uint8Array> {
  if (!request.body) return new Uint8Array();
  const announced = Number(request.headers.get("content-length") ?? Number.NaN);
  const flow = new BodyFlow(patienceMs);
  const reader = request.body.getReader();
  const cancel = (reason: unknown) => reader.cancel(reason);
  let isTooLarge = announced > MAX_JSON_BYTES;
  // Not as large as announced: who announces much and sends nothing must not hold memory.
  let bytes = new Uint8Array(FIRST_BYTES);
  let size = 0;
  for (;;) {
    const { done, value } = await flow.next(() => reader.read(), cancel);
    if (done) break;
    isTooLarge ||= size + value.length > MAX_JSON_BYTES;
    if (isTooLarge) bytes = NOTHING;
    else {
      if (size + value.length > bytes.length) bytes = grown(bytes, size + value.length);
      bytes.set(value, size);
    }
    size += value.length;
    if (isTooLarge ? size <= MAX_DRAINED_BYTES : !(size > announced)) continue;
    await cancel(undefined).catch(() => {}); // its sender may have gone
    break;
  }
  if (isTooLarge) throw tooLarge();
  // Who trusts the announcement reads no more than it.
  if (size > announced) throw invalidJson("The request body is longer than its content-length.");
  return bytes.subarray(0, size);
}

/** At least twice as large, so that a body in many pieces is copied a few times and not once a piece. */
function grown(bytes: Uint8Array, least: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.max(2 * bytes.length, least));
  larger.set(bytes);
  return larger;
}

/** Chunks as one. */
export function joined(chunks: readonly Uint8Array[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    throw invalidJson("The request body is not valid UTF-8.");
  }
}

/** Walks what was parsed, no deeper than the scan let it be. @returns how many keys it has */
function keysIn(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let keys = 0;
  if (Array.isArray(value)) for (const element of value) keys += keysIn(element);
  else {
    for (const key in value) {
      if (key === "__proto__") throw invalidJson('The request body uses the key "__proto__".');
      keys += 1 + keysIn((value as Record<string, unknown>)[key]);
    }
  }
  return keys;
}

/** Only escapes can write what no text may have: bytes that were decoded are well formed, and JSON has no bare NUL. */
function assertTexts(value: unknown): void {
  if (typeof value === "string") assertText(value);
  else if (Array.isArray(value)) for (const element of value) assertTexts(element);
  else if (typeof value === "object" && value !== null) {
    for (const key in value) {
      assertText(key);
      assertTexts((value as Record<string, unknown>)[key]);
    }
  }
}

function assertText(text: string): void {
  if (!text.isWellFormed()) throw invalidJson("The request body has a text with half of a surrogate pair.");
  if (text.includes("\0")) throw invalidJson("The request body has a text with a NUL character.");
}

function refused({ problem, what, field }: JsonProblem): ApiError {
  if (problem !== "too_much") return invalidJson(`The request body ${what}.`);
  if (field === undefined) return new ApiError("invalid_value", `The request body ${what}.`);
  return new ApiError("invalid_value", `'${field}' ${what}.`, { param: field });
}

const invalidJson = (message: string) => new ApiError("invalid_json", message);
const tooLarge = () =>
  new ApiError("request_too_large", `The request body is larger than ${MAX_JSON_BYTES / 1024 / 1024} MiB.`);
