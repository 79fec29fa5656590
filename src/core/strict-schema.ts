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

type Schema = Readonly<Record<string, unknown>>;
const isSchema = (value: unknown): value is Schema =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const entriesOf = (value: unknown) => (isSchema(value) ? Object.entries(value) : []);

/** @returns the first problem, or undefined where it can be kept */
export function strictProblem(root: unknown): SchemaProblem | undefined {
  if (!isSchema(root) || root.type !== "object") return { path: [], message: "the root must be of type 'object'" };
  const counts = { properties: 0, enumValues: 0 };
  return problemIn(root, [], 1, counts, root);
}

function problemIn(
  schema: unknown,
  path: SchemaProblem["path"],
  depth: number,
  counts: { properties: number; enumValues: number },
  root: Schema,
): SchemaProblem | undefined {
  if (!isSchema(schema)) return { path, message: "a schema must be an object" };
  if (depth > MAX_DEPTH) return { path, message: `it is nested deeper than ${MAX_DEPTH} levels` };
  const unkept = UNKEPT.find((keyword) => keyword in schema);
  if (unkept !== undefined) return { path: [...path, unkept], message: `'${unkept}' is not supported` };
  if ("$ref" in schema) return refProblem(schema.$ref, path, root);
  const own = typeProblem(schema, path) ?? enumProblem(schema, path, counts) ?? objectProblem(schema, path, counts);
  if (own) return own;
  const within: Part[] = [
    ...entriesOf(schema.properties).map(([name, inner]) => part([...path, "properties", name], inner, depth + 1)),
    ...("items" in schema ? [part([...path, "items"], schema.items, depth + 1)] : []),
    ...(Array.isArray(schema.anyOf) ? schema.anyOf : []).map((inner, at) => part([...path, "anyOf", at], inner, depth)),
    ...entriesOf(schema.$defs).map(([name, inner]) => part([...path, "$defs", name], inner, depth)),
  ];
  for (const [at, inner, level] of within) {
    const problem = problemIn(inner, at, level, counts, root);
    if (problem) return problem;
  }
  return undefined;
}

type Part = readonly [path: SchemaProblem["path"], schema: unknown, depth: number];
const part = (path: SchemaProblem["path"], schema: unknown, depth: number): Part => [path, schema, depth];

function refProblem(ref: unknown, path: SchemaProblem["path"], root: Schema): SchemaProblem | undefined {
  const at = [...path, "$ref"];
  if (ref === "#") return undefined;
  const [, name] = /^#\/\$defs\/([^/]+)$/.exec(String(ref)) ?? [];
  if (name === undefined) return { path: at, message: "only '#' and '#/$defs/…' can be referred to" };
  return isSchema(root.$defs) && Object.hasOwn(root.$defs, name)
    ? undefined
    : { path: at, message: "it refers to nothing" };
}

function typeProblem({ type, anyOf, enum: values, const: constant }: Schema, path: SchemaProblem["path"]) {
  if (type === undefined)
    return anyOf !== undefined || values !== undefined || constant !== undefined
      ? undefined
      : { path, message: "'type' is missing" };
  const types = Array.isArray(type) ? type : [type];
  return types.length > 0 && types.every((each) => TYPES.has(String(each)))
    ? undefined
    : { path: [...path, "type"], message: "it names no type of JSON" };
}

function enumProblem(schema: Schema, path: SchemaProblem["path"], counts: { enumValues: number }) {
  if (schema.enum === undefined) return undefined;
  if (!Array.isArray(schema.enum) || schema.enum.length === 0)
    return { path: [...path, "enum"], message: "it must list values" };
  counts.enumValues += schema.enum.length;
  return counts.enumValues > MAX_ENUM_VALUES
    ? { path: [...path, "enum"], message: `there are more than ${MAX_ENUM_VALUES} values in all` }
    : undefined;
}

function objectProblem(schema: Schema, path: SchemaProblem["path"], counts: { properties: number }) {
  const types = Array.isArray(schema.type) ? schema.type : [schema.type];
  if (!types.includes("object")) return undefined;
  if (schema.additionalProperties !== false)
    return { path: [...path, "additionalProperties"], message: "it is required, and must be false" };
  const names = entriesOf(schema.properties).map(([name]) => name);
  counts.properties += names.length;
  if (counts.properties > MAX_PROPERTIES)
    return { path, message: `there are more than ${MAX_PROPERTIES} properties in all` };
  const required = Array.isArray(schema.required) ? schema.required : [];
  const missing = names.find((name) => !required.includes(name));
  if (missing !== undefined) return { path: [...path, "required"], message: `'${missing}' must be in it` };
  const unknown = required.find((name) => !names.includes(String(name)));
  return unknown === undefined
    ? undefined
    : { path: [...path, "required"], message: `'${String(unknown)}' is no property` };
}
