import { describe, expect, it } from "vitest";
import { generateAdminKey, hashKey as hashInScript } from "../../scripts/keys.mjs";
import { generateKey, hashKey, KEY_PATTERN, kindOfKey, redactKey } from "../../src/tenancy/keys";

describe("API keys", () => {
  it("carry their kind, 256 random bits and a checksum", () => {
    const keys = Array.from({ length: 200 }, (_, index) => generateKey(index % 2 === 0 ? "tenant" : "admin"));
    expect(new Set(keys).size).toBe(200);
    for (const [index, key] of keys.entries()) {
      expect(key).toMatch(KEY_PATTERN);
      expect(kindOfKey(key)).toBe(index % 2 === 0 ? "tenant" : "admin");
    }
  });

  it("are recognised as mistyped when any character changes", () => {
    const key = generateKey("tenant");
    for (let at = "sk-tenantry-".length; at < key.length; at++) {
      const other = key[at] === "A" ? "B" : "A";
      expect(kindOfKey(key.slice(0, at) + other + key.slice(at + 1))).toBeUndefined();
    }
    expect(kindOfKey(key.replace("sk-tenantry-", "sk-tenantry-admin-"))).toBeUndefined();
  });

  it("show only their kind and last four characters afterwards", () => {
    const key = generateKey("admin");
    expect(redactKey(key)).toBe(`sk-tenantry-admin-…${key.slice(-4)}`);
  });

  it("are the same to the scripts as to the Worker", async () => {
    const key = generateAdminKey();
    expect(kindOfKey(key)).toBe("admin");
    expect(hashInScript(key)).toBe(await hashKey(key));
  });
});
