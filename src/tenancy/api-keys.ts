import {
  type ApiKeyRow,
  findApiKey,
  findOwnedApiKey,
  type OwnedApiKey,
  pageOfApiKeys,
  pageOfOwnedApiKeys,
} from "../data/api-keys";
import type { Page, PageRequest } from "../data/page";
import { ApiError } from "../errors";
import type { Scope, TenantContext } from "./context";
import { changeTenant } from "./gates";
import { newId } from "./ids";
import { generateKey, hashKey, type KeyKind, redactKey } from "./keys";
import type { TenancyPorts } from "./ports";
import { unknownCursor } from "./projects";

export type { ApiKeyRow, OwnedApiKey } from "../data/api-keys";

/** A new key: `value` is shown once and kept nowhere. */
export interface IssuedKey {
  readonly value: string;
  readonly row: ApiKeyRow;
}

/** Issues a key for one of the tenant's service accounts. */
export function issueTenantKey(
  ports: TenancyPorts,
  tenant: TenantContext,
  asked: { readonly serviceAccountId: string; readonly name: string; readonly scopes: readonly ("data" | "account")[] },
): Promise<IssuedKey> {
  return issue(ports, tenant, "tenant", { ...asked, expiresAtMs: null });
}

/** Issues a key for the operator itself. */
export function issueAdminKey(
  ports: TenancyPorts,
  operator: TenantContext,
  asked: { readonly name: string; readonly expiresAtMs: number | null },
): Promise<IssuedKey> {
  return issue(ports, operator, "admin", { ...asked, serviceAccountId: null, scopes: ["admin"] });
}

async function issue(
  ports: TenancyPorts,
  owner: TenantContext,
  kind: KeyKind,
  asked: {
    readonly serviceAccountId: string | null;
    readonly name: string;
    readonly scopes: readonly Scope[];
    readonly expiresAtMs: number | null;
  },
): Promise<IssuedKey> {
  const value = generateKey(kind);
  const id = newId("apiKey");
  const scopes = [...asked.scopes];
  const key = { id, hash: await hashKey(value), redactedValue: redactKey(value), ...asked, scopes };
  await changeTenant(ports.gate(owner), owner, { type: "create_key", ...key });
  return { value, row: await retrieveApiKey(ports, owner, id) };
}

export async function retrieveApiKey(ports: TenancyPorts, owner: TenantContext, id: string): Promise<ApiKeyRow> {
  const row = await findApiKey(ports.data(owner), id);
  return row ?? keyNotFound(id);
}

/** The key with its service account. */
export async function retrieveOwnedApiKey(ports: TenancyPorts, owner: TenantContext, id: string): Promise<OwnedApiKey> {
  return (await findOwnedApiKey(ports.data(owner), id)) ?? keyNotFound(id);
}

function keyNotFound(id: string): never {
  throw new ApiError("not_found", `No API key found with id '${id}'.`, { param: "api_key_id" });
}

export async function listOwnedApiKeys(
  ports: TenancyPorts,
  owner: TenantContext,
  page: PageRequest,
): Promise<Page<OwnedApiKey>> {
  return (await pageOfOwnedApiKeys(ports.data(owner), page)) ?? unknownCursor();
}

export async function listApiKeys(
  ports: TenancyPorts,
  owner: TenantContext,
  page: PageRequest,
): Promise<Page<ApiKeyRow>> {
  return (await pageOfApiKeys(ports.data(owner), page)) ?? unknownCursor();
}

/** Brings back a deleted key whose account is alive. */
export async function restoreApiKey(ports: TenancyPorts, owner: TenantContext, id: string): Promise<ApiKeyRow> {
  await changeTenant(ports.gate(owner), owner, { type: "restore_key", id });
  return retrieveApiKey(ports, owner, id);
}

/** Revokes a key: within a second it is refused everywhere. */
export async function revokeApiKey(ports: TenancyPorts, owner: TenantContext, id: string): Promise<void> {
  await retrieveApiKey(ports, owner, id);
  await changeTenant(ports.gate(owner), owner, { type: "delete_key", id });
}
