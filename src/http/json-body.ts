import { ApiError } from "../errors";

/** Bounds of a JSON body. */
export const MAX_JSON_BYTES = 8 * 1024 * 1024;
export const MAX_JSON_DEPTH = 64;
/** Of a body that is too large this much is read and thrown away, so that its sender gets to read the answer. */
const MAX_DRAINED_BYTES = 4 * MAX_JSON_BYTES;

/**
 * Reads a JSON body within bounds: size before anything is parsed, depth and duplicate keys before anything is
 * built, then text that no store or model should meet (lone surrogates, NUL).
 * @throws ApiError 400 `invalid_json`, 413 `request_too_large`, 415 `unsupported_media_type`
 */
export async function readJson(request: Request): Promise<unknown> {
  const encoding = request.headers.get("content-encoding");
  if (encoding && encoding !== "identity") {
    throw new ApiError(
      "unsupported_media_type",
      `Send the body uncompressed; content-encoding "${encoding}" is not read.`,
    );
  }
  const text = decode(await readBytes(request));
  const outside = scan(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidJson("The request body is not valid JSON.");
  }
  if (inspect(value) !== outside.colons) throw invalidJson("The request body has an object with a key twice.");
  return value;
}

/** The bytes of a body, within its bound. @throws ApiError 413 `request_too_large` */
export async function readBytes(request: Request): Promise<Uint8Array> {
  if (!request.body) return new Uint8Array();
  let isTooLarge = Number(request.headers.get("content-length") ?? 0) > MAX_JSON_BYTES;
  let chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.length;
    isTooLarge ||= size > MAX_JSON_BYTES;
    if (!isTooLarge) chunks.push(chunk);
    else chunks = [];
    if (size > MAX_DRAINED_BYTES) break; // leaving the loop cancels the body
  }
  if (isTooLarge) throw tooLarge();
  if (chunks.length === 1 && chunks[0]) return chunks[0];
  return joined(chunks, size);
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

/** One pass over the text outside of strings: its depth is bounded before a parser recurses into it. */
function scan(text: string): { readonly colons: number } {
  let depth = 0;
  let colons = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x22: // a string: skip to its end
        for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) if (text.charCodeAt(at) === 0x5c) at++;
        break;
      case 0x3a:
        colons++;
        break;
      case 0x5b:
      case 0x7b:
        if (++depth > MAX_JSON_DEPTH)
          throw invalidJson(`The request body is nested deeper than ${MAX_JSON_DEPTH} levels.`);
        break;
      case 0x5d:
      case 0x7d:
        depth--;
        break;
    }
  }
  return { colons };
}

/** Walks what was parsed, checks every text in it. @returns how many keys it has */
function inspect(root: unknown): number {
  let keys = 0;
  const open: unknown[] = [root];
  while (open.length > 0) {
    const value = open.pop();
    if (typeof value === "string") inspectText(value);
    else if (Array.isArray(value)) for (const item of value) open.push(item);
    else if (typeof value === "object" && value !== null) {
      for (const [key, item] of Object.entries(value)) {
        keys++;
        if (key === "__proto__") throw invalidJson('The request body uses the key "__proto__".');
        inspectText(key);
        open.push(item);
      }
    }
  }
  return keys;
}

function inspectText(text: string): void {
  if (!text.isWellFormed()) throw invalidJson("The request body has a text with half of a surrogate pair.");
  if (text.includes("\0")) throw invalidJson("The request body has a text with a NUL character.");
}

const invalidJson = (message: string) => new ApiError("invalid_json", message);
const tooLarge = () =>
  new ApiError("request_too_large", `The request body is larger than ${MAX_JSON_BYTES / 1024 / 1024} MiB.`);
