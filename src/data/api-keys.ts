import { eq } from "drizzle-orm";
import { type Page, type PageRequest, readPage } from "./page";
import { apiKey } from "./schema";
import type { BoundStatement, TenantData } from "./tenant-data";

export type ApiKeyRow = typeof apiKey.$inferSelect;

export const findApiKey = (data: TenantData, id: string): Promise<ApiKeyRow | undefined> =>
  data.first(apiKey, eq(apiKey.id, id));

/** @returns undefined when `after` names nothing */
export const pageOfApiKeys = (data: TenantData, page: PageRequest): Promise<Page<ApiKeyRow> | undefined> =>
  readPage(data, apiKey, page);

/** Marks when keys were last used; part of the ledger's turn, because it is as old as that. */
export function lastUsedUpdates(data: TenantData, lastUsedMs: Readonly<Record<string, number>>): BoundStatement[] {
  return Object.entries(lastUsedMs).map(([id, lastUsedAtMs]) =>
    data.update(apiKey, { lastUsedAtMs }, eq(apiKey.id, id)),
  );
}
