import { and, desc, eq, gt, gte, lt, lte, or, type SQL } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import type { Page } from "./page";
import type { auditLog } from "./schema";
import type { TenantData } from "./tenant-data";

export type AuditRow = typeof auditLog.$inferSelect;

/** Bounds are seconds, as the contract's; lists are alternatives, null is no condition. */
export interface AuditFilter {
  readonly limit: number;
  readonly after?: string | undefined;
  readonly before?: string | undefined;
  readonly effective: Partial<Record<"gt" | "gte" | "lt" | "lte", number>>;
  readonly types: readonly string[] | null;
  readonly projectIds: readonly string[] | null;
  readonly actorIds: readonly string[] | null;
  readonly resourceIds: readonly string[] | null;
}

/**
 * Administrative events, newest first.
 * @returns undefined when a cursor names no event
 */
export async function readAuditLog(platform: TenantData, filter: AuditFilter): Promise<Page<AuditRow> | undefined> {
  const { auditLog } = platform.tables;
  const anyOf = (column: SQLiteColumn, values: readonly string[] | null) =>
    values ? platform.anyOf(column, values) : undefined;
  const cursors: (SQL | undefined)[] = [];
  for (const [id, beyond] of [[filter.after, lt] as const, [filter.before, gt] as const]) {
    if (id === undefined) continue;
    const row = await platform.first(auditLog, eq(auditLog.id, id));
    if (!row) return undefined;
    const sameTime = and(eq(auditLog.effectiveAtMs, row.effectiveAtMs), beyond(auditLog.id, id));
    cursors.push(or(beyond(auditLog.effectiveAtMs, row.effectiveAtMs), sameTime));
  }
  const { effective } = filter;
  const at = auditLog.effectiveAtMs;
  const where = and(
    ...cursors,
    effective.gt === undefined ? undefined : gte(at, (effective.gt + 1) * 1000),
    effective.gte === undefined ? undefined : gte(at, effective.gte * 1000),
    effective.lt === undefined ? undefined : lt(at, effective.lt * 1000),
    effective.lte === undefined ? undefined : lte(at, effective.lte * 1000 + 999),
    anyOf(auditLog.type, filter.types),
    anyOf(auditLog.projectId, filter.projectIds),
    anyOf(auditLog.actorKeyId, filter.actorIds),
    anyOf(auditLog.resourceId, filter.resourceIds),
  );
  const orderBy = [desc(auditLog.effectiveAtMs), desc(auditLog.id)];
  const rows = await platform.list(auditLog, { where, orderBy, limit: filter.limit + 1 });
  return { rows: rows.slice(0, filter.limit), hasMore: rows.length > filter.limit };
}
