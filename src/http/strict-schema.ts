import { strictProblem } from "../core/strict-schema";
import { ApiError } from "../errors";

/** UTF-16 units of a schema that a reply is to satisfy, as JSON: models compile it. */
const MAX_SCHEMA_CHARACTERS = 65_536;
const MAX_TOLD_CHARACTERS = 200;

/**
 * `strict: true` is a promise, so a schema that cannot be promised is refused and not tried.
 * @param param of the schema, in the contract's spelling
 * @throws ApiError `invalid_value`
 */
export function assertStrict(schema: unknown, strict: boolean | null | undefined, param: string): void {
  const problem = strict ? strictProblem(schema) : undefined;
  if (!problem) return;
  const at = problem.path
    .map((step) => (typeof step === "number" ? `[${step}]` : `.${step}`))
    .join("")
    .slice(0, MAX_TOLD_CHARACTERS)
    .toWellFormed();
  const message = `Invalid schema for '${param}' with 'strict': at '${param}${at}', ${problem.message}.`;
  throw new ApiError("invalid_value", message, { param });
}

/** The schema of a reply, strict or not. @throws ApiError `invalid_value` */
export function assertReplySchema(schema: unknown, strict: boolean | null | undefined, param: string): void {
  if (schema !== undefined && JSON.stringify(schema).length > MAX_SCHEMA_CHARACTERS) {
    const message = `Invalid schema for '${param}': as JSON it has more than ${MAX_SCHEMA_CHARACTERS} characters.`;
    throw new ApiError("invalid_value", message, { param });
  }
  assertStrict(schema, strict, param);
}
