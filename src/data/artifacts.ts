import { and, asc, desc, eq, gt, isNotNull, isNull, lte, or, type SQL } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import type { StorageQuota } from "../core/plans";
import { type Page, type PageRequest, readPage } from "./page";
import type { artifact } from "./schema";
import { giveBackRoom, shrinkRoom, takeRoom } from "./storage-use";
import type { RowOf, TenantData } from "./tenant-data";

export type ArtifactRow = typeof artifact.$inferSelect;
export type NewArtifact = RowOf<typeof artifact>;

/** What a caller may see of a tenant's artifacts: those of one kind, and an end user its own alone. */
export interface ArtifactScope {
  readonly kind: ArtifactRow["kind"];
  /** Null sees all. */
  readonly endUser: string | null;
  /** Nobody sees what has expired. */
  readonly nowMs: number;
}

function inScope(data: TenantData, { kind, endUser, nowMs }: ArtifactScope, ...more: (SQL | undefined)[]): SQL {
  const { artifact } = data.tables;
  const own = endUser === null ? undefined : eq(artifact.endUser, endUser);
  const lives = or(isNull(artifact.expiresAtMs), gt(artifact.expiresAtMs, nowMs));
  return and(eq(artifact.kind, kind), lives, own, ...more) as SQL;
}

/** @throws the database's error where it would pass the quota; see `isBeyondQuota` */
export async function addArtifact(data: TenantData, row: NewArtifact, quota: StorageQuota): Promise<void> {
  const room = takeRoom(data, { kind: "artifact", endUser: row.endUser }, quota, row.bytes ?? 0, row.createdAtMs);
  await data.batch([...room, data.insert(data.tables.artifact, row)]);
}

export const findArtifact = (data: TenantData, scope: ArtifactScope, id: string): Promise<ArtifactRow | undefined> =>
  data.first(data.tables.artifact, inScope(data, scope, eq(data.tables.artifact.id, id)));

/** What deleting needs to know of one, without reading what was said in it. */
export async function ownerOfArtifact(
  data: TenantData,
  scope: ArtifactScope,
  id: string,
): Promise<Pick<ArtifactRow, "id" | "endUser"> | undefined> {
  const { artifact } = data.tables;
  const where = inScope(data, scope, eq(artifact.id, id));
  return (await data.pick(artifact, { id: artifact.id, endUser: artifact.endUser }, { where, limit: 1 })).at(0);
}

export interface ArtifactFilter extends PageRequest {
  readonly model: string | undefined;
  readonly metadata: Readonly<Record<string, string>> | undefined;
}

/** @returns undefined when `after` names nothing */
export function pageOfArtifacts(
  data: TenantData,
  scope: ArtifactScope,
  { model, metadata, ...page }: ArtifactFilter,
): Promise<Page<ArtifactRow> | undefined> {
  const { artifact } = data.tables;
  const labelled = metadata === undefined ? undefined : data.hasMembers(artifact.metadata, metadata);
  const where = and(model === undefined ? undefined : eq(artifact.model, model), labelled);
  return readPage(data, artifact, page, { visible: inScope(data, scope), where });
}

/** The latest rows of a conversation, newest first. */
export function conversationOf(
  data: TenantData,
  scope: ArtifactScope,
  rootId: string,
  limit: number,
): Promise<ArtifactRow[]> {
  const { artifact } = data.tables;
  const where = inScope(data, scope, eq(artifact.rootId, rootId));
  return data.list(artifact, { where, orderBy: [desc(artifact.createdAtMs)], limit });
}

/** Other labels for an artifact; the contract bounds them, so its room stays as it was. @returns whether there was one */
export async function relabel(
  data: TenantData,
  scope: ArtifactScope,
  id: string,
  metadata: NewArtifact["metadata"],
): Promise<boolean> {
  const { artifact } = data.tables;
  const set = { metadata, updatedAtMs: scope.nowMs };
  const [rows] = await data.batch([data.update(artifact, set, inScope(data, scope, eq(artifact.id, id)))]);
  return rows === 1;
}

