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

const names = fc.constantFrom("name", "names", "n", "a", "größe", 'quo"te', "x y");
const schemas = fc.letrec<{ schema: Schema }>((tie) => ({
  schema: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom<Schema>(
      { type: "boolean" },
      { type: "null" },
      { type: "integer" },
      { type: "number" },
      { type: ["string", "null"] },
      { type: ["integer", "number"] },
      { enum: ["red", "green", 5, null, true] },
      { enum: ["re", "red", 1, 12, 123, -1, 12, "red"] },
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
  }, 60_000);

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
  }, 60_000);

  it("may be each value of an enum, however they begin", () => {
    const values = ["re", "red", "reds", "", 1, 12, 123, -1, -12, 1.5, true, null, 'quo"te', "日本"];
    for (const value of values) expect(accepts({ enum: values }, spaced(value)), spaced(value)).toBe(true);
    for (const other of ['"r"', "1234", "2", "false", "[]"])
      expect(accepts({ enum: values }, other), other).toBe(false);
  });

  it("may have any of its optional properties, in their order, and must have the others", () => {
    const keys = ["n", "name", "names", "a", "nam"];
    fc.assert(
      fc.property(fc.subarray(keys), fc.subarray(keys), (required, present) => {
        const properties = Object.fromEntries(keys.map((key) => [key, { type: "integer" }]));
        const value = Object.fromEntries(present.map((key, at) => [key, at]));
        const isMet = required.every((key) => present.includes(key));
        expect(accepts({ type: "object", properties, required, additionalProperties: false }, spaced(value))).toBe(
          isMet,
        );
      }),
      { numRuns: 40 },
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

const numbered = <T>(count: number, of: (index: number) => T): T[] => Array.from({ length: count }, (_, at) => of(at));
const open = (properties: object, required: readonly string[] = []) => ({
  ...{ type: "object", properties, required, additionalProperties: false },
});

describe("what a schema costs everybody else", () => {
  /** Bytes that one reply had followed through the grammar, at most for one of its tokens and in all. */
  function stepsOf(schema: Schema | null, choices: readonly number[]): { most: number; all: number } {
    const constraint = start(schema, 1_500);
    let most = 0;
    for (let made = 0; made < 100; made++) {
      const before = constraint.steps;
      const allowed = allowedBy(constraint).filter((id) => id !== END);
      most = Math.max(most, constraint.steps - before);
      if (allowed.length === 0) break;
      constraint.advance(allowed[(choices[made % choices.length] ?? 0) % allowed.length] as number);
    }
    return { most, all: constraint.steps };
  }
  const one = { type: "object", properties: { a: { type: "string" } }, required: ["a"], additionalProperties: false };

  it.each<[string, Schema, number]>([
    ["an enum of 6,000", { enum: numbered(6_000, (at) => `v${at}`) }, 1_000],
    ["an enum of 10,000 numbers", { enum: numbered(10_000, (at) => at) }, 2_000],
    [
      "1,900 optional properties",
      open(Object.fromEntries(numbered(1_900, (at) => [`p${at}`, { type: "null" }]))),
      1_000,
    ],
    [
      "properties that begin alike",
      open(Object.fromEntries(numbered(500, (at) => [`a name like many others, ${at}`, { type: "integer" }]))),
      1_000,
    ],
    ["a text with a bound", { type: "string", minLength: 400, maxLength: 1_000_000_000_000 }, 1_000],
    ["a list with a bound", { type: "array", items: {}, maxItems: 1_000_000_000_000 }, 2_000],
    ["a long constant", { const: "x".repeat(1_000) }, 1_000],
    [
      "types that are all possible",
      { type: ["object", "array", "string", "number", "integer", "boolean", "null"] },
      2_000,
    ],
    [
      "as many possibilities as there may be",
      { anyOf: numbered(32, (at) => ({ type: "string", maxLength: 99 + at })) },
      40_000,
    ],
    ["no schema at all", {}, 1_000],
  ])("is bounded for %s: a token follows some thousand bytes, not its values", (_, schema, most) => {
    for (const choices of [[1, 7, 3], [1_000, 5, 77, 2], [0]])
      expect(stepsOf(schema, choices).most).toBeLessThanOrEqual(most);
  });

  it("is found out once: a state that comes again costs nothing", () => {
    const { all } = stepsOf(one, [40, 41, 42, 43]);
    expect(all).toBeLessThan(3_000); // 100 tokens, each of which looks at thousands of bytes
  });

  it.each<[string, Schema, RegExp]>([
    ["65,536 characters", { enum: numbered(10_000, (at) => `value ${at}`) }, /more than 65536 characters/],
    ["2,000 parts", open(Object.fromEntries(numbered(2_001, (at) => [`p${at}`, {}]))), /more than 2000 parts/],
    [
      "32 possibilities",
      { anyOf: numbered(33, (at) => ({ type: "string", maxLength: at })) },
      /more than 32 possibilities/,
    ],
    [
      "32 possibilities within each other",
      {
        anyOf: numbered(6, () =>
          open({ a: { anyOf: numbered(6, (at) => ({ type: "string", maxLength: at })) } }, ["a"]),
        ),
      },
      /more than 32 possibilities/,
    ],
    ["7 types", { type: numbered(8, () => "string") }, /more than 7 types/],
    ["each name once among the required", { ...open({ a: {} }), required: ["a", "a"] }, /requires a property twice/],
  ])("has a bound of %s, beyond which it is refused", (_, schema, why) => {
    expect(() => compileSchema(schema)).toThrow(SchemaError);
    expect(() => compileSchema(schema)).toThrow(why);
  });

  it("does not grow with what is referred to often", () => {
    const $defs = { colour: { enum: numbered(1_500, (at) => `colour ${at}`) } };
    const schema = {
      $defs,
      ...open(Object.fromEntries(numbered(900, (at) => [`p${at}`, { $ref: "#/$defs/colour" }]))),
    };
    let read = 0;
    const values = new Proxy($defs.colour.enum, {
      get(target, key, receiver) {
        if (typeof key === "string" && /^\d+$/.test(key)) read++;
        return Reflect.get(target, key, receiver);
      },
    });
    compileSchema({ ...schema, $defs: { colour: { enum: values } } });
    expect(read).toBeLessThanOrEqual(4 * 1_500);
  });

  it("says a place and a name at no great length", () => {
    const name = "k".repeat(5_000);
    for (const schema of [open({ [name]: { type: "none" } }), { [name]: 1 }, { ...open({ a: {} }), required: [name] }])
      expect(() => compileSchema(schema)).toThrow(/^.{1,600}$/s);
  });
});
