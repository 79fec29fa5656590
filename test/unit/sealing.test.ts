import { describe, expect, it } from "vitest";
import { dataKeys } from "../../src/storage/sealing";

const key = (fill: number) => new Uint8Array(32).fill(fill);
const ada = { region: "global", tenantId: "proj_ada" };
const bob = { region: "global", tenantId: "proj_bob" };
const plain = new TextEncoder().encode("what was said");

describe("sealing", () => {
  it("opens what it sealed, for the same owner and purpose alone", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const [own, other] = [await keys.create(ada), await keys.create(bob)];
    const sealed = await keys.seal(ada, own, "journal/1", plain);
    expect(await keys.open(ada, own, "journal/1", sealed)).toEqual(plain);
    expect(Buffer.from(sealed).includes("what was said")).toBe(false);
    await expect(keys.open(ada, own, "journal/2", sealed)).rejects.toThrow();
    await expect(keys.open(bob, other, "journal/1", sealed)).rejects.toThrow();
    await expect(keys.open(bob, own, "journal/1", sealed)).rejects.toThrow();
    await expect(keys.open({ ...ada, region: "eu" }, own, "journal/1", sealed)).rejects.toThrow();
  });

  it("notices every changed byte", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const sealed = await keys.seal(ada, own, "p", plain);
    for (let at = 0; at < sealed.length; at++) {
      const changed = sealed.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      await expect(keys.open(ada, own, "p", changed)).rejects.toThrow();
    }
  });

  it("wraps with the newest regional key and unwraps with any that is still there", async () => {
    const old = dataKeys(new Map([[1, key(1)]]));
    const wrapped = await old.create(ada);
    const sealed = await old.seal(ada, wrapped, "p", plain);
    const rotated = dataKeys(
      new Map([
        [1, key(1)],
        [2, key(2)],
      ]),
    );
    expect(await rotated.open(ada, wrapped, "p", sealed)).toEqual(plain);
    expect((await rotated.create(ada)).wrappedBy).toBe(2);
    await expect(dataKeys(new Map([[2, key(2)]])).open(ada, wrapped, "p", sealed)).rejects.toThrow("version 1");
  });

  it("opens what version 1 sealed", async () => {
    const wrapped = {
      wrappedBy: 1,
      wrapped: "3Z91enPPIGbuosC8gzdwiBn94mBO3isQFcFqsMjkokP0YcSZg57S6x4pvAhugWV4rilEcntaxUMfVA6L",
    };
    const keys = dataKeys(new Map([[1, key(1)]]));
    const sealed = Buffer.from("AazVlzZCyytaWVd/aJJxJTOj2bC6XGRoH8VKIM9cfFkf7x75M89SSVeK", "base64");
    expect(new TextDecoder().decode(await keys.open(ada, wrapped, "journal/1", sealed))).toBe("what was said");
  });
});

describe("keys and nonces", () => {
  /** Version, then the nonce; see the sealed form. */
  const nonceOf = (sealed: Uint8Array) => Buffer.from(sealed.subarray(1, 13)).toString("hex");

  it("are never the same twice: the same bytes, sealed again, share nothing", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const sealed = await Promise.all(Array.from({ length: 300 }, () => keys.seal(ada, own, "journal/1", plain)));
    expect(new Set(sealed.map(nonceOf)).size).toBe(300);
    expect(new Set(sealed.map((bytes) => Buffer.from(bytes.subarray(13)).toString("hex"))).size).toBe(300);
    // No part of a nonce stands still: bytes that a counter or a clock would leave alike.
    for (let at = 1; at < 13; at++) expect(new Set(sealed.map((bytes) => bytes[at])).size).toBeGreaterThan(50);
  });

  it("are made anew for each tenant, and wrapped anew each time", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const made = await Promise.all(Array.from({ length: 50 }, () => keys.create(ada)));
    expect(new Set(made.map(({ wrapped }) => wrapped)).size).toBe(50);
    expect(
      new Set(made.map(({ wrapped }) => Buffer.from(wrapped, "base64").subarray(0, 12).toString("hex"))).size,
    ).toBe(50);
    const [one, two] = made;
    if (!one || !two) throw new Error("no keys");
    const sealed = await keys.seal(ada, one, "p", plain);
    await expect(keys.open(ada, two, "p", sealed)).rejects.toThrow(); // the keys differ, not their wrapping alone
  });

  it("open for the exact owner and purpose alone, however alike another reads", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const purposes = ["journal/v1/000000000001", "journal/v1/000000000011", "file file-1", "file file-11", "", ":"];
    for (const sealedFor of purposes) {
      const sealed = await keys.seal(ada, own, sealedFor, plain);
      for (const purpose of purposes) {
        const opened = keys.open(ada, own, purpose, sealed);
        if (purpose === sealedFor) expect(await opened).toEqual(plain);
        else await expect(opened).rejects.toThrow();
      }
    }
  });

  it("open for their owner alone, were another tenant's data key the same", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const wrapping = await crypto.subtle.importKey("raw", key(1), "AES-GCM", false, ["encrypt", "decrypt"]);
    const algorithm = (owner: string, iv: Uint8Array) => ({
      ...{ name: "AES-GCM", iv, additionalData: new TextEncoder().encode(`${owner.length}:${owner}:data key`) },
    });
    const bytes = Buffer.from(own.wrapped, "base64");
    const iv = bytes.subarray(0, 12);
    const raw = await crypto.subtle.decrypt(algorithm("global/proj_ada", iv), wrapping, bytes.subarray(12));
    const again = await crypto.subtle.encrypt(algorithm("global/proj_bob", iv), wrapping, raw);
    const bobs = { wrappedBy: 1, wrapped: Buffer.concat([iv, Buffer.from(again)]).toString("base64") };
    expect(await keys.open(bob, bobs, "p", await keys.seal(bob, bobs, "p", plain))).toEqual(plain);
    await expect(keys.open(bob, bobs, "p", await keys.seal(ada, own, "p", plain))).rejects.toThrow();
  });

  it("are not the deployment's own key, which seals nothing but keys", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const sealed = await keys.seal(ada, own, "p", plain);
    const wrapping = await crypto.subtle.importKey("raw", key(1), "AES-GCM", false, ["decrypt"]);
    for (const owner of ["15:global/proj_ada:p", "15:global/proj_ada:data key"]) {
      const algorithm = {
        name: "AES-GCM",
        iv: sealed.subarray(1, 13),
        additionalData: new TextEncoder().encode(owner),
      };
      await expect(crypto.subtle.decrypt(algorithm, wrapping, sealed.subarray(13))).rejects.toThrow();
    }
    await expect(
      keys.open(ada, { wrappedBy: 1, wrapped: Buffer.from(sealed.subarray(1)).toString("base64") }, "p", sealed),
    ).rejects.toThrow();
  });

  it("refuse a sealed form of another version", async () => {
    const keys = dataKeys(new Map([[1, key(1)]]));
    const own = await keys.create(ada);
    const sealed = await keys.seal(ada, own, "p", plain);
    expect(sealed[0]).toBe(1);
    sealed[0] = 2;
    await expect(keys.open(ada, own, "p", sealed)).rejects.toThrow("unknown version 2");
  });
});
