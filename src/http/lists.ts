import { z } from "zod";

/** A part of a list, as services give it. */
interface Page<R> {
  readonly rows: readonly R[];
  readonly hasMore: boolean;
}

/** Query parameters of every list that pages by `after`. */
export const pageQuery = (defaultLimit: number) =>
  z.strictObject({
    limit: z.coerce.number().int().min(1).max(100).default(defaultLimit),
    after: z.string().min(1).max(200).optional(),
  });

/** The contract's list object. */
export function listToWire<R, T extends { readonly id: string }>({ rows, hasMore }: Page<R>, toWire: (row: R) => T) {
  const data = rows.map(toWire);
  return {
    object: "list" as const,
    data,
    first_id: data.at(0)?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  };
}

export const seconds = (ms: number): number => Math.floor(ms / 1000);
export const secondsOrNull = (ms: number | null): number | null => (ms === null ? null : seconds(ms));
