import { and, desc, eq, gt, isNull, lte, or, type SQL } from "drizzle-orm";
import { type Page, type PageRequest, readPage } from "./page";
import type { file } from "./schema";
import type { RowOf, TenantData } from "./tenant-data";

export type FileRow = typeof file.$inferSelect;

/** What a caller may see: an end user its own files alone; nobody those that have expired. */
export interface FileScope {
  /** Null sees all. */
  readonly endUser: string | null;
  readonly nowMs: number;
}

const owned = ({ tables: { file } }: TenantData, { endUser }: FileScope): SQL | undefined =>
  endUser === null ? undefined : eq(file.endUser, endUser);
const unexpired = ({ tables: { file } }: TenantData, { nowMs }: FileScope): SQL | undefined =>
  or(isNull(file.expiresAtMs), gt(file.expiresAtMs, nowMs));

const inScope = (data: TenantData, scope: FileScope, ...more: (SQL | undefined)[]): SQL =>
  and(unexpired(data, scope), owned(data, scope), ...more) as SQL;

export async function addFile(data: TenantData, row: RowOf<typeof file>): Promise<void> {
  await data.batch([data.insert(data.tables.file, row)]);
}

export const findFile = (data: TenantData, scope: FileScope, id: string): Promise<FileRow | undefined> =>
  data.first(data.tables.file, inScope(data, scope, eq(data.tables.file.id, id)));

/** @returns undefined when `after` names nothing */
export const pageOfFiles = (
  data: TenantData,
  scope: FileScope,
  { purpose, ...page }: PageRequest & { readonly purpose: string | undefined },
): Promise<Page<FileRow> | undefined> =>
  readPage(data, data.tables.file, page, {
    visible: owned(data, scope),
    where: and(unexpired(data, scope), purpose === undefined ? undefined : eq(data.tables.file.purpose, purpose)),
  });

/** What a tenant's files take up, of all its end users. */
export async function filesTaken(data: TenantData): Promise<{ readonly count: number; readonly bytes: number }> {
  const { file } = data.tables;
  const [count, bytes] = await Promise.all([data.count(file), data.total(file, file.bytes)]);
  return { count, bytes };
}

/** @returns whether there was one */
export async function removeFile(data: TenantData, id: string, nowMs: number): Promise<boolean> {
  const [rows] = await data.batch([data.remove(data.tables.file, eq(data.tables.file.id, id), nowMs)]);
  return rows === 1;
}

/** Those whose time is over, the latest of them first. */
export async function expiredFiles(data: TenantData, nowMs: number, limit: number): Promise<FileRow[]> {
  const { file } = data.tables;
  return data.list(file, { where: lte(file.expiresAtMs, nowMs), orderBy: [desc(file.expiresAtMs)], limit });
}
