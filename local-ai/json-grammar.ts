/**
 * JSON that satisfies a schema, as an automaton over bytes. Objects have the declared properties in the schema's
 * order, with one space after each comma and colon and no other outside of strings, as the model was trained.
 */

/** What is expected next; it takes bytes until it is done. */
export interface Frame {
  /** Bytes that it takes at least. */
  readonly least: number;
  /** Equal names expect equal things. */
  readonly name: string;
  /** It may be done without another byte. */
  readonly mayEnd?: boolean;
  /** @returns what is then expected, each possibility as frames one after another */
  next(byte: number): readonly (readonly Frame[])[];
}

export class SchemaError extends Error {
  constructor(path: string, why: string) {
    super(`the schema at '${path || "/"}' ${why}`);
    this.name = "SchemaError";
  }
}

const DONE: readonly (readonly Frame[])[] = [[]];
const NOTHING: readonly (readonly Frame[])[] = [];
const encoder = new TextEncoder();
const codeOf = (character: string) => character.charCodeAt(0);
const [QUOTE, BACKSLASH, MINUS, POINT] = [codeOf('"'), codeOf("\\"), codeOf("-"), codeOf(".")] as const;
const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;

function literal(text: string): Frame {
  const bytes = encoder.encode(text);
  const from = (at: number): Frame => ({
    least: bytes.length - at,
    name: `'${text}${at}'`,
    next: (byte) => (byte !== bytes[at] ? NOTHING : at + 1 === bytes.length ? DONE : [[from(at + 1)]]),
  });
  return from(0);
}

function anyOf(name: string, frames: readonly Frame[]): Frame {
  return {
    least: Math.min(...frames.map(({ least }) => least)),
    name,
    next: (byte) => frames.flatMap((frame) => frame.next(byte)),
  };
}

function sequence(frames: readonly Frame[]): Frame {
  const [first, ...rest] = frames as [Frame, ...Frame[]];
  return {
    least: frames.reduce((sum, { least }) => sum + least, 0),
    name: frames.map(({ name }) => name).join(" "),
    next: (byte) => first.next(byte).map((then) => [...then, ...rest]),
  };
}

const bytes = (name: string, ranges: readonly (readonly [number, number])[]): Frame => ({
  least: 1,
  name,
  next: (byte) => (ranges.some(([from, to]) => byte >= from && byte <= to) ? DONE : NOTHING),
});
const TAIL = bytes("tail", [[0x80, 0xbf]]);
/** UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
const FOLLOWS: readonly (readonly [from: number, to: number, then: readonly Frame[]])[] = [
  [0xc2, 0xdf, [TAIL]],
  [0xe0, 0xe0, [bytes("e0", [[0xa0, 0xbf]]), TAIL]],
  [0xe1, 0xec, [TAIL, TAIL]],
  [0xed, 0xed, [bytes("ed", [[0x80, 0x9f]]), TAIL]],
  [0xee, 0xef, [TAIL, TAIL]],
  [0xf0, 0xf0, [bytes("f0", [[0x90, 0xbf]]), TAIL, TAIL]],
  [0xf1, 0xf3, [TAIL, TAIL, TAIL]],
  [0xf4, 0xf4, [bytes("f4", [[0x80, 0x8f]]), TAIL, TAIL]],
];
const HEX: readonly (readonly [number, number])[] = [
  [0x30, 0x39],
  [0x61, 0x66],
];
/** Control characters alone are written by their number. */
const CONTROL = [
  bytes("0", [[0x30, 0x30]]),
  bytes("0", [[0x30, 0x30]]),
  bytes("0-1", [[0x30, 0x31]]),
  bytes("hex", HEX),
];
const ESCAPE: Frame = {
  least: 1,
  name: "escape",
  next: (byte) => (byte === codeOf("u") ? [CONTROL] : '"\\/bfnrt'.includes(String.fromCharCode(byte)) ? DONE : NOTHING),
};

