import { and, asc, eq, gt, isNotNull, isNull, lte, ne, or, type SQL } from "drizzle-orm";
import type { StorageQuota } from "../core/plans";
import { type Page, type PageRequest, readPage } from "./page";
import type { file } from "./schema";
import { giveBackRoom, shrinkRoom, takeRoom } from "./storage-use";
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

/** An upload as it begins: how much room it may need at most, and the name of this change. */
export interface NewUpload extends Pick<FileRow, "id" | "endUser" | "bytes"> {
  readonly change: string;
  /** When maintenance takes it for abandoned. */
  readonly sweepAtMs: number;
}

/**
 * The row of a file whose bytes are on their way: it takes room, nobody finds it, and maintenance removes it with its
 * bytes where nobody finishes it.
 * @throws the database's error where it would pass the quota; see `isBeyondQuota`
 */
export async function beginUpload(
  data: TenantData,
  upload: NewUpload,
  quota: StorageQuota,
  nowMs: number,
): Promise<void> {
  const row: RowOf<typeof file> = {
    ...{ ...upload, state: "uploading", filename: "", purpose: "", sha256: "", sealedKey: "", expiresAtMs: null },
    ...{ createdAtMs: nowMs, updatedAtMs: nowMs, deletedAtMs: nowMs },
  };
  const room = takeRoom(data, { kind: "file", endUser: upload.endUser }, quota, upload.bytes, nowMs);
  await data.batch([...room, data.insert(data.tables.file, row)]);
}

/** What is known of a file once its bytes lie in object storage. */
export type FinishedUpload = Pick<FileRow, "filename" | "purpose" | "bytes" | "sha256" | "sealedKey" | "expiresAtMs">;

/** From now on the file is found. @returns whether it is: not where maintenance took its upload for abandoned */
export async function finishUpload(
  data: TenantData,
  { id, endUser, bytes: reserved, change }: NewUpload,
  finished: FinishedUpload,
  nowMs: number,
): Promise<boolean> {
  const { file } = data.tables;
  const done = crypto.randomUUID(); // another call's change is not this one's, though both finish one upload
  const set = { ...finished, state: "ready" as const, deletedAtMs: null, sweepAtMs: null, change: done };
  const isOurs = and(eq(file.id, id), eq(file.change, change), eq(file.state, "uploading")) as SQL;
  const [rows] = await data.batch([
    data.withDeleted().update(file, { ...set, createdAtMs: nowMs, updatedAtMs: nowMs }, isOurs),
    ...shrinkRoom(data, { kind: "file", endUser, id, change: done }, reserved - finished.bytes, nowMs),
  ]);
  return rows === 1;
}

/**
 * Marks files whose bytes are to be removed: nobody finds them any more, and they take no room.
 * @param from in which state they must be still
 * @returns how many were
 */
export async function markRemoving(
  data: TenantData,
  files: readonly Pick<FileRow, "id" | "endUser">[],
  { from, change, nowMs }: { readonly from: "ready" | "uploading"; readonly change: string; readonly nowMs: number },
): Promise<number> {
  if (files.length === 0) return 0;
  const { file } = data.tables;
  const ids = files.map(({ id }) => id);
  const endUsers = [...new Set(files.map(({ endUser }) => endUser))];
  const isLive = from === "ready" ? isNull(file.deletedAtMs) : undefined;
  const set = { state: "removing" as const, deletedAtMs: nowMs, updatedAtMs: nowMs, expiresAtMs: null };
  const where = and(data.anyOf(file.id, ids), eq(file.state, from), isLive) as SQL;
  const [rows = 0] = await data.batch([
    data.withDeleted().update(file, { ...set, sweepAtMs: nowMs, change }, where),
    ...giveBackRoom(data, { kind: "file", change, ids, endUsers }, nowMs),
  ]);
  return rows;
}

/** The bytes of these are gone. */
export async function markRemoved(data: TenantData, ids: readonly string[], nowMs: number): Promise<void> {
  const { file } = data.tables;
  const where = and(data.anyOf(file.id, ids), eq(file.state, "removing")) as SQL;
  const set = { state: "removed" as const, sweepAtMs: null, updatedAtMs: nowMs };
  await data.batch([data.withDeleted().update(file, set, where)]);
}

/** The bytes of these could not be removed; maintenance comes back for them. */
export async function postponeRemoval(data: TenantData, ids: readonly string[], untilMs: number): Promise<void> {
  const { file } = data.tables;
  const where = and(data.anyOf(file.id, ids), eq(file.state, "removing")) as SQL;
  await data.batch([data.withDeleted().update(file, { sweepAtMs: untilMs }, where)]);
}

/** Abandoned uploads, and files whose bytes are still to be removed, the longest due first. */
export async function filesToSweep(data: TenantData, nowMs: number, limit: number): Promise<FileRow[]> {
  const { file } = data.tables;
  return data.withDeleted().list(file, { where: lte(file.sweepAtMs, nowMs), orderBy: [asc(file.sweepAtMs)], limit });
}

/** Those whose time is over, the longest over first. */
export async function expiredFiles(data: TenantData, nowMs: number, limit: number): Promise<FileRow[]> {
  const { file } = data.tables;
  return data.list(file, { where: lte(file.expiresAtMs, nowMs), orderBy: [asc(file.expiresAtMs)], limit });
}

/** Rows of files that were deleted until then and whose bytes are gone. */
export async function forgettableFiles(data: TenantData, deletedUntilMs: number, limit: number): Promise<string[]> {
  const { file } = data.tables;
  // Rows that an earlier version deleted are 'ready' still.
  const where = and(lte(file.deletedAtMs, deletedUntilMs), data.anyOf(file.state, ["removed", "ready"])) as SQL;
  const rows = await data.withDeleted().list(file, { where, orderBy: [asc(file.deletedAtMs)], limit });
  return rows.map(({ id }) => id);
}

export async function forgetFiles(data: TenantData, ids: readonly string[]): Promise<void> {
  const { file } = data.tables;
  const where = and(data.anyOf(file.id, ids), isNotNull(file.deletedAtMs), ne(file.state, "removing")) as SQL;
  await data.batch([data.erase(file, where)]);
}

/** When the next file expires, is to be swept, or was deleted and has no bytes left; undefined where there is none. Reads three rows. */
export async function nextFileTimes(data: TenantData) {
  const { file } = data.tables;
  const all = data.withDeleted();
  const [expiring, sweeping, deleted] = await Promise.all([
    data.list(file, { where: isNotNull(file.expiresAtMs), orderBy: [asc(file.expiresAtMs)], limit: 1 }),
    all.list(file, { where: isNotNull(file.sweepAtMs), orderBy: [asc(file.sweepAtMs)], limit: 1 }),
    all.list(file, {
      where: and(isNotNull(file.deletedAtMs), data.anyOf(file.state, ["removed", "ready"])) as SQL,
      orderBy: [asc(file.deletedAtMs)],
      limit: 1,
    }),
  ]);
  return {
    expiresAtMs: expiring[0]?.expiresAtMs ?? undefined,
    sweepAtMs: sweeping[0]?.sweepAtMs ?? undefined,
    deletedAtMs: deleted[0]?.deletedAtMs ?? undefined,
  };
}
