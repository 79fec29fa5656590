import { z } from "zod";
import { FIRST_ISSUE } from "../first-issue";

/** How many elements a list may have, or entries a map. */
interface Size {
  readonly min?: number;
  readonly max: number;
}

/** A list whose length is looked at before anything that is in it. */
export const list = <T extends z.ZodType>(element: T, { min = 0, max }: Size) =>
  z.preprocess((input, context) => {
    if (Array.isArray(input)) refuseSize(input, input.length, { min, max }, "elements", context);
    return input;
  }, z.array(element));

/** A map whose entries are counted before any of them is looked at. */
export const map = <K extends z.core.$ZodRecordKey, V extends z.ZodType>(key: K, value: V, { min = 0, max }: Size) =>
  z.preprocess(
    (input, context) => {
      if (typeof input === "object" && input !== null && !Array.isArray(input))
        refuseSize(input, entriesOf(input), { min, max }, "entries", context);
      return input;
    },
    z.record(key, value),
  );

/**
 * A list whose elements say by their `type` what they are: each is read by the one schema that it is for, and the
 * first that is wrong ends it.
 * @param schemaOf may throw an ApiError of its own
 */
export const typedList = <T extends z.ZodType>(
  max: number,
  schemaOf: (type: unknown, index: number, element: unknown) => T,
) =>
  z.unknown().transform((input, context): z.output<T>[] => {
    if (!Array.isArray(input)) {
      context.issues.push({ code: "invalid_type", expected: "array", input });
      return z.NEVER;
    }
    if (input.length > max) {
      refuseSize(input, input.length, { min: 0, max }, "elements", context);
      return z.NEVER;
    }
    const read: z.output<T>[] = [];
    for (const [index, element] of input.entries()) {
      const type = typeof element === "object" && element !== null && "type" in element ? element.type : undefined;
      const parsed = schemaOf(type, index, element).safeParse(element, FIRST_ISSUE);
      if (parsed.success) {
        read.push(parsed.data);
        continue;
      }
      const [issue] = parsed.error.issues;
      if (issue) context.issues.push({ ...issue, path: [index, ...issue.path] } as (typeof context.issues)[number]);
      return z.NEVER;
    }
    return read;
  });

const SIZE = { isOfSize: true };
/** Whether something was refused for how much of it there is: no other reason was looked for. */
export const isOfSize = (issue: z.core.$ZodIssue): boolean => issue.code === "custom" && issue.params === SIZE;

function refuseSize(
  input: unknown,
  size: number,
  { min, max }: Required<Size>,
  what: string,
  context: z.core.$RefinementCtx,
): void {
  if (size >= min && size <= max) return;
  const message =
    size > max ? `at most ${max} ${what} are accepted, and there are ${size}` : `it needs at least ${min} ${what}`;
  context.issues.push({ code: "custom", message, input, continue: false, params: SIZE });
}

function entriesOf(input: object): number {
  let count = 0;
  for (const _ in input) count++;
  return count;
}
