import { Buffer } from "node:buffer";

/**
 * API keys: `sk-tenantry-` (a tenant's) or `sk-tenantry-admin-` (the operator's), 43 base62 digits that carry
 * 256 random bits, 6 base62 digits of CRC-32 over all before them. Prefix and checksum let a secret scanner
 * recognise a leaked key without asking us, and let us refuse a mistyped one without asking a database.
 * Only the SHA-256 of the whole key is ever stored: a 256-bit random secret needs no slow hash.
 */
export type KeyKind = "tenant" | "admin";

const PREFIX: Record<KeyKind, string> = { tenant: "sk-tenantry-", admin: "sk-tenantry-admin-" };
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_DIGITS = 43; // 62^43 > 2^256
const CHECKSUM_DIGITS = 6; // 62^6 > 2^32
const SECRET_BITS = 256;

/** The shape of a key, for scanners and for the door. */
export const KEY_PATTERN = /^sk-tenantry-(admin-)?[0-9A-Za-z]{49}$/;

/** Makes a new key from 256 random bits. The caller shows it once and keeps {@link hashKey} of it. */
export function generateKey(kind: KeyKind): string {
  const random = crypto.getRandomValues(new Uint8Array(SECRET_BITS / 8));
  const value = random.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  const body = PREFIX[kind] + base62(value, SECRET_DIGITS);
  return body + base62(BigInt(crc32(body)), CHECKSUM_DIGITS);
}

/** The kind of a well-formed key, or undefined for anything else; says nothing about whether the key exists. */
export function kindOfKey(key: string): KeyKind | undefined {
  const match = KEY_PATTERN.exec(key);
  if (!match) return undefined;
  const body = key.slice(0, -CHECKSUM_DIGITS);
  if (base62(BigInt(crc32(body)), CHECKSUM_DIGITS) !== key.slice(-CHECKSUM_DIGITS)) return undefined;
  return match[1] ? "admin" : "tenant";
}

/** SHA-256 of the whole key, in hex: what the directory and the gate know a key by. */
export async function hashKey(key: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return Buffer.from(digest).toString("hex");
}

/** What may be shown of a key later on: its prefix and its last four digits. */
export function redactKey(key: string): string {
  const prefix = kindOfKey(key) === "admin" ? PREFIX.admin : PREFIX.tenant;
  return `${prefix}…${key.slice(-4)}`;
}

function base62(value: bigint, length: number): string {
  let rest = value;
  let digits = "";
  for (let i = 0; i < length; i++) {
    digits = DIGITS.charAt(Number(rest % 62n)) + digits;
    rest /= 62n;
  }
  return digits;
}

/** CRC-32 of ISO 3309, as zip uses it. */
function crc32(text: string): number {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
