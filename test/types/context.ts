import { TenantData } from "../../src/data/tenant-data";
import type { TenantContext } from "../../src/tenancy/context";

/** Compiled, never run: what must not compile is marked, and the type check fails when one of them does. */
declare const database: D1Database;
declare const context: TenantContext;

export const right = new TenantData(context, database);

const lookalike = { tenantId: "proj_x", region: "global", actor: { type: "job", name: "x" }, scopes: [] };
// @ts-expect-error an object that looks like a context is none
export const imitated = new TenantData(lookalike, database);
// @ts-expect-error nor is one made by a single cast
export const cast = new TenantData({ tenantId: "proj_x" } as TenantContext["tenantId"], database);
// @ts-expect-error a tenant id is not any text
export const id: TenantContext["tenantId"] = "proj_x";
// @ts-expect-error there is no handle without a tenant
export const unbound = new TenantData(database);
