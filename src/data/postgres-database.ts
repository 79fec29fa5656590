import postgres, { type Sql, type TransactionSql } from "postgres";
import { ApiError } from "../errors";
import type { Database, Statement } from "./database";

/** Schema that pooled tenants share; a tenant with a schema of its own has one of its own name. */
export const POOL_SCHEMA = "tenantry";

const CONNECT_SECONDS = 10;
/** In a Durable Object nothing else ends a connection; in a Worker the end of the request does. */
const IDLE_SECONDS = 2;

/** Bindings whose role has been seen to be subject to row level security. */
const checked = new WeakSet<object>();

/**
 * Postgres as one tenant reaches it. Every transaction is bound to the tenant before its first statement, by settings
 * that end with it, so that any pool of transactions may stand between. Row level security filters by that binding.
 */
export function postgresDatabase(binding: Hyperdrive, tenantId: string, schema: string): Database {
  const connection = lazyConnection(binding);
  const transaction = async <T>(work: (tx: TransactionSql) => Promise<T>): Promise<T> => {
    try {
      return (await connection().begin(async (tx) => {
        // Sent first, but not waited for: they travel with the statements, and when one fails, all do.
        const bound = bind(tx, tenantId, schema).execute();
        const subject = checked.has(binding) ? undefined : assertSubjectToRowSecurity(tx);
        const [result] = await Promise.all([work(tx), bound, subject]);
        checked.add(binding);
        return result;
      })) as T;
    } catch (error) {
      if (isUnreachable(error)) throw unavailable(error);
      throw (await isSchemaGone(binding, tenantId, schema)) ? gone() : error;
    }
  };
  const run = (tx: TransactionSql, { sql, params }: Statement) => tx.unsafe(sql, params as never[]);
  return {
    read: (statement) => transaction(async (tx) => [...(await run(tx, statement).values())] as unknown[][]),
    write: (statements) =>
      transaction(async (tx) => {
        const results = await Promise.all(statements.map((statement) => run(tx, statement)));
        return results.map(({ count }) => count);
      }),
  };
}

const bind = (tx: TransactionSql, tenantId: string, schema: string) =>
  tx`select set_config('app.tenant_id', ${tenantId}, true), set_config('search_path', quote_ident(${schema}), true)`;

/** What a tenant may do with a schema of its own; the functions act on the tenant that the transaction is bound to. */
export class TenantSchema {
  readonly #connection: () => Sql;

  constructor(
    binding: Hyperdrive,
    readonly tenantId: string,
  ) {
    this.#connection = lazyConnection(binding);
  }

  /** Makes it, with all tables; does nothing where it is there. */
  create = () => this.#call("create_tenant_schema");
  /** Drops it with all that is in it. */
  drop = () => this.#call("drop_tenant_schema");
  exists = () => this.#call("has_tenant_schema");

  async #call(name: "create_tenant_schema" | "drop_tenant_schema" | "has_tenant_schema"): Promise<boolean> {
    try {
      return await this.#connection().begin(async (tx) => {
        await bind(tx, this.tenantId, POOL_SCHEMA);
        const [row] = await tx.unsafe(`select tenantry.${name}() as result`);
        return row?.result === true;
      });
    } catch (error) {
      throw isUnreachable(error) ? unavailable(error) : error;
    }
  }
}

/** One connection for one handle, opened by its first use: sockets belong to the request that opens them. */
function lazyConnection(binding: Hyperdrive): () => Sql {
  let sql: Sql | undefined;
  const asIs = (value: unknown) => value;
  return () => {
    sql ??= postgres(binding.connectionString, {
      max: 1,
      fetch_types: false,
      idle_timeout: IDLE_SECONDS,
      connect_timeout: CONNECT_SECONDS,
      onnotice: () => {},
      // The query builder writes and reads JSON itself.
      types: { jsonb: { to: 3802, from: [3802], serialize: asIs, parse: asIs } },
    });
    return sql;
  };
}

/** A superuser, or a role with BYPASSRLS, would see every tenant: such a deployment serves nobody. */
async function assertSubjectToRowSecurity(tx: TransactionSql): Promise<void> {
  const [role] = await tx`select rolsuper or rolbypassrls as exempt from pg_roles where rolname = current_user`;
  if (role?.exempt !== false) {
    throw new TypeError("the database role is exempt from row level security; connect as tenantry_app");
  }
}

/** The tenant was erased while somebody was on the way to its rows. */
const isSchemaGone = async (binding: Hyperdrive, tenantId: string, schema: string): Promise<boolean> =>
  schema !== POOL_SCHEMA && !(await new TenantSchema(binding, tenantId).exists());

const gone = () => new ApiError("not_found", "No such object: its project no longer exists.");

const UNREACHABLE = /^(ECONN|ENOTFOUND|EPIPE|ETIMEDOUT|CONNECT_TIMEOUT|CONNECTION_|57P|53)/;

const isUnreachable = (error: unknown): boolean =>
  UNREACHABLE.test(String((error as { code?: unknown } | null)?.code ?? ""));

function unavailable(error: unknown): ApiError {
  console.error(JSON.stringify({ event: "database_unreachable", reason: String(error) }));
  const message = "The platform's database does not answer right now. Try again shortly.";
  return new ApiError("storage_unavailable", message, { headers: { "retry-after": "1" } });
}
