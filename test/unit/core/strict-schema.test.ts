import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { strictProblem } from "../../../src/core/strict-schema";

const closed = (properties: object, more: object = {}) => ({
  ...{ type: "object", properties, required: Object.keys(properties), additionalProperties: false },
  ...more,
});
const text = { type: "string" };
const whereOf = (schema: unknown) => strictProblem(schema)?.path.join(".");

/** Schemas that keep every rule. */
const { anySchema } = fc.letrec((tie) => ({
  anySchema: fc.oneof(
    { depthSize: "small", maxDepth: 4 },
    fc.constantFrom<object>(
      text,
      { type: ["integer", "null"] },
      { enum: ["a", 1] },
      { const: "x" },
      { type: "boolean" },
    ),
    fc
      .dictionary(fc.string({ minLength: 1, maxLength: 5 }), tie("anySchema"), { maxKeys: 3 })
      .map((all) => closed(all as object)),
    tie("anySchema").map((items) => ({ type: "array", items })),
    fc.array(tie("anySchema"), { minLength: 1, maxLength: 2 }).map((anyOf) => ({ anyOf })),
  ),
}));

describe("a strict schema", () => {
  it("is any that is closed and names all of its properties, however it is built", () => {
    fc.assert(
      fc.property(anySchema, (schema) => {
        expect(strictProblem(closed({ a: schema }))).toBeUndefined();
      }),
    );
  });

  it("may refer to its own parts, itself among them", () => {
    const tree = closed({ children: { type: "array", items: { $ref: "#" } }, kind: { $ref: "#/$defs/kind" } });
    expect(strictProblem({ ...tree, $defs: { kind: { enum: ["leaf"] } } })).toBeUndefined();
    expect(whereOf(tree)).toBe("properties.kind.$ref");
  });

  it("breaks wherever one object in it is open, or leaves a property out", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("object", "array", "anyOf"), { maxLength: 5 }),
        fc.boolean(),
        (levels, isOpen) => {
          const { additionalProperties: _, ...open } = closed({ a: text });
          const broken: object = isOpen ? open : closed({ a: text }, { required: [] });
          const schema = levels.reduce<object>((inner, level) => {
            if (level === "array") return { type: "array", items: inner };
            return level === "anyOf" ? { anyOf: [text, inner] } : closed({ x: inner });
          }, broken);
          expect(whereOf(closed({ root: schema }))).toMatch(isOpen ? /additionalProperties$/ : /required$/);
        },
      ),
    );
  });

  it.each([
    ["a list", [], ""],
    ["a root that is no object", text, ""],
    ["allOf", closed({ a: { allOf: [text] } }), "properties.a.allOf"],
    ["no type", closed({ a: {} }), "properties.a"],
    ["an unknown type", closed({ a: { type: "text" } }), "properties.a.type"],
    ["a required property that is not there", closed({}, { required: ["a"] }), "required"],
    ["an empty enum", closed({ a: { enum: [] } }), "properties.a.enum"],
    ["a reference to elsewhere", closed({ a: { $ref: "https://x" } }), "properties.a.$ref"],
    ["too many values", closed({ a: { enum: Array.from({ length: 1_001 }, (_, at) => at) } }), "properties.a.enum"],
  ])("is not one with %s", (_, schema, where) => {
    expect(whereOf(schema)).toBe(where);
  });

  it("has bounds of what it lists, each told where it is passed", () => {
    const names = (count: number, length = 1) => Array.from({ length: count }, (_, at) => `${at}`.padEnd(length, "x"));
    const of = (all: readonly string[]) => closed(Object.fromEntries(all.map((name) => [name, text])));
    expect(strictProblem(of(names(5_000)))).toBeUndefined();
    expect(strictProblem(of(names(5_001)))?.message).toMatch(/more than 5000 properties/);
    const required = Array<string>(5_001).fill("a");
    expect(strictProblem(closed({ a: text }, { required }))).toEqual({
      ...{ path: ["required"], message: "it lists more than 5000 names" },
    });
    expect(strictProblem(of(names(120, 1_000)))).toBeUndefined();
    expect(strictProblem(of(names(121, 1_000)))?.message).toMatch(/more than 120000 characters/);
    expect(strictProblem(closed({ a: { enum: names(120, 1_000) } }))?.message).toMatch(/more than 120000 characters/);
  });

  it("is not one that is nested too deep", () => {
    const nested = (levels: number): object => (levels === 0 ? text : closed({ a: nested(levels - 1) }));
    expect(strictProblem(nested(9))).toBeUndefined();
    expect(strictProblem(nested(12))?.message).toMatch(/deeper than 10/);
  });
});

describe("definitions of older drafts", () => {
  const node = (place: string) => ({
    type: "object",
    properties: { name: { type: "string" }, children: { type: "array", items: { $ref: `#/${place}/node` } } },
    required: ["name", "children"],
    additionalProperties: false,
  });
  const tree = (place: string, inner: object = node(place)) => ({
    type: "object",
    properties: { tree: { $ref: `#/${place}/node` } },
    required: ["tree"],
    additionalProperties: false,
    [place]: { node: inner },
  });

  it.each(["$defs", "definitions"])("stand in '%s', refer to themselves, and are looked at", (place) => {
    expect(strictProblem(tree(place))).toBeUndefined();
    const open = { ...node(place), additionalProperties: true };
    expect(strictProblem(tree(place, open))?.path).toEqual([place, "node", "additionalProperties"]);
    expect(strictProblem({ ...tree(place), [place]: {} })).toMatchObject({ message: "it refers to nothing" });
  });
});