/**
 * Another output for an artifact, which has room for it.
 * @param final the bytes that it takes from now on, never more than it took; undefined while it may change again
 * @returns whether there was one
 */
export async function rewrite(
  data: TenantData,
  scope: ArtifactScope,
  row: Pick<ArtifactRow, "id" | "endUser"> & { readonly output: unknown },
  final: { readonly bytes: number; readonly reserved: number; readonly change: string } | undefined,
): Promise<boolean> {
  const { artifact } = data.tables;
  const { id, endUser, output } = row;
  const isIt = inScope(data, scope, eq(artifact.id, id));
  if (!final) {
    const [rows] = await data.batch([data.update(artifact, { output, updatedAtMs: scope.nowMs }, isIt)]);
    return rows === 1;
  }
  const { bytes, reserved, change } = final;
  const set = { output, bytes, change, updatedAtMs: scope.nowMs };
  const where = and(isIt, eq(artifact.bytes, reserved)) as SQL;
  const [rows] = await data.batch([
    data.update(artifact, set, where),
    ...shrinkRoom(data, { kind: "artifact", endUser, id, change }, reserved - bytes, scope.nowMs),
  ]);
  return rows === 1;
}

/**
 * Ends artifacts: nobody finds them, they take no room, and what was said in them is gone. That there were such is
 * forgotten with the retention.
 * @returns how many there were
 */
export async function endArtifacts(
  data: TenantData,
  rows: readonly Pick<ArtifactRow, "id" | "endUser">[],
  { change, nowMs }: { readonly change: string; readonly nowMs: number },
): Promise<number> {
  if (rows.length === 0) return 0;
  const { artifact } = data.tables;
  const ids = rows.map(({ id }) => id);
  const endUsers = [...new Set(rows.map(({ endUser }) => endUser))];
  const set = { input: {}, output: {}, metadata: {}, expiresAtMs: null, deletedAtMs: nowMs, updatedAtMs: nowMs };
  const [ended = 0] = await data.batch([
    data.update(artifact, { ...set, change }, data.anyOf(artifact.id, ids)),
    ...giveBackRoom(data, { kind: "artifact", change, ids, endUsers }, nowMs),
  ]);
  return ended;
}

/** Those whose time is over, the longest over first. */
export function expiredArtifacts(
  data: TenantData,
  nowMs: number,
  limit: number,
): Promise<Pick<ArtifactRow, "id" | "endUser">[]> {
  const { artifact } = data.tables;
  const where = lte(artifact.expiresAtMs, nowMs);
  return data.pick(artifact, { id: artifact.id, endUser: artifact.endUser }, { where, limit });
}

/** Removes for good rows that were deleted until then. @returns how many, at most `limit` */
export async function forgetArtifacts(data: TenantData, deletedUntilMs: number, limit: number): Promise<number> {
  const { artifact } = data.tables;
  const ids = await data
    .withDeleted()
    .names(artifact, artifact.id, limit, lte(artifact.deletedAtMs, deletedUntilMs) as SQL);
  if (ids.length === 0) return 0;
  await data.batch([data.erase(artifact, and(data.anyOf(artifact.id, ids), isNotNull(artifact.deletedAtMs)) as SQL)]);
  return ids.length;
}

/** When the next artifact expires, and when the first one was deleted. Reads two rows. */
export async function nextArtifactTimes(data: TenantData) {
  const { artifact } = data.tables;
  const { expiresAtMs, deletedAtMs } = artifact;
  const earliest = (at: SQLiteColumn) => ({ where: isNotNull(at), orderBy: [asc(at)], limit: 1 });
  const [expiring, deleted] = await Promise.all([
    data.pick(artifact, { expiresAtMs }, earliest(expiresAtMs)),
    data.withDeleted().pick(artifact, { deletedAtMs }, earliest(deletedAtMs)),
  ]);
  return { expiresAtMs: expiring[0]?.expiresAtMs ?? undefined, deletedAtMs: deleted[0]?.deletedAtMs ?? undefined };
}
