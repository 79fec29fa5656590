import { and, asc, desc, eq, gt, lt, or, type SQL } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import type { ListOptions, TenantData, TenantTable } from "./tenant-data";

type ListedTable = TenantTable & { id: SQLiteColumn; createdAtMs: SQLiteColumn };

export interface PageRequest {
  readonly limit: number;
  /** Id of the last row of the page before. */
  readonly after: string | undefined;
  readonly order?: "asc" | "desc";
}
export interface Page<T> {
  readonly rows: readonly T[];
  readonly hasMore: boolean;
}

/** Which rows a list is of. */
export interface Listed {
  /** What its caller may see at all. A cursor outside of it names nothing, as one that never was. */
  readonly visible?: SQL | undefined;
  /** What was asked for besides; a page may end on a row that does not match any more. */
  readonly where?: SQL | undefined;
}

/**
 * A page in order of creation. The index (tenant, creation, id) serves it whole, so it costs what it returns.
 * @returns undefined when `after` names no row that the caller may see
 */
export async function readPage<T extends ListedTable>(
  data: TenantData,
  table: T,
  request: PageRequest,
  listed: Listed = {},
): Promise<Page<T["$inferSelect"]> | undefined> {
  const options = await pageOptions(data, table, request, listed);
  return options && pageOf(await data.list(table, options), request);
}

/** How to ask for a page, one row more than it has; what else stands in a row is the caller's. */
export async function pageOptions(
  data: TenantData,
  table: ListedTable,
  { limit, after, order = "asc" }: PageRequest,
  { visible, where }: Listed = {},
): Promise<ListOptions | undefined> {
  const beyond = order === "asc" ? gt : lt;
  const direction = order === "asc" ? asc : desc;
  let from: SQL | undefined;
  if (after !== undefined) {
    // A page may end on a row that is deleted before the next page is asked for.
    const named = and(eq(table.id, after), visible) as SQL;
    const last = (await data.withDeleted().first(table, named)) as { createdAtMs: number } | undefined;
    if (!last) return undefined;
    const sameTime = and(eq(table.createdAtMs, last.createdAtMs), beyond(table.id, after));
    from = or(beyond(table.createdAtMs, last.createdAtMs), sameTime);
  }
  const orderBy = [direction(table.createdAtMs), direction(table.id)];
  return { where: and(visible, where, from), orderBy, limit: limit + 1 };
}

export const pageOf = <T>(rows: readonly T[], { limit }: PageRequest): Page<T> => ({
  rows: rows.slice(0, limit),
  hasMore: rows.length > limit,
});
