import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ChainRow, canonicalJson, chainHash, GENESIS, receipt, verifyChain } from "../../../src/core/hash-chain";

/*
 * Bugs put in on purpose, each of which failed here: keys left unsorted, sorted by locale, the sequence number or the
 * previous hash left out of the hash, a gap in the numbers allowed, a hash that is not compared, Map taken for {}.
 */
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const record = fc.dictionary(fc.string({ unit: "grapheme", maxLength: 4 }), fc.jsonValue({ maxDepth: 2 }), {
  noNullPrototype: true,
});

function chainOf(records: readonly unknown[]): ChainRow[] {
  const rows: ChainRow[] = [];
  let previous = GENESIS;
  records.forEach((each, index) => {
    previous = chainHash(previous, index + 1, each, sha256);
    rows.push({ seq: index + 1, hash: previous, record: each });
  });
  return rows;
}

describe("hash chain", () => {
  it("hashes the previous hash, the number and the canonical record, joined by points", () => {
    expect(GENESIS).toBe("0".repeat(64));
    expect(chainHash(GENESIS, 1, { b: 1, a: [true, null, "ü"] }, sha256)).toBe(
      sha256(`${"0".repeat(64)}.1.{"a":[true,null,"ü"],"b":1}`),
    );
  });

  it("finds nothing wrong with what was appended, from the start or from any row on", () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 6 }), fc.nat({ max: 5 }), (records, from) => {
        const rows = chainOf(records);
        expect(verifyChain(rows, sha256)).toBeNull();
        const start = rows[from];
        if (start) expect(verifyChain(rows.slice(from + 1), sha256, start)).toBeNull();
      }),
    );
  });

  it("names the first row after which something was changed, left out, doubled or swapped", () => {
    const tamper = fc.constantFrom("change", "hash", "leave out", "double", "swap");
    fc.assert(
      fc.property(fc.array(record, { minLength: 3, maxLength: 6 }), fc.nat({ max: 1 }), tamper, (records, at, how) => {
        const rows = chainOf(records);
        const [row, next] = [rows[at] as ChainRow, rows[at + 1] as ChainRow];
        if (how === "change") rows[at] = { ...row, record: { ...(row.record as object), "changed!": 1 } };
        if (how === "hash") rows[at] = { ...row, hash: next.hash };
        if (how === "leave out") rows.splice(at, 1);
        if (how === "double") rows.splice(at, 0, row);
        if (how === "swap") [rows[at], rows[at + 1]] = [next, row];
        const firstBad = { change: at + 1, hash: at + 1, "leave out": at + 2, double: at + 1, swap: at + 2 }[how];
        expect(verifyChain(rows, sha256)).toBe(firstBad);
      }),
    );
  });

  it.each([
    ["a first row that is not number 1", [2]],
    ["a number left out", [1, 3]],
    ["a number given twice", [1, 1]],
    ["numbers that go back", [1, 2, 1]],
  ])("names %s, even where every hash follows", (_, numbers) => {
    let previous = GENESIS;
    const rows = numbers.map((seq) => {
      previous = chainHash(previous, seq, {}, sha256);
      return { seq, hash: previous, record: {} };
    });
    expect(verifyChain(rows, sha256)).toBe(numbers.at(-1));
  });

  it("gives one record one text: in any order of keys, before and after it was stored as JSON", () => {
    fc.assert(
      fc.property(record, (each) => {
        const text = canonicalJson(each);
        expect(canonicalJson(JSON.parse(JSON.stringify(each)))).toBe(text);
        expect(canonicalJson(Object.fromEntries(Object.entries(each).reverse()))).toBe(text);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(each)));
        expect(canonicalJson(JSON.parse(text))).toBe(text);
      }),
    );
  });

  it("sorts keys by UTF-16 code units, whatever the locale", () => {
    expect(canonicalJson({ "\u{1F600}": 1, "\ufb33": 2, ö: 3, z: 4, Z: 5, a: undefined })).toBe(
      '{"Z":5,"z":4,"ö":3,"\u{1F600}":1,"\ufb33":2}',
    );
  });

  it.each([
    ["a number that is not finite", { a: Number.NaN }],
    ["an infinite number", Number.NEGATIVE_INFINITY],
    ["undefined in a list", [undefined]],
    ["a hole in a list", new Array(1)],
    ["a function", { a: () => 1 }],
    ["a big integer", 1n],
    ["an object whose content is not its fields", { a: new Map([[1, 2]]) }],
    ["a date", new Date(0)],
  ])("has no text for %s", (_, value) => {
    expect(() => canonicalJson(value)).toThrow(TypeError);
  });

  it("gives a receipt of number and first sixteen hex digits", () => {
    expect(receipt(42, "0123456789abcdef".repeat(4))).toBe("42.0123456789abcdef");
  });
});
