/**
 * Whether a JSON schema is one that `strict: true` may promise (OpenAI, "Structured Outputs: supported schemas"):
 * objects that are closed and name all their properties, no more than a few levels deep, and only keywords that
 * constrained decoding can keep.
 */
export interface SchemaProblem {
  /** Where in the schema, as a path of keys. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

const MAX_DEPTH = 10;
const MAX_PROPERTIES = 5_000;
const MAX_ENUM_VALUES = 1_000;
/** Names of properties and definitions, and the texts among values, together. */
const MAX_CHARACTERS = 120_000;
/** Of a name in a message. */
const MAX_TOLD_CHARACTERS = 100;
const TYPES = new Set(["object", "array", "string", "number", "integer", "boolean", "null"]);
const UNKEPT = [
  "allOf",
  "not",
  "if",
  "then",
  "else",
  "oneOf",
  "dependentRequired",
  "dependentSchemas",
  "patternProperties",
];

/** Where definitions stand: as drafts from 2019-09 on call them, and as those before did, which helpers still write. */
const DEFINITIONS = ["$defs", "definitions"] as const;

/** What has been seen of the whole schema so far. */
interface Counts {
  properties: number;
  enumValues: number;
  characters: number;
}
type Schema = Readonly<Record<string, unknown>>;
const isSchema = (value: unknown): value is Schema =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const entriesOf = (value: unknown) => (isSchema(value) ? Object.entries(value) : []);
const namesOf = (value: unknown): readonly string[] => (isSchema(value) ? Object.keys(value) : []);

type Path = SchemaProblem["path"];

/** @returns the first problem, or undefined where it can be kept */
export function strictProblem(root: unknown): SchemaProblem | undefined {
  if (!isSchema(root) || root.type !== "object") return { path: [], message: "the root must be of type 'object'" };
  const counts = { properties: 0, enumValues: 0, characters: 0 };
  return problemIn(root, [], 1, counts, root);
}

function problemIn(
  schema: unknown,
  path: Path,
  depth: number,
  counts: Counts,
  root: Schema,
): SchemaProblem | undefined {
  if (!isSchema(schema)) return { path, message: "a schema must be an object" };
  if (depth > MAX_DEPTH) return { path, message: `it is nested deeper than ${MAX_DEPTH} levels` };
  const unkept = UNKEPT.find((keyword) => keyword in schema);
  if (unkept !== undefined) return { path: [...path, unkept], message: `'${unkept}' is not supported` };
  if ("$ref" in schema) return refProblem(schema.$ref, path, root);
  const own =
    typeProblem(schema, path) ??
    enumProblem(schema, path, counts) ??
    objectProblem(schema, path, counts) ??
    sizeProblem(schema, path, counts);
  if (own) return own;
  const within: Part[] = [
    ...entriesOf(schema.properties).map(([name, inner]) => part([...path, "properties", name], inner, depth + 1)),
    ...("items" in schema ? [part([...path, "items"], schema.items, depth + 1)] : []),
    ...(Array.isArray(schema.anyOf) ? schema.anyOf : []).map((inner, at) => part([...path, "anyOf", at], inner, depth)),
    ...DEFINITIONS.flatMap((place) =>
      entriesOf(schema[place]).map(([name, inner]) => part([...path, place, name], inner, depth)),
    ),
  ];
  for (const [at, inner, level] of within) {
    const problem = problemIn(inner, at, level, counts, root);
    if (problem) return problem;
  }
  return undefined;
}

type Part = readonly [path: Path, schema: unknown, depth: number];
const part = (path: Path, schema: unknown, depth: number): Part => [path, schema, depth];

/** Counted where it stands, however often it is referred to. */
function sizeProblem(schema: Schema, path: Path, counts: Counts) {
  const { properties, enum: values, const: constant } = schema;
  for (const text of [
    ...namesOf(properties),
    ...DEFINITIONS.flatMap((place) => namesOf(schema[place])),
    ...((values as unknown[] | undefined) ?? []),
    constant,
  ])
    if (typeof text === "string") counts.characters += text.length;
  return counts.characters > MAX_CHARACTERS
    ? { path, message: `its names and values have more than ${MAX_CHARACTERS} characters in all` }
    : undefined;
}

function refProblem(ref: unknown, path: Path, root: Schema): SchemaProblem | undefined {
  const at = [...path, "$ref"];
  if (ref === "#") return undefined;
  const [, place = "", name] = typeof ref === "string" ? (/^#\/(\$defs|definitions)\/([^/]+)$/.exec(ref) ?? []) : [];
  if (name === undefined)
    return { path: at, message: "only '#', '#/$defs/…' and '#/definitions/…' can be referred to" };
  const definitions = root[place];
  return isSchema(definitions) && Object.hasOwn(definitions, name)
    ? undefined
    : { path: at, message: "it refers to nothing" };
}

function typeProblem({ type, anyOf, enum: values, const: constant }: Schema, path: Path) {
  if (type === undefined)
    return anyOf !== undefined || values !== undefined || constant !== undefined
      ? undefined
      : { path, message: "'type' is missing" };
  const types = Array.isArray(type) ? type : [type];
  return types.length > 0 && types.every((each) => typeof each === "string" && TYPES.has(each))
    ? undefined
    : { path: [...path, "type"], message: "it names no type of JSON" };
}

function enumProblem(schema: Schema, path: Path, counts: Counts) {
  if (schema.enum === undefined) return undefined;
  if (!Array.isArray(schema.enum) || schema.enum.length === 0)
    return { path: [...path, "enum"], message: "it must list values" };
  counts.enumValues += schema.enum.length;
  return counts.enumValues > MAX_ENUM_VALUES
    ? { path: [...path, "enum"], message: `there are more than ${MAX_ENUM_VALUES} values in all` }
    : undefined;
}

function objectProblem(schema: Schema, path: Path, counts: Counts) {
  const types = Array.isArray(schema.type) ? schema.type : [schema.type];
  if (!types.includes("object")) return undefined;
  if (schema.additionalProperties !== false)
    return { path: [...path, "additionalProperties"], message: "it is required, and must be false" };
  const names = namesOf(schema.properties);
  counts.properties += names.length;
  if (counts.properties > MAX_PROPERTIES)
    return { path, message: `there are more than ${MAX_PROPERTIES} properties in all` };
  const required = Array.isArray(schema.required) ? (schema.required as unknown[]) : [];
  if (required.length > MAX_PROPERTIES)
    return { path: [...path, "required"], message: `it lists more than ${MAX_PROPERTIES} names` };
  const requiredNames = new Set(required);
  const missing = names.find((name) => !requiredNames.has(name));
  if (missing !== undefined) return { path: [...path, "required"], message: `'${told(missing)}' must be in it` };
  const known = new Set<unknown>(names);
  const unknown = required.find((name) => !known.has(name));
  return unknown === undefined
    ? undefined
    : { path: [...path, "required"], message: `'${told(unknown)}' is no property` };
}

const told = (name: unknown): string =>
  typeof name === "string" ? name.slice(0, MAX_TOLD_CHARACTERS).toWellFormed() : typeof name;
