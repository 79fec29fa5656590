import { Buffer } from "node:buffer";
import type { DataKeys, WrappedKey } from "../../durable-objects/ports";
import { type ObjectAddress, objectName } from "../core/object-name";

/**
 * Sealing with a per-tenant data key: AES-256-GCM, the key random and wrapped by a versioned regional key.
 * Sealed form, version 1: `0x01`, 12 bytes of nonce, ciphertext and tag. The owner and the purpose are
 * authenticated with it, so that bytes sealed for one tenant or one use open for no other.
 */
const VERSION = 1;
const NONCE_BYTES = 12;

/** @param wrappingKeys 32 bytes each, by version; the highest wraps, all of them unwrap */
export function dataKeys(wrappingKeys: ReadonlyMap<number, Uint8Array>): DataKeys {
  const newest = Math.max(...wrappingKeys.keys());
  const wrappingKey = (version: number) => {
    const key = wrappingKeys.get(version);
    if (!key) throw new TypeError(`wrapping key version ${version} is not configured`);
    return importKey(key);
  };
  const unwrap = async (tenant: ObjectAddress, { wrapped, wrappedBy }: WrappedKey) =>
    importKey(await decrypt(await wrappingKey(wrappedBy), aad(tenant, "data key"), Buffer.from(wrapped, "base64")));

  return {
    async create(tenant) {
      const raw = crypto.getRandomValues(new Uint8Array(32));
      const wrapped = await encrypt(await wrappingKey(newest), aad(tenant, "data key"), raw);
      return { wrappedBy: newest, wrapped: Buffer.from(wrapped).toString("base64") };
    },
    async seal(tenant, key, purpose, plain) {
      const body = await encrypt(await unwrap(tenant, key), aad(tenant, purpose), plain);
      return concat(Uint8Array.of(VERSION), body);
    },
    async open(tenant, key, purpose, sealed) {
      if (sealed[0] !== VERSION) throw new TypeError(`sealed with unknown version ${sealed[0]}`);
      return decrypt(await unwrap(tenant, key), aad(tenant, purpose), sealed.subarray(1));
    },
  };
}

const importKey = (raw: Uint8Array) => crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);

/** Length-prefixed, so that no two pairs of owner and purpose read the same. */
function aad(tenant: ObjectAddress, purpose: string): Uint8Array {
  const owner = objectName(tenant);
  return new TextEncoder().encode(`${owner.length}:${owner}:${purpose}`);
}

async function encrypt(key: CryptoKey, additionalData: Uint8Array, plain: Uint8Array): Promise<Uint8Array> {
  const iv = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  return concat(iv, new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, key, plain)));
}

/** @throws OperationError when the bytes were sealed for another owner, purpose or key, or were changed */
async function decrypt(key: CryptoKey, additionalData: Uint8Array, sealed: Uint8Array): Promise<Uint8Array> {
  const iv = sealed.subarray(0, NONCE_BYTES);
  const body = sealed.subarray(NONCE_BYTES);
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, key, body));
}

function concat(first: Uint8Array, second: Uint8Array): Uint8Array {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}
