import { and, desc, eq, type SQL } from "drizzle-orm";
import { type Page, type PageRequest, readPage } from "./page";
import type { artifact } from "./schema";
import type { RowOf, TenantData } from "./tenant-data";

export type ArtifactRow = typeof artifact.$inferSelect;
export type NewArtifact = RowOf<typeof artifact>;

/** What a caller may see of a tenant's artifacts: those of one kind, and an end user its own alone. */
export interface ArtifactScope {
  readonly kind: ArtifactRow["kind"];
  /** Null sees all. */
  readonly endUser: string | null;
}

function inScope(data: TenantData, { kind, endUser }: ArtifactScope, ...more: (SQL | undefined)[]): SQL {
  const { artifact } = data.tables;
  const own = endUser === null ? undefined : eq(artifact.endUser, endUser);
  return and(eq(artifact.kind, kind), own, ...more) as SQL;
}

export async function addArtifact(data: TenantData, row: NewArtifact): Promise<void> {
  await data.batch([data.insert(data.tables.artifact, row)]);
}

export const findArtifact = (data: TenantData, scope: ArtifactScope, id: string): Promise<ArtifactRow | undefined> =>
  data.first(data.tables.artifact, inScope(data, scope, eq(data.tables.artifact.id, id)));

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

/** @returns whether there was one */
export async function changeArtifact(
  data: TenantData,
  scope: ArtifactScope,
  id: string,
  set: Partial<Pick<NewArtifact, "metadata" | "output">>,
  nowMs: number,
): Promise<boolean> {
  const { artifact } = data.tables;
  const changed = { ...set, updatedAtMs: nowMs };
  const [rows] = await data.batch([data.update(artifact, changed, inScope(data, scope, eq(artifact.id, id)))]);
  return rows === 1;
}

/** @returns whether there was one */
export async function removeArtifact(
  data: TenantData,
  scope: ArtifactScope,
  id: string,
  nowMs: number,
): Promise<boolean> {
  const { artifact } = data.tables;
  const [rows] = await data.batch([data.remove(artifact, inScope(data, scope, eq(artifact.id, id)), nowMs)]);
  return rows === 1;
}
