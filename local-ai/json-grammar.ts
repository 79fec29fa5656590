import {
  any,
  anyOf,
  array,
  constants,
  type Frame,
  IMPOSSIBLE,
  MAX_LEVELS,
  map,
  number,
  object,
  text,
  type ValueFrame,
} from "./json-frames";

export class SchemaError extends Error {
  constructor(path: string, why: string) {
    super(`the schema at '${path.slice(0, MAX_PATH_CHARACTERS) || "/"}' ${why}`);
    this.name = "SchemaError";
  }
}

/** Of a place or a name in a message. */
const MAX_PATH_CHARACTERS = 200;
const MAX_SCHEMA_CHARACTERS = 64 * 1024;
/** Parts that a schema unfolds to: what is referred to twice counts twice. */
const MAX_NODES = 2_000;
/** Possibilities of `anyOf` that begin alike, so that they must be followed side by side with every byte. */
const MAX_WIDTH = 32;
const TYPE_NAMES = 7;
const KNOWN = new Set(
  "type properties required additionalProperties items minItems maxItems minLength maxLength enum const anyOf $ref $defs definitions title description default examples $schema $id strict".split(
    " ",
  ),
);
type Schema = Readonly<Record<string, unknown>>;

/** What `response_format: {type: "json_object"}` asks for. */
export const anyObject = (): Frame => map(any(MAX_LEVELS - 1));

/**
 * The subset of JSON Schema that can be promised: type (one or several), properties, required, additionalProperties,
 * items, minItems, maxItems, minLength, maxLength, enum, const, anyOf, $ref into $defs, recursion included.
 * @throws SchemaError for anything else, with the place where it stands, and for one that is too large to be followed
 */
export function compileSchema(root: Schema): Frame {
  if (JSON.stringify(root).length > MAX_SCHEMA_CHARACTERS)
    throw new SchemaError("", `has more than ${MAX_SCHEMA_CHARACTERS} characters`);
  const frame = new Compiler(root).compile(root, "", MAX_LEVELS);
  if (frame.least === Number.POSITIVE_INFINITY) throw new SchemaError("", "can be satisfied by no finite text");
  return frame;
}

class Compiler {
  #nodes = 0;
  /** By its list: a part that is referred to often is read once. */
  readonly #enums = new WeakMap<object, ValueFrame>();

  constructor(readonly root: Schema) {}

  compile(schema: unknown, path: string, levels: number): ValueFrame {
    if (++this.#nodes > MAX_NODES) throw new SchemaError(path, `unfolds to more than ${MAX_NODES} parts`);
    if (schema === true) return any(levels);
    if (typeof schema !== "object" || schema === null || Array.isArray(schema))
      throw new SchemaError(path, "is no object");
    const given = schema as Schema;
    for (const key in given)
      if (!KNOWN.has(key)) throw new SchemaError(path, `uses '${cut(key)}', which is not supported`);
    if (levels < 0) return IMPOSSIBLE;
    if (given.$ref !== undefined)
      return this.compile(resolve(this.root, given.$ref, path), String(given.$ref), levels - 1);
    if (given.const !== undefined) return constants([scalar(given.const, path)]);
    if (given.enum !== undefined) return this.#enum(given.enum, path);
    if (given.anyOf !== undefined) {
      const choices = listOf(given.anyOf, `${path}/anyOf`).map((one, at) =>
        this.compile(one, `${path}/anyOf/${at}`, levels),
      );
      return this.#anyOf(choices, path);
    }
    if (given.type === undefined) return given.properties ? this.#typed(given, "object", path, levels) : any(levels);
    const types = typeof given.type === "string" ? [given.type] : listOf(given.type, `${path}/type`);
    if (types.length > TYPE_NAMES) throw new SchemaError(path, `lists more than ${TYPE_NAMES} types`);
    return this.#anyOf(
      types.map((type) => this.#typed(given, type, path, levels)),
      path,
    );
  }

  #enum(values: unknown, path: string): ValueFrame {
    const list = listOf(values, `${path}/enum`);
    const known = this.#enums.get(list) ?? constants(list.map((value) => scalar(value, path)));
    this.#enums.set(list, known);
    return known;
  }

  #anyOf(choices: readonly ValueFrame[], path: string): ValueFrame {
    const [first] = choices;
    if (first && choices.length === 1) return first;
    const made = anyOf(choices);
    if (made.width > MAX_WIDTH)
      throw new SchemaError(path, `has more than ${MAX_WIDTH} possibilities that begin with the same character`);
    return made;
  }

  #typed(schema: Schema, type: unknown, path: string, levels: number): ValueFrame {
    switch (type) {
      case "string":
        return text(...bounds(schema, "minLength", "maxLength", path));
      case "integer":
        return number(true);
      case "number":
        return number(false);
      case "boolean":
        return constants(["true", "false"]);
      case "null":
        return constants(["null"]);
      case "array":
        return array(this.#item(schema, path, levels), ...bounds(schema, "minItems", "maxItems", path));
      case "object":
        return this.#object(schema, path, levels);
      default:
        throw new SchemaError(path, `has the type ${cut(JSON.stringify(type) ?? "")}, which is none`);
    }
  }

  #item({ items }: Schema, path: string, levels: number): ValueFrame {
    if (levels === 0) return IMPOSSIBLE;
    return items === undefined ? any(levels - 1) : this.compile(items, `${path}/items`, levels - 1);
  }

  #object({ properties = {}, required = [], additionalProperties }: Schema, path: string, levels: number): ValueFrame {
    const entries = Object.entries(properties as Schema);
    const names = new Set(listOf(required, `${path}/required`, 0));
    if (names.size !== (required as unknown[]).length) throw new SchemaError(path, "requires a property twice");
    for (const name of names)
      if (typeof name !== "string" || !Object.hasOwn(properties as Schema, name))
        throw new SchemaError(path, `requires '${cut(String(name))}', which is not among its properties`);
    if (entries.length > 0 || additionalProperties === false) {
      return object(
        entries.map(([key, value]) => {
          const frame = this.compile(value, `${path}/properties/${key}`, levels - 1);
          return { key, value: frame, isRequired: names.has(key) };
        }),
      );
    }
    if (levels === 0) return object([]);
    return typeof additionalProperties === "object" && additionalProperties !== null
      ? map(this.compile(additionalProperties, `${path}/additionalProperties`, levels - 1))
      : map(any(levels - 1));
  }
}

const cut = (name: string): string => name.slice(0, MAX_PATH_CHARACTERS).toWellFormed();

function scalar(value: unknown, path: string): string {
  if (typeof value === "object" && value !== null) throw new SchemaError(path, "has an object or a list as a constant");
  return JSON.stringify(value);
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
  const [, place, name] = typeof ref === "string" ? (/^#\/(\$defs|definitions)\/([^/]+)$/.exec(ref) ?? []) : [];
  const found = place && name ? (root[place] as Schema | undefined)?.[name] : undefined;
  if (found === undefined) throw new SchemaError(path, `refers to '${cut(String(ref))}', which is not there`);
  return found;
}
