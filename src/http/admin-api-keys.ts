import { z } from "zod";
import { type ApiKeyRow, issueAdminKey, listApiKeys, retrieveApiKey, revokeApiKey } from "../tenancy/api-keys";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { listToWire, pageQuery, seconds, secondsOrNull } from "./lists";
import { parse, parseQuery } from "./parse";

const CreateBody = z.strictObject({
  name: z.string().trim().min(1).max(256),
  expires_in_seconds: z.int().min(1).max(31_536_000).optional(),
});
const ListQuery = pageQuery(20).extend({ order: z.enum(["asc", "desc"]).default("asc") });
const keyId = (c: AppContext): string => c.req.param("key_id") ?? "";

export const postAdminApiKey: Handler = async (c) => {
  const { name, expires_in_seconds } = parse(CreateBody, await readJson(c.req.raw));
  const expiresAtMs = expires_in_seconds === undefined ? null : Date.now() + expires_in_seconds * 1000;
  const { value, row } = await issueAdminKey(c.var.services, c.var.tenant, { name, expiresAtMs });
  return c.json({ ...adminKeyToWire(row), value });
};

export const getAdminApiKeys: Handler = async (c) => {
  const { limit, after, order } = parseQuery(ListQuery, c.req.url);
  return c.json(listToWire(await listApiKeys(c.var.services, c.var.tenant, { limit, after, order }), adminKeyToWire));
};

export const getAdminApiKey: Handler = async (c) =>
  c.json(adminKeyToWire(await retrieveApiKey(c.var.services, c.var.tenant, keyId(c))));

export const removeAdminApiKey: Handler = async (c) => {
  await revokeApiKey(c.var.services, c.var.tenant, keyId(c));
  return c.json({ id: keyId(c), object: "organization.admin_api_key.deleted", deleted: true });
};

const adminKeyToWire = (row: ApiKeyRow) => ({
  object: "organization.admin_api_key" as const,
  id: row.id,
  name: row.name,
  redacted_value: row.redactedValue,
  created_at: seconds(row.createdAtMs),
  expires_at: secondsOrNull(row.expiresAtMs),
  last_used_at: secondsOrNull(row.lastUsedAtMs),
  owner: {
    type: "service_account",
    object: "organization.service_account",
    id: "operator",
    name: "operator",
    role: "owner",
  },
});
