import { randomBytes } from "node:crypto";
import postgres, { type Sql, type TransactionSql } from "postgres";
import { inject } from "vitest";

const open: Sql[] = [];

/** Connections of one test file; `closeAll` ends them. */
export function connect(as: "superuser" | "owner" | "app", max = 2): Sql {
  const sql = postgres(inject("postgres")[as], { max, onnotice: () => {} });
  open.push(sql);
  return sql;
}
export const closeAll = async (): Promise<void> => {
  await Promise.all(open.splice(0).map((sql) => sql.end({ timeout: 5 })));
};

/** A transaction as the platform makes it: bound to a tenant, in the pool's schema or the tenant's own. */
export function asTenant<T>(
  sql: Sql,
  tenantId: string,
  work: (tx: TransactionSql) => Promise<T>,
  schema = "tenantry",
): Promise<T> {
  return sql.begin(async (tx) => {
    await tx`select set_config('app.tenant_id', ${tenantId}, true), set_config('search_path', quote_ident(${schema}), true)`;
    return work(tx);
  }) as Promise<T>;
}

/** A tenant id as the platform makes them, with capitals and dashes: Postgres folds what is not quoted. */
export const newTenantId = (): string => `proj_aB-_${randomBytes(12).toString("base64url")}`;
