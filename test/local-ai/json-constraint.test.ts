import { Ajv2020 } from "ajv/dist/2020";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonConstraint, tokenTrie } from "../../local-ai/json-constraint";
import { anyObject, compileSchema, SchemaError } from "../../local-ai/json-grammar";
import { loadTokenizer } from "./engine";

const tokenizer = loadTokenizer();
const trie = tokenTrie(tokenizer);
const END = tokenizer.special("<|end|>");
const VOCABULARY = 2_048;
const ajv = () => new Ajv2020({ strict: false });

type Schema = Readonly<Record<string, unknown>>;
const grammarOf = (schema: Schema | null) => (schema === null ? anyObject() : compileSchema(schema));
const start = (schema: Schema | null, maxTokens: number) =>
  new JsonConstraint(grammarOf(schema), tokenizer, trie, maxTokens);

function allowedBy(constraint: JsonConstraint): number[] {
  const logits = new Float32Array(VOCABULARY);
  constraint.mask(logits);
  return [...logits.keys()].filter((id) => logits[id] === 0);
}

/** A reply by somebody who chooses at random among what is allowed. */
function write(schema: Schema | null, maxTokens: number, choices: readonly number[]): string {
  const constraint = start(schema, maxTokens);
  const bytes: number[] = [];
  for (let made = 0; made < maxTokens; made++) {
    const allowed = allowedBy(constraint);
    expect(allowed.length, "there is always something to say").toBeGreaterThan(0);
    const token = allowed[(choices[made % choices.length] ?? 0) % allowed.length] as number;
    if (token === END) break;
    bytes.push(...tokenizer.bytes(token));
    constraint.advance(token);
  }
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

function accepts(schema: Schema | null, text: string): boolean {
  const ids = tokenizer.encode(text);
  const constraint = start(schema, ids.length + 200);
  for (const id of ids) {
    if (!allowedBy(constraint).includes(id)) return false;
    constraint.advance(id);
  }
  return allowedBy(constraint).includes(END);
}

/** Written as the model was trained to: one space after each comma and colon. */
function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, of]) => `${JSON.stringify(key)}: ${spaced(of)}`)
    .join(", ")}}`;
}

const names = fc.constantFrom("name", "a", "größe", 'quo"te', "x y");
const schemas = fc.letrec<{ schema: Schema }>((tie) => ({
  schema: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom<Schema>(
      { type: "boolean" },
      { type: "null" },
      { type: "integer" },
      { type: "number" },
      { type: ["string", "null"] },
      { enum: ["red", "green", 5, null, true] },
      { const: "fixed" },
    ),
    fc
      .tuple(fc.nat(3), fc.nat(4))
      .map(([minLength, more]) => ({ type: "string", minLength, maxLength: minLength + more })),
    fc
      .tuple(tie("schema"), fc.nat(2), fc.nat(2))
      .map(([items, minItems, more]) => ({ type: "array", items, minItems, maxItems: minItems + more })),
    fc
      .tuple(
        fc.uniqueArray(fc.tuple(names, tie("schema"), fc.boolean()), { maxLength: 3, selector: ([key]) => key }),
        fc.boolean(),
      )
      .map(([properties, isStrict]) => ({
        type: "object",
        properties: Object.fromEntries(properties.map(([key, value]) => [key, value])),
        required: properties.filter(([, , isRequired]) => isRequired || isStrict).map(([key]) => key),
        additionalProperties: false,
      })),
    fc.array(tie("schema"), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
  ),
})).schema;
const choices = fc.array(fc.nat(VOCABULARY), { minLength: 1, maxLength: 60 });
const TREE: Schema = {
  $defs: {
    tree: {
      type: "object",
      properties: { value: { type: "integer" }, children: { type: "array", items: { $ref: "#/$defs/tree" } } },
      required: ["value", "children"],
      additionalProperties: false,
    },
  },
  $ref: "#/$defs/tree",
};

describe("a constrained reply", () => {
  it("is JSON that satisfies its schema, whatever is chosen, and is complete within its tokens", () => {
    fc.assert(
      fc.property(schemas, choices, fc.nat(40), (schema, chosen, spare) => {
        const text = write(schema, Math.ceil(grammarOf(schema).least) + spare, chosen);
        expect(ajv().validate(schema, JSON.parse(text)), `${text} for ${JSON.stringify(schema)}`).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  it("may be any value that satisfies the schema, written as the model was trained to", () => {
    const values: readonly (readonly [Schema | null, unknown])[] = [
      [
        { type: "object", properties: { intent: { enum: ["a", "b"] }, n: { type: "number" } }, required: ["intent"] },
        { intent: "b", n: -1.5e-3 },
      ],
      [{ type: "object", properties: { a: { type: "string" }, b: { type: "string" } } }, { b: "x" }],
      [{ type: "array", items: { type: "string" } }, ["naïve", "日本語", "😀", 'a "quote" \\ \n']],
      [
        { type: "object", additionalProperties: { type: "integer" } },
        { x: 1, y: 20 },
      ],
      [TREE, { value: 1, children: [{ value: 2, children: [] }] }],
      [{}, { any: ["thing", 1, null, { deep: true }] }],
      [null, { intent: "cancel_order", entities: { "Order Number": "12345" } }],
      [null, {}],
    ];
    for (const [schema, value] of values) expect(accepts(schema, spaced(value)), spaced(value)).toBe(true);
    expect(accepts({ type: "integer" }, "1.5")).toBe(false);
    expect(accepts({ type: "integer" }, "01")).toBe(false);
    expect(accepts(null, "[]")).toBe(false);
    expect(accepts({ type: "string", maxLength: 2 }, '"abc"')).toBe(false);
  });

  it("of any object, or of one that contains itself, is complete however few tokens there are", () => {
    fc.assert(
      fc.property(choices, fc.integer({ min: 40, max: 90 }), (chosen, maxTokens) => {
        expect(typeof JSON.parse(write(null, maxTokens, chosen))).toBe("object");
        expect(ajv().validate(TREE, JSON.parse(write(TREE, maxTokens, chosen)))).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it("is refused at its start when its tokens may not be enough", () => {
    expect(() => start({ const: "a long constant" }, 5)).toThrow(RangeError);
  });
});

describe("a schema", () => {
  it.each<[Schema, RegExp]>([
    [{ type: "string", pattern: "^a" }, /'\/' uses 'pattern'/],
    [{ type: "object", properties: { a: { type: "string", format: "date" } } }, /'\/properties\/a' uses 'format'/],
    [{ type: "integer", minimum: 3 }, /uses 'minimum'/],
    [{ type: "text" }, /has the type "text"/],
    [{ $ref: "#/$defs/none" }, /refers to/],
    [{ $ref: "#" }, /no finite text/],
    [{ type: "object", required: ["a"] }, /requires 'a'/],
    [{ type: "array", minItems: 3, maxItems: 2 }, /bounds/],
    [{ enum: [] }, /is no list/],
    [{ const: { a: 1 } }, /as a constant/],
    [{ type: "object", properties: { a: 5 } }, /'\/properties\/a' is no object/],
  ])("%j is refused, with the place and the reason", (schema, why) => {
    expect(() => compileSchema(schema)).toThrow(SchemaError);
    expect(() => compileSchema(schema)).toThrow(why);
  });

  it("that unfolds without end is refused", () => {
    const wide = { type: "object", properties: Object.fromEntries([..."abcdefgh"].map((key) => [key, { $ref: "#" }])) };
    expect(() => compileSchema(wide)).toThrow(/unfolds to more than/);
  });
});
