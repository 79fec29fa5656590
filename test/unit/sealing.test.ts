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
