import { z } from "zod";
import { setSuspended } from "../tenancy/limits";
import {
  archiveProject,
  createProject,
  listProjects,
  modifyProject,
  type ProjectRow,
  restoreProject,
  retrieveProject,
} from "../tenancy/projects";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { listToWire, pageQuery, seconds, secondsOrNull } from "./lists";
import { parse, parseQuery } from "./parse";

const Name = z.string().trim().min(1).max(256);
const ExternalKeyId = z.string().max(256).nullish();
const RESIDENCIES = [
  "GLOBAL",
  "US_STORAGE_PROCESSING",
  "EU_STORAGE_PROCESSING",
  "JP_STORAGE",
  "KR_STORAGE",
  "CA_STORAGE",
  "SG_STORAGE",
  "IN_STORAGE",
  "AU_STORAGE",
  "GB_STORAGE",
  "AE_STORAGE",
  "AE_STORAGE_PROCESSING",
] as const;
const CreateBody = z.strictObject({
  name: Name,
  residency: z.enum(RESIDENCIES).nullish(),
  external_key_id: ExternalKeyId,
});
const ModifyBody = z.strictObject({ name: Name.nullish(), external_key_id: ExternalKeyId });
const ListQuery = pageQuery(20).extend({ include_archived: z.stringbool().default(false) });

export const projectId = (c: AppContext): string => c.req.param("project_id") ?? "";

export const postProject: Handler = async (c) => {
  const body = parse(CreateBody, await readJson(c.req.raw));
  const asked = { name: body.name, residency: body.residency ?? "GLOBAL", externalKeyId: body.external_key_id ?? null };
  return c.json(projectToWire(await createProject(c.var.services, c.var.tenant, asked)));
};

export const getProjects: Handler = async (c) => {
  const { include_archived, limit, after } = parseQuery(ListQuery, c.req.url);
  const page = { limit, after, includeArchived: include_archived };
  return c.json(listToWire(await listProjects(c.var.services, c.var.tenant, page), projectToWire));
};

export const getProject: Handler = async (c) =>
  c.json(projectToWire(await retrieveProject(c.var.services, c.var.tenant, projectId(c))));

export const postModifyProject: Handler = async (c) => {
  const body = parse(ModifyBody, await readJson(c.req.raw));
  const changes = { name: body.name ?? undefined, externalKeyId: body.external_key_id };
  return c.json(projectToWire(await modifyProject(c.var.services, c.var.tenant, projectId(c), changes)));
};

export const postArchiveProject: Handler = async (c) =>
  c.json(projectToWire(await archiveProject(c.var.services, c.var.tenant, projectId(c))));

export const postRestoreProject: Handler = async (c) =>
  c.json(projectToWire(await restoreProject(c.var.services, c.var.tenant, projectId(c))));

export const postSuspendProject: Handler = async (c) =>
  c.json(projectToWire(await setSuspended(c.var.services, c.var.tenant, projectId(c), true)));

export const postResumeProject: Handler = async (c) =>
  c.json(projectToWire(await setSuspended(c.var.services, c.var.tenant, projectId(c), false)));

const projectToWire = (row: ProjectRow) => ({
  id: row.id,
  object: "organization.project" as const,
  name: row.name,
  created_at: seconds(row.createdAtMs),
  archived_at: secondsOrNull(row.archivedAtMs),
  status: row.status,
  external_key_id: row.externalKeyId,
  residency: row.residency,
});
