import type { z } from "zod";
import { ApiError } from "../errors";
import { FIRST_ISSUE } from "../first-issue";
import { isOfSize } from "./bounded";

/** Of a name in an error: what a caller wrote is told back, but not at any length. */
const MAX_NAME_CHARACTERS = 200;

/**
 * Parses a caller's input and names what is wrong with it, in the contract's spelling. The first thing that is wrong
 * ends it: of a list full of mistakes nobody reads a second one.
 * @throws ApiError `unknown_parameter`, `missing_required_parameter` or `invalid_value`, with `param`
 */
export function parse<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const result = schema.safeParse(input, FIRST_ISSUE);
  if (result.success) return result.data;
  throw errorOf(deepest(result.error.issues));
}

/** Query parameters; `name[]` and repeated names are lists, as the official clients write them. */
export function parseQuery<T extends z.ZodObject>(schema: T, url: string): z.output<T> {
  // Without a prototype, so that no name is taken for something that every object has.
  const values: Record<string, unknown> = Object.create(null);
  for (const [written, value] of new URL(url).searchParams) {
    const name = written.replace(/\[\]$/, "");
    if (written.includes("\0") || value.includes("\0")) {
      const param = name.replaceAll("\0", "");
      throw new ApiError("invalid_value", `Parameter "${param}" has a NUL character.`, { param });
    }
    const isList = written.endsWith("[]") || isListSchema(schema, name);
    const known = values[name];
    if (isList && Array.isArray(known)) known.push(value);
    else if (isList) values[name] = [value];
    else if (known !== undefined)
      throw new ApiError("invalid_value", `Parameter "${cut(name)}" was sent twice.`, { param: cut(name) });
    else values[name] = value;
  }
  return parse(schema, values);
}

function isListSchema(schema: z.ZodObject, name: string): boolean {
  let field: z.core.$ZodType | undefined = Object.hasOwn(schema.shape, name) ? schema.shape[name] : undefined;
  while (
    field?._zod.def.type === "optional" ||
    field?._zod.def.type === "default" ||
    field?._zod.def.type === "nullable"
  ) {
    field = (field._zod.def as unknown as { innerType: z.core.$ZodType }).innerType;
  }
  return field?._zod.def.type === "array";
}

type Issue = z.core.$ZodIssue;

/** Of a union's branches the one that got furthest says best what is wrong; one that got too much, better still. */
function deepest(issues: readonly Issue[]): Issue {
  const issue = issues[0];
  if (!issue) throw new TypeError("a failed parse without an issue");
  if (issue.code !== "invalid_union" || issue.errors.length === 0 || issue.input === undefined) return issue;
  const branches = issue.errors.filter((branch) => branch.length > 0).map((branch) => deepest(branch));
  const tooMuch = branches.find(isOfSize);
  if (tooMuch) return { ...tooMuch, path: [...issue.path, ...tooMuch.path] };
  const furthest = branches.reduce(
    (best, next) => (next.path.length > best.path.length ? next : best),
    branches[0] ?? issue,
  );
  return furthest.path.length > 0 ? { ...furthest, path: [...issue.path, ...furthest.path] } : { ...issue, errors: [] };
}

function errorOf(issue: Issue): ApiError {
  const at = nameOf(issue.path);
  if (issue.code === "unrecognized_keys") {
    const param = nameOf([...issue.path, issue.keys[0] ?? ""]);
    return new ApiError("unknown_parameter", `Unknown parameter: '${param}'.`, { param });
  }
  const isMissing =
    ["invalid_type", "invalid_union", "invalid_value"].includes(issue.code) && issue.input === undefined;
  if (isMissing) {
    return new ApiError("missing_required_parameter", `Missing required parameter: '${at}'.`, { param: at });
  }
  const where = at === "" ? "the request body" : `'${at}'`;
  return new ApiError("invalid_value", `Invalid value for ${where}: ${issue.message}.`, at === "" ? {} : { param: at });
}

const cut = (name: string): string =>
  name.length <= MAX_NAME_CHARACTERS ? name : `${name.slice(0, MAX_NAME_CHARACTERS).toWellFormed()}…`;

/** `messages[0].content`. */
function nameOf(path: readonly PropertyKey[]): string {
  return cut(
    path.reduce<string>(
      (name, step) =>
        typeof step === "number" ? `${name}[${step}]` : name === "" ? String(step) : `${name}.${String(step)}`,
      "",
    ),
  );
}
