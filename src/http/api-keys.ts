import { z } from "zod";
import { listOwnedApiKeys, type OwnedApiKey, retrieveOwnedApiKey, revokeApiKey } from "../tenancy/api-keys";
import type { TenantContext } from "../tenancy/context";
import { enterProject } from "../tenancy/projects";
import type { AppContext, Handler } from "./handler";
import { listToWire, pageQuery, seconds, secondsOrNull } from "./lists";
import { parseQuery } from "./parse";
import { projectId } from "./projects";

const enter = (c: AppContext): Promise<TenantContext> => enterProject(c.var.services, c.var.tenant, projectId(c));
const keyId = (c: AppContext): string => c.req.param("api_key_id") ?? "";
/** Owners here are service accounts, which always have access: asking for inactive ones finds none. */
const ListQuery = pageQuery(20).extend({ owner_project_access: z.enum(["active", "inactive", "any"]).default("any") });

export const getProjectApiKeys: Handler = async (c) => {
  const { limit, after, owner_project_access } = parseQuery(ListQuery, c.req.url);
  const tenant = await enter(c);
  if (owner_project_access === "inactive") return c.json(listToWire({ rows: [], hasMore: false }, keyToWire));
  return c.json(listToWire(await listOwnedApiKeys(c.var.services, tenant, { limit, after }), keyToWire));
};

export const getProjectApiKey: Handler = async (c) =>
  c.json(keyToWire(await retrieveOwnedApiKey(c.var.services, await enter(c), keyId(c))));

export const removeProjectApiKey: Handler = async (c) => {
  await revokeApiKey(c.var.services, await enter(c), keyId(c));
  return c.json({ object: "organization.project.api_key.deleted", id: keyId(c), deleted: true });
};

const keyToWire = ({ row, owner }: OwnedApiKey) => ({
  object: "organization.project.api_key" as const,
  id: row.id,
  name: row.name,
  redacted_value: row.redactedValue,
  created_at: seconds(row.createdAtMs),
  last_used_at: secondsOrNull(row.lastUsedAtMs),
  owner_project_access: "active" as const,
  owner: {
    type: "service_account" as const,
    service_account: {
      id: row.serviceAccountId ?? "",
      name: owner?.name ?? "",
      created_at: seconds(owner?.createdAtMs ?? row.createdAtMs),
      role: owner?.role ?? "member",
    },
  },
});
