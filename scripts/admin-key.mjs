// Makes the operator's first admin key for a deployment: the key for you, its hash for the platform.
import { ensureToolchain } from "./toolchain.mjs";

await ensureToolchain();
const { generateAdminKey, hashKey } = await import("./keys.mjs");
const key = generateAdminKey();
console.log(`admin key: ${key}`);
console.log("Keep it in a safe place; it is shown nowhere again. Give the platform its hash:");
console.log(`  echo ${hashKey(key)} | npx wrangler secret put BOOTSTRAP_ADMIN_KEY_HASH --env production`);