/** The rest of a string; lengths are code points. */
function text(least: number, most: number): Frame {
  const body = (count: number): Frame => {
    const more = () => body(most === Number.POSITIVE_INFINITY ? Math.min(count + 1, least) : count + 1);
    return {
      least: Math.max(0, least - count) + 1,
      name: `text${least}-${most}:${count}`,
      next: (byte) => {
        if (byte === QUOTE) return count >= least ? DONE : NOTHING;
        if (count >= most || byte < 0x20) return NOTHING;
        if (byte === BACKSLASH) return [[ESCAPE, more()]];
        if (byte < 0x80) return [[more()]];
        const follows = FOLLOWS.find(([from, to]) => byte >= from && byte <= to);
        return follows ? [[...follows[2], more()]] : NOTHING;
      },
    };
  };
  return sequence([literal('"'), body(0)]);
}

/** Digits that a double keeps, so that what is written is what is read. */
const MOST_DIGITS = 15;

function number(isWhole: boolean): Frame {
  const tail = (byte: number): readonly (readonly Frame[])[] => {
    if (isWhole) return NOTHING;
    if (byte === POINT) return [[digits("fraction", 1, MOST_DIGITS, exponent)]];
    return exponent(byte);
  };
  const exponent = (byte: number): readonly (readonly Frame[])[] =>
    byte === codeOf("e")
      ? [[anyOf("exponent", [digits("exponent", 1, 2), sequence([literal("-"), digits("exponent", 1, 2)])])]]
      : NOTHING;
  const whole: Frame = {
    least: 1,
    name: `whole${isWhole}`,
    next: (byte) => {
      if (byte === 0x30) return [[digits("zero", 0, 0, tail)]];
      return isDigit(byte) ? [[digits("whole", 0, MOST_DIGITS - 1, tail)]] : NOTHING;
    },
  };
  return {
    least: 1,
    name: `number${isWhole}`,
    next: (byte) => (byte === MINUS ? [[whole]] : whole.next(byte)),
  };
}

function digits(
  name: string,
  least: number,
  most: number,
  then: (byte: number) => readonly (readonly Frame[])[] = () => NOTHING,
): Frame {
  return {
    least,
    name: `${name}${least}-${most}`,
    mayEnd: least === 0,
    next: (byte) => {
      if (isDigit(byte)) return most > 0 ? [[digits(name, Math.max(0, least - 1), most - 1, then)]] : NOTHING;
      return least === 0 ? then(byte) : NOTHING;
    },
  };
}

interface Property {
  readonly key: string;
  readonly value: Frame;
  readonly isRequired: boolean;
}

function object(properties: readonly Property[]): Frame {
  const sizes = properties.map(({ key, value }) => encoder.encode(JSON.stringify(key)).length + 2 + value.least);
  const rest = (from: number, isFirst: boolean): Frame => {
    let least = 1;
    let comma = isFirst ? 0 : 2;
    for (let index = from; index < properties.length; index++) {
      if (!properties[index]?.isRequired) continue;
      least += comma + (sizes[index] as number);
      comma = 2;
    }
    const choices = (): Frame[] => {
      const found: Frame[] = [];
      for (let index = from; index < properties.length; index++) {
        const { key, value, isRequired } = properties[index] as Property;
        const head = literal(`${isFirst ? "" : ", "}${JSON.stringify(key)}: `);
        if (value.least < Number.POSITIVE_INFINITY) found.push(sequence([head, value, rest(index + 1, false)]));
        if (isRequired) return found;
      }
      return [...found, literal("}")];
    };
    return {
      least,
      name: `{${properties.map(({ key, value }) => `${key}:${value.name}`)}}${from}${isFirst}`,
      next: (byte) => choices().flatMap((choice) => choice.next(byte)),
    };
  };
  return sequence([literal("{"), rest(0, true)]);
}

/** Any keys; a key that comes twice is JSON too, and its last value counts. */
function map(value: () => Frame, name: string): Frame {
  const rest = (isFirst: boolean): Frame => ({
    least: 1,
    name: `map${name}${isFirst}`,
    next: (byte) =>
      [
        literal("}"),
        sequence([
          ...(isFirst ? [] : [literal(", ")]),
          text(0, Number.POSITIVE_INFINITY),
          literal(": "),
          value(),
          rest(false),
        ]),
      ].flatMap((choice) => choice.next(byte)),
  });
  return sequence([literal("{"), rest(true)]);
}

