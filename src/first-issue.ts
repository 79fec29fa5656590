import type { z } from "zod";

/**
 * Ends a parse at the first thing that is wrong. Without it each wrong element of a list becomes an issue, and of a
 * million of them nobody reads a second one.
 */
export const FIRST_ISSUE = { reportInput: true, abortEarly: true } as z.core.ParseContext<z.core.$ZodIssue>;
