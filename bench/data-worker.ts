/** The data layer as the platform runs it, inside workerd, and a note of every statement it sends. */
import { findOwnedApiKey, pageOfOwnedApiKeys } from "../src/data/api-keys";
import { d1Database } from "../src/data/d1-database";
import type { Database, Statement } from "../src/data/database";
import { postgresDialect, sqliteDialect } from "../src/data/dialect";
import { POOL_SCHEMA, postgresDatabase } from "../src/data/postgres-database";
import { findServiceAccount, pageOfServiceAccounts } from "../src/data/service-accounts";
import { TenantData } from "../src/data/tenant-data";
import { enterAsJob } from "../src/tenancy/jobs";

interface Env {
  readonly DB: D1Database;
  readonly HYPERDRIVE: Hyperdrive;
}

/** What is measured: each is one call of a repository. */
const CALLS = {
  "get an account": (data: TenantData) => findServiceAccount(data, "svc_7"),
  "get a key with its account": (data: TenantData) => findOwnedApiKey(data, "key_7"),
  "list 20 accounts": (data: TenantData) => pageOfServiceAccounts(data, { limit: 20, after: undefined }),
  "list 20 keys with accounts": (data: TenantData) => pageOfOwnedApiKeys(data, { limit: 20, after: undefined }),
  "list from the middle": (data: TenantData) => pageOfServiceAccounts(data, { limit: 20, after: "svc_20" }),
  "count the accounts": (data: TenantData) => data.count(data.tables.serviceAccount),
} as const;

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const tenantId = url.searchParams.get("tenant") ?? "";
    const isPostgres = url.searchParams.get("database") === "postgres";
    const context = enterAsJob({ tenantId, region: "global", isolation: "pool" }, "bench");
    const database = isPostgres ? postgresDatabase(env.HYPERDRIVE, tenantId, POOL_SCHEMA) : d1Database(env.DB);
    const results = [];
    for (const [call, work] of Object.entries(CALLS)) {
      const statements: Statement[] = [];
      const noting: Database = {
        read: (statement) => {
          statements.push(statement);
          return database.read(statement);
        },
        write: (all) => database.write(all),
      };
      const data = new TenantData(context, noting, isPostgres ? postgresDialect : sqliteDialect);
      const startedAtMs = performance.now();
      const result = await work(data);
      const tookMs = performance.now() - startedAtMs;
      const rowsRead = isPostgres ? undefined : await readOf(env.DB, statements);
      results.push({ call, statements, rowsRead, tookMs, found: sizeOf(result) });
    }
    return Response.json(results);
  },
} satisfies ExportedHandler<Env>;

/** The same statements once more, for what D1 says that they read. */
async function readOf(database: D1Database, statements: readonly Statement[]): Promise<number> {
  let rows = 0;
  for (const { sql, params } of statements) {
    const { meta } = await database
      .prepare(sql)
      .bind(...params)
      .all();
    rows += meta.rows_read;
  }
  return rows;
}

function sizeOf(result: unknown): number {
  if (typeof result === "number") return result;
  if (result === undefined) return 0;
  return "rows" in (result as object) ? (result as { rows: unknown[] }).rows.length : 1;
}