function array(item: Frame, least: number, most: number): Frame {
  const rest = (count: number): Frame => {
    const missing = Math.max(0, least - count);
    const commas = 2 * (count === 0 ? Math.max(0, missing - 1) : missing);
    return {
      least: 1 + (missing > 0 ? missing * item.least + commas : 0),
      name: `[${item.name}]${least}-${most}:${count}`,
      next: (byte) => {
        const choices = count >= least ? [literal("]")] : [];
        const more = rest(most === Number.POSITIVE_INFINITY ? Math.min(count + 1, Math.max(least, 1)) : count + 1);
        if (count < most && item.least < Number.POSITIVE_INFINITY)
          choices.push(sequence([...(count === 0 ? [] : [literal(", ")]), item, more]));
        return choices.flatMap((choice) => choice.next(byte));
      },
    };
  };
  return sequence([literal("["), rest(0)]);
}

const IMPOSSIBLE: Frame = { least: Number.POSITIVE_INFINITY, name: "impossible", next: () => NOTHING };

/** Values of any type; objects and arrays so many levels deep. */
function any(levels: number): Frame {
  const scalars = [text(0, Number.POSITIVE_INFINITY), number(false), ...["true", "false", "null"].map(literal)];
  if (levels === 0) return anyOf("scalar", scalars);
  const inner = () => any(levels - 1);
  return {
    least: 1,
    name: `any${levels}`,
    next: (byte) =>
      anyOf("", [
        ...scalars,
        map(inner, `any${levels}`),
        array(lazy(inner, `any${levels - 1}`, 1), 0, Number.POSITIVE_INFINITY),
      ]).next(byte),
  };
}

const lazy = (make: () => Frame, name: string, least: number): Frame => ({
  least,
  name,
  next: (byte) => make().next(byte),
});

const MAX_LEVELS = 8;
const MAX_SCHEMA_CHARACTERS = 64 * 1024;
const MAX_NODES = 2_000;
const KNOWN = new Set(
  "type properties required additionalProperties items minItems maxItems minLength maxLength enum const anyOf $ref $defs definitions title description default examples $schema $id strict".split(
    " ",
  ),
);
type Schema = Readonly<Record<string, unknown>>;

/** What `response_format: {type: "json_object"}` asks for. */
export const anyObject = (): Frame => map(() => any(MAX_LEVELS - 1), "object");

/**
 * The subset of JSON Schema that can be promised: type (one or several), properties, required, additionalProperties,
 * items, minItems, maxItems, minLength, maxLength, enum, const, anyOf, $ref into $defs, recursion included.
 * @throws SchemaError for anything else, with the place where it stands
 */
