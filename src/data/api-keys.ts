import { and, eq, isNull, lt, or, type SQL } from "drizzle-orm";
import { type Page, type PageRequest, pageOf, pageOptions, readPage } from "./page";
import type { apiKey } from "./schema";
import type { ServiceAccountRow } from "./service-accounts";
import type { BoundStatement, TenantData } from "./tenant-data";

export type ApiKeyRow = typeof apiKey.$inferSelect;
/** A key with the account it belongs to; admin keys belong to none. */
export interface OwnedApiKey {
  readonly row: ApiKeyRow;
  readonly owner: ServiceAccountRow | null;
}

export const findApiKey = (data: TenantData, id: string): Promise<ApiKeyRow | undefined> =>
  data.first(data.tables.apiKey, eq(data.tables.apiKey.id, id));

export async function findOwnedApiKey(data: TenantData, id: string): Promise<OwnedApiKey | undefined> {
  return (await withOwners(data, { where: eq(data.tables.apiKey.id, id), limit: 1 })).at(0);
}

/** @returns undefined when `after` names nothing */
export const pageOfApiKeys = (data: TenantData, page: PageRequest): Promise<Page<ApiKeyRow> | undefined> =>
  readPage(data, data.tables.apiKey, page);

/** @returns undefined when `after` names nothing */
export async function pageOfOwnedApiKeys(data: TenantData, page: PageRequest): Promise<Page<OwnedApiKey> | undefined> {
  const options = await pageOptions(data, data.tables.apiKey, page);
  return options && pageOf(await withOwners(data, options), page);
}

async function withOwners(
  data: TenantData,
  options: Parameters<TenantData["listWith"]>[3],
): Promise<readonly OwnedApiKey[]> {
  const { apiKey, serviceAccount } = data.tables;
  const on = eq(serviceAccount.id, apiKey.serviceAccountId);
  const rows = await data.listWith(apiKey, serviceAccount, on, options);
  return rows.map(({ row, parent }) => ({ row, owner: parent }));
}

/** Marks when keys were last used, never earlier than they are marked already; part of the ledger's turn. */
export function lastUsedUpdates(data: TenantData, lastUsedMs: Readonly<Record<string, number>>): BoundStatement[] {
  const { apiKey } = data.tables;
  return Object.entries(lastUsedMs).map(([id, lastUsedAtMs]) => {
    const isEarlier = or(isNull(apiKey.lastUsedAtMs), lt(apiKey.lastUsedAtMs, lastUsedAtMs));
    return data.update(apiKey, { lastUsedAtMs }, and(eq(apiKey.id, id), isEarlier) as SQL);
  });
}
