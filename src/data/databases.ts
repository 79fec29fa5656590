import type { TenantDatabaseRpc } from "../../durable-objects/tenant-database.messages";
import type { Isolation, Region, TenantContext, TenantLocation } from "../tenancy/context";
import { assertMinted } from "../tenancy/context";
import { d1Database } from "./d1-database";
import { postgresDialect, sqliteDialect } from "./dialect";
import { objectDatabase } from "./object-database";
import { POOL_SCHEMA, postgresDatabase, TenantSchema } from "./postgres-database";
import { TenantData } from "./tenant-data";

export type PoolKind = "d1" | "postgres";

/** The databases of a deployment, by region; only one of the two kinds of pool is used. */
export interface DatabaseBindings {
  readonly kind: PoolKind;
  readonly d1: Readonly<Partial<Record<Region, D1Database | undefined>>>;
  readonly postgres: Readonly<Partial<Record<Region, Hyperdrive | undefined>>>;
  /** The object that is a silo tenant's own database. */
  readonly silo: (tenant: TenantLocation) => TenantDatabaseRpc;
}

/**
 * Every database of the deployment, behind the one thing it gives out: a tenant's own view, from a context. The
 * bindings do not leave this class.
 */
export class Databases {
  readonly #bindings: DatabaseBindings;

  /** @throws TypeError when a region has no database */
  constructor(bindings: DatabaseBindings, regions: readonly Region[]) {
    this.#bindings = bindings;
    for (const region of regions) this.#pool(region);
  }

  /** How a tenant may be kept apart from the others here. */
  get offered(): readonly Isolation[] {
    return this.#bindings.kind === "postgres" ? ["pool", "bridge", "silo"] : ["pool", "silo"];
  }

  /** A tenant's view of its own database, wherever that is. */
  of(context: TenantContext): TenantData {
    assertMinted(context);
    const { tenantId, isolation, region } = context;
    if (isolation === "silo") {
      return new TenantData(context, objectDatabase(this.#bindings.silo(context)), sqliteDialect);
    }
    const pool = this.#pool(region);
    if ("connectionString" in pool) {
      const schema = isolation === "bridge" ? tenantId : POOL_SCHEMA;
      return new TenantData(context, postgresDatabase(pool, tenantId, schema), postgresDialect);
    }
    if (isolation !== "pool") throw new TypeError(`this deployment has no isolation ${isolation}`);
    return new TenantData(context, d1Database(pool), sqliteDialect);
  }

  /** The tenant's own schema, where the deployment has such. */
  schemaOf(context: TenantContext): TenantSchema | undefined {
    assertMinted(context);
    const pool = this.#pool(context.region);
    return "connectionString" in pool ? new TenantSchema(pool, context.tenantId) : undefined;
  }

  /** The object that is, or would be, the tenant's own database. */
  objectOf(context: TenantContext): TenantDatabaseRpc {
    assertMinted(context);
    return this.#bindings.silo(context);
  }

  #pool(region: Region): D1Database | Hyperdrive {
    const { kind, d1, postgres } = this.#bindings;
    const pool = kind === "postgres" ? postgres[region] : d1[region];
    if (pool) return pool;
    const missing = { d1: "D1 database", postgres: "Hyperdrive binding" }[kind];
    throw new TypeError(`configuration: region ${region} has no ${missing} of its own`);
  }
}