export function compileSchema(root: Schema): Frame {
  if (JSON.stringify(root).length > MAX_SCHEMA_CHARACTERS)
    throw new SchemaError("", `has more than ${MAX_SCHEMA_CHARACTERS} characters`);
  let nodes = 0;
  const compile = (schema: unknown, path: string, levels: number): Frame => {
    if (++nodes > MAX_NODES) throw new SchemaError(path, `unfolds to more than ${MAX_NODES} parts`);
    if (schema === true) return any(levels);
    if (typeof schema !== "object" || schema === null || Array.isArray(schema))
      throw new SchemaError(path, "is no object");
    const given = schema as Schema;
    const unknown = Object.keys(given).find((key) => !KNOWN.has(key));
    if (unknown !== undefined) throw new SchemaError(path, `uses '${unknown}', which is not supported`);
    if (levels < 0) return IMPOSSIBLE;
    if (given.$ref !== undefined) return compile(resolve(root, given.$ref, path), String(given.$ref), levels - 1);
    if (given.const !== undefined) return constant(given.const, path);
    if (given.enum !== undefined) {
      const values = listOf(given.enum, `${path}/enum`);
      return anyOf(
        JSON.stringify(values),
        values.map((value) => constant(value, path)),
      );
    }
    if (given.anyOf !== undefined) {
      const choices = listOf(given.anyOf, `${path}/anyOf`).map((one, at) =>
        compile(one, `${path}/anyOf/${at}`, levels),
      );
      return anyOf(choices.map(({ name }) => name).join("|"), choices);
    }
    const types =
      given.type === undefined
        ? undefined
        : typeof given.type === "string"
          ? [given.type]
          : listOf(given.type, `${path}/type`);
    if (types === undefined) return given.properties ? typed(given, "object", path, levels) : any(levels);
    const frames = types.map((type) => typed(given, type, path, levels));
    return frames.length === 1 ? (frames[0] as Frame) : anyOf(frames.map(({ name }) => name).join("|"), frames);
  };
  const typed = (schema: Schema, type: unknown, path: string, levels: number): Frame => {
    switch (type) {
      case "string":
        return text(...bounds(schema, "minLength", "maxLength", path));
      case "integer":
        return number(true);
      case "number":
        return number(false);
      case "boolean":
        return anyOf("boolean", [literal("true"), literal("false")]);
      case "null":
        return literal("null");
      case "array": {
        const item =
          levels === 0
            ? IMPOSSIBLE
            : schema.items === undefined
              ? any(levels - 1)
              : compile(schema.items, `${path}/items`, levels - 1);
        return array(item, ...bounds(schema, "minItems", "maxItems", path));
      }
      case "object":
        return objectOf(schema, path, levels);
      default:
        throw new SchemaError(path, `has the type ${JSON.stringify(type)}, which is none`);
    }
  };
  const objectOf = (schema: Schema, path: string, levels: number): Frame => {
    const { properties = {}, required = [], additionalProperties } = schema;
    const entries = Object.entries(properties as Schema);
    const names = listOf(required, `${path}/required`, 0);
    const missing = names.find((name) => !entries.some(([key]) => key === name));
    if (missing !== undefined) throw new SchemaError(path, `requires '${missing}', which is not among its properties`);
    if (entries.length === 0 && additionalProperties !== false) {
      if (levels === 0) return literal("{}");
      const of =
        typeof additionalProperties === "object" && additionalProperties !== null
          ? compile(additionalProperties, `${path}/additionalProperties`, levels - 1)
          : any(levels - 1);
      return map(() => of, of.name);
    }
    return object(
      entries.map(([key, value]) => {
        const frame = compile(value, `${path}/properties/${key}`, levels - 1);
        return { key, value: frame, isRequired: names.includes(key) };
      }),
    );
  };
  const frame = compile(root, "", MAX_LEVELS);
  if (frame.least === Number.POSITIVE_INFINITY) throw new SchemaError("", "can be satisfied by no finite text");
  return frame;
}

function constant(value: unknown, path: string): Frame {
  if (typeof value === "object" && value !== null) throw new SchemaError(path, "has an object or a list as a constant");
  return literal(JSON.stringify(value));
}

function listOf(value: unknown, path: string, least = 1): readonly unknown[] {
  if (!Array.isArray(value) || value.length < least) throw new SchemaError(path, "is no list");
  return value;
}

function bounds(schema: Schema, low: string, high: string, path: string): [number, number] {
  const { [low]: least = 0, [high]: most = Number.POSITIVE_INFINITY } = schema;
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!isCount(least) || (most !== Number.POSITIVE_INFINITY && !isCount(most)) || least > (most as number))
    throw new SchemaError(path, `has bounds ${low} and ${high} that nothing can satisfy`);
  return [least, most as number];
}

function resolve(root: Schema, ref: unknown, path: string): unknown {
  if (ref === "#") return root;
  const [, place, name] = /^#\/(\$defs|definitions)\/([^/]+)$/.exec(String(ref)) ?? [];
  const found = place && name ? (root[place] as Schema | undefined)?.[name] : undefined;
  if (found === undefined) throw new SchemaError(path, `refers to ${String(ref)}, which is not there`);
  return found;
}
