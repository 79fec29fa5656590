import { eq } from "drizzle-orm";
import { type Page, type PageRequest, readPage } from "./page";
import type { serviceAccount } from "./schema";
import type { TenantData } from "./tenant-data";

export type ServiceAccountRow = typeof serviceAccount.$inferSelect;

export const findServiceAccount = (data: TenantData, id: string): Promise<ServiceAccountRow | undefined> =>
  data.first(data.tables.serviceAccount, eq(data.tables.serviceAccount.id, id));

/** @returns undefined when `after` names nothing */
export const pageOfServiceAccounts = (
  data: TenantData,
  page: PageRequest,
): Promise<Page<ServiceAccountRow> | undefined> => readPage(data, data.tables.serviceAccount, page);
