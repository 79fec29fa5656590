import { z } from "zod";
import { ApiError } from "../errors";

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

/** Query parameters of a list that lies whole in one object. */
export const partsQuery = (order: "asc" | "desc") =>
  pageQuery(20).extend({ order: z.enum(["asc", "desc"]).default(order) });

/** A page of it. @throws ApiError 404 where `after` names none of its parts */
export function partsToWire<T extends { readonly id?: string | null | undefined }>(
  parts: readonly T[],
  { after, limit, order }: z.output<ReturnType<typeof partsQuery>>,
) {
  const all = order === "asc" ? parts : [...parts].reverse();
  const from = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && from === 0)
    throw new ApiError("not_found", `The list has no '${after}'.`, { param: "after" });
  const data = all.slice(from, from + limit);
  const ids = { first_id: data.at(0)?.id ?? "", last_id: data.at(-1)?.id ?? "" };
  return { object: "list" as const, data, ...ids, has_more: from + limit < all.length };
}

export const seconds = (ms: number): number => Math.floor(ms / 1000);
export const secondsOrNull = (ms: number | null): number | null => (ms === null ? null : seconds(ms));
