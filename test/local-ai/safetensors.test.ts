import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseSafetensors } from "../../local-ai/safetensors";
import { weightsFile } from "./engine";

/** A file with this header and so many bytes of data. */
function file(header: unknown, dataBytes: number): ArrayBuffer {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes.buffer;
}
const tensor = (dtype: string, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });

describe("safetensors", () => {
  it("reads the three float types", () => {
    const bytes = new Uint8Array(
      file({ a: tensor("F32", [1], [0, 4]), b: tensor("F16", [2], [4, 8]), c: tensor("BF16", [1], [8, 10]) }, 10),
    );
    const view = new DataView(bytes.buffer, bytes.length - 10);
    view.setFloat32(0, 1.5, true);
    view.setUint16(4, 0xc000, true); // -2
    view.setUint16(6, 0x0001, true); // the smallest subnormal
    view.setUint16(8, 0x3fc0, true); // 1.5
    const tensors = parseSafetensors(bytes.buffer);
    expect([...(tensors.get("a")?.data ?? [])]).toEqual([1.5]);
    expect([...(tensors.get("b")?.data ?? [])]).toEqual([-2, 2 ** -24]);
    expect([...(tensors.get("c")?.data ?? [])]).toEqual([1.5]);
  });

  it.each([
    ["a file without a header", new ArrayBuffer(4)],
    ["a header longer than a megabyte", file(" ".repeat(1024 * 1024 + 1), 0)],
    ["a header that is not JSON", file("{", 0)],
    ["a header that is a list", file([], 0)],
    ["an unknown type", file({ a: tensor("I64", [1], [0, 8]) }, 8)],
    ["a negative dimension", file({ a: tensor("F32", [-1], [0, 4]) }, 4)],
    ["a shape beyond safe integers", file({ a: tensor("F32", [2 ** 40, 2 ** 40], [0, 4]) }, 4)],
    ["offsets that do not fit the shape", file({ a: tensor("F32", [2], [0, 4]) }, 4)],
    ["overlapping tensors", file({ a: tensor("F32", [2], [0, 8]), b: tensor("F32", [2], [4, 12]) }, 12)],
    ["a hole between tensors", file({ a: tensor("F32", [1], [0, 4]), b: tensor("F32", [1], [8, 12]) }, 12)],
    ["a tensor beyond the file", file({ a: tensor("F32", [4], [0, 16]) }, 8)],
    ["bytes behind the last tensor", file({ a: tensor("F32", [1], [0, 4]) }, 8)],
  ])("refuses %s", (_, bytes) => {
    expect(() => parseSafetensors(bytes)).toThrow(/^safetensors: /);
  });

  it("refuses or reads, but never fails otherwise, when any byte of a header changes", () => {
    const good = weightsFile();
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5_000 }), fc.integer({ min: 0, max: 255 }), (at, value) => {
        const bytes = good.slice(0);
        new Uint8Array(bytes)[at] = value;
        try {
          parseSafetensors(bytes);
        } catch (error) {
          expect(String(error)).toMatch(/safetensors: /);
        }
      }),
      { numRuns: 30 },
    );
  });
});
