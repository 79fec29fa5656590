import { z } from "zod";
import { type IssuedKey, issueTenantKey } from "../tenancy/api-keys";
import type { TenantContext } from "../tenancy/context";
import { enterProject } from "../tenancy/projects";
import {
  createServiceAccount,
  deleteServiceAccount,
  listServiceAccounts,
  modifyServiceAccount,
  retrieveServiceAccount,
  type ServiceAccountRow,
} from "../tenancy/service-accounts";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { listToWire, pageQuery, seconds } from "./lists";
import { parse, parseQuery } from "./parse";
import { projectId } from "./projects";

const Name = z.string().trim().min(1).max(256);
const CreateBody = z.strictObject({ name: Name, create_service_account_only: z.boolean().nullish() });
const ModifyBody = z.strictObject({ name: Name.optional(), role: z.enum(["member", "owner"]).optional() });
const KeyBody = z.strictObject({
  name: z.string().max(256).default("Secret key"),
  scopes: z
    .array(z.enum(["data", "account"]))
    .min(1)
    .default(["data"]),
});

const accountId = (c: AppContext): string => c.req.param("service_account_id") ?? "";
const enter = (c: AppContext): Promise<TenantContext> => enterProject(c.var.services, c.var.tenant, projectId(c));

export const postServiceAccount: Handler = async (c) => {
  const body = parse(CreateBody, await readJson(c.req.raw));
  const tenant = await enter(c);
  const account = await createServiceAccount(c.var.services, tenant, body.name);
  const wire = accountToWire(account);
  if (body.create_service_account_only) return c.json({ ...wire, api_key: null });
  const asked = { serviceAccountId: account.id, name: "Secret key", scopes: ["data"] as const };
  return c.json({ ...wire, api_key: issuedToWire(await issueTenantKey(c.var.services, tenant, asked)) });
};

export const getServiceAccounts: Handler = async (c) => {
  const page = parseQuery(pageQuery(20), c.req.url);
  const accounts = await listServiceAccounts(c.var.services, await enter(c), { limit: page.limit, after: page.after });
  return c.json(listToWire(accounts, accountToWire));
};

export const getServiceAccount: Handler = async (c) =>
  c.json(accountToWire(await retrieveServiceAccount(c.var.services, await enter(c), accountId(c))));

export const postModifyServiceAccount: Handler = async (c) => {
  const changes = parse(ModifyBody, await readJson(c.req.raw));
  const account = await modifyServiceAccount(c.var.services, await enter(c), accountId(c), changes);
  return c.json(accountToWire(account));
};

export const removeServiceAccount: Handler = async (c) => {
  await deleteServiceAccount(c.var.services, await enter(c), accountId(c));
  return c.json({ object: "organization.project.service_account.deleted", id: accountId(c), deleted: true });
};

export const postServiceAccountKey: Handler = async (c) => {
  const body = parse(KeyBody, await readJson(c.req.raw));
  const asked = { serviceAccountId: accountId(c), name: body.name, scopes: [...new Set(body.scopes)] };
  const tenant = await enter(c);
  await retrieveServiceAccount(c.var.services, tenant, asked.serviceAccountId);
  return c.json(issuedToWire(await issueTenantKey(c.var.services, tenant, asked)));
};

const accountToWire = (row: ServiceAccountRow) => ({
  object: "organization.project.service_account" as const,
  id: row.id,
  name: row.name,
  role: row.role,
  created_at: seconds(row.createdAtMs),
});

const issuedToWire = ({ value, row }: IssuedKey) => ({
  object: "organization.project.service_account.api_key" as const,
  id: row.id,
  value,
  name: row.name,
  created_at: seconds(row.createdAtMs),
});
