import { eq, isNull } from "drizzle-orm";
import { type Page, type PageRequest, readPage } from "./page";
import type { project } from "./schema";
import type { TenantData } from "./tenant-data";

export type ProjectRow = typeof project.$inferSelect;

/** The operator's list of tenants; `platform` is the operator's own view. */
export const findProject = (platform: TenantData, id: string): Promise<ProjectRow | undefined> =>
  platform.first(platform.tables.project, eq(platform.tables.project.id, id));

/** @returns undefined when `after` names nothing */
export function pageOfProjects(
  platform: TenantData,
  page: PageRequest & { readonly includeArchived: boolean },
): Promise<Page<ProjectRow> | undefined> {
  const { project } = platform.tables;
  return readPage(platform, project, page, { where: page.includeArchived ? undefined : isNull(project.archivedAtMs) });
}
