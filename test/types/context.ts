import { d1Database } from "../../src/data/d1-database";
import type { Databases } from "../../src/data/databases";
import { sqliteDialect } from "../../src/data/dialect";
import { TenantData } from "../../src/data/tenant-data";
import type { AppContext } from "../../src/http/handler";
import type { Services } from "../../src/services";
import type { TenantContext } from "../../src/tenancy/context";

/** Compiled, never run: what must not compile is marked, and the type check fails when one of them does. */
declare const binding: D1Database;
declare const context: TenantContext;
declare const databases: Databases;
declare const services: Services;
declare const handled: AppContext;
const database = d1Database(binding);

export const right = new TenantData(context, database, sqliteDialect);

const lookalike = { tenantId: "proj_x", region: "global", actor: { type: "job", name: "x" }, scopes: [] };
// @ts-expect-error an object that looks like a context is none
export const imitated = databases.of(lookalike);
// @ts-expect-error nor is one made by a single cast
export const cast = databases.of({ tenantId: "proj_x" } as TenantContext["tenantId"]);
// @ts-expect-error a tenant id is not any text
export const id: TenantContext["tenantId"] = "proj_x";
// @ts-expect-error there is no handle without a tenant
export const unbound = new TenantData(database, sqliteDialect);
// @ts-expect-error nor do the databases give out another
export const raw = databases.bindings;
// @ts-expect-error a service has no database without a tenant
export const free = services.data();
// @ts-expect-error a handler sees no binding
export const leaked = handled.env.DB;

const { apiKey } = right.tables;
// @ts-expect-error a row is stamped with its tenant, never given one
export const stamped = right.update(apiKey, { tenantId: "proj_x" }, right.anyOf(apiKey.id, []));
