import { createHash, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

function base62(value, length) {
  let digits = "";
  for (let rest = value; digits.length < length; rest /= 62n) digits = DIGITS[Number(rest % 62n)] + digits;
  return digits;
}

/** An admin key in the platform's own form; a test compares it with src/tenancy/keys.ts. */
export function generateAdminKey() {
  const secret = BigInt(`0x${randomBytes(32).toString("hex")}`);
  const body = `sk-tenantry-admin-${base62(secret, 43)}`;
  return body + base62(BigInt(crc32(body)), 6);
}

/** What the platform is told of a key. */
export const hashKey = (key) => createHash("sha256").update(key).digest("hex");
