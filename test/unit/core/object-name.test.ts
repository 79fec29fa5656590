import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { objectName, parseObjectName } from "../../../src/core/object-name";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
const part = fc.string({ unit: fc.constantFrom(...ALPHABET), minLength: 1, maxLength: 128 });
const address = fc.record({ region: part, tenantId: part });
const isPart = (text: string) => text.length > 0 && text.length <= 128 && [...text].every((c) => ALPHABET.includes(c));
/** Mostly parts that are nearly right. */
const anyText = fc.oneof(
  part,
  fc.string({ maxLength: 4 }),
  fc.string({ unit: fc.constantFrom("a", "/", ".", "\n", " ", "%", "ä", "a", "b"), maxLength: 6 }),
  fc.constantFrom("", "/", "..", "eu/acme", "acme\n", "\nacme", "ａ", "a".repeat(128), "a".repeat(129)),
);

describe("object names", () => {
  it("are region, slash and tenant", () => {
    expect(objectName({ region: "eu", tenantId: "proj_1-a" })).toBe("eu/proj_1-a");
  });

  it("are read back as what they were made from, so that no two tenants share an object", () => {
    fc.assert(
      fc.property(address, (each) => {
        expect(parseObjectName(objectName(each))).toEqual({ ...each });
      }),
    );
  });

  it("are made of nothing outside the alphabet, and of no part that is empty or longer than 128", () => {
    fc.assert(
      fc.property(anyText, anyText, (region, tenantId) => {
        if (isPart(region) && isPart(tenantId)) expect(objectName({ region, tenantId })).toBe(`${region}/${tenantId}`);
        else expect(() => objectName({ region, tenantId })).toThrow(TypeError);
      }),
      { numRuns: 1_000 },
    );
  });

  it("are the only ones that are read: what cannot be made cannot be parsed", () => {
    fc.assert(
      fc.property(fc.array(anyText, { maxLength: 3 }), (parts) => {
        const name = parts.join("/");
        const [region, tenantId, ...rest] = name.split("/");
        if (isPart(region ?? "") && isPart(tenantId ?? "") && rest.length === 0) {
          expect(parseObjectName(name)).toEqual({ region, tenantId });
        } else expect(() => parseObjectName(name)).toThrow(TypeError);
      }),
      { numRuns: 1_000 },
    );
  });
});
