import { DurableObject } from "cloudflare:workers";
import { SqlStatement, SqlStatements, type TenantDatabaseRpc } from "./tenant-database.messages";

/** One step of the schema's history; texts are those of the shared database. */
export interface Migration {
  readonly name: string;
  readonly sql: string;
}

/** The tool's own table; what else is there belongs to the tenant. */
const BOOKS = "create table if not exists migration (name text primary key, applied_at integer not null) without rowid";
const TENANT_TABLES = `select name from sqlite_master where type = 'table' and name <> 'migration'
  and name not like 'sqlite\\_%' escape '\\' and name not like '\\_cf\\_%' escape '\\'`;

/**
 * The database of one tenant that has its own: nobody else's rows are in it. It brings itself up to date before its
 * first statement, so a new version reaches objects that were made long before it. Statements come from the scoped
 * handle of `src/data` and have passed the statement guard.
 */
export const tenantDatabase = (migrations: readonly Migration[]) =>
  class TenantDatabase extends DurableObject<object> implements TenantDatabaseRpc {
    #isUpToDate = false;

    async read(raw: unknown): Promise<unknown[][]> {
      const { sql, params } = SqlStatement.parse(raw);
      return [...this.#sql.exec(sql, ...bound(params)).raw()];
    }

    async write(raw: unknown): Promise<number[]> {
      const statements = SqlStatements.parse(raw);
      const sql = this.#sql;
      return this.ctx.storage.transactionSync(() =>
        statements.map((statement) => {
          sql.exec(statement.sql, ...bound(statement.params)).toArray();
          return sql.exec<{ n: number }>("select changes() as n").one().n;
        }),
      );
    }

    async countRows(): Promise<number> {
      const sql = this.#sql;
      const tables = sql.exec<{ name: string }>(TENANT_TABLES).toArray();
      return tables.reduce(
        (sum, { name }) => sum + sql.exec<{ n: number }>(`select count(*) as n from "${name}"`).one().n,
        0,
      );
    }

    async erase(): Promise<void> {
      this.#isUpToDate = false; // whoever comes back finds tables made anew
      await this.ctx.storage.deleteAll();
    }

    /** Up to date before the first statement; synchronous, so nobody ever sees half of it. */
    get #sql(): SqlStorage {
      const { sql } = this.ctx.storage;
      if (!this.#isUpToDate) this.ctx.storage.transactionSync(() => migrate(sql, migrations));
      this.#isUpToDate = true;
      return sql;
    }
  };

function migrate(sql: SqlStorage, migrations: readonly Migration[]): void {
  sql.exec(BOOKS);
  const applied = new Set(
    sql
      .exec<{ name: string }>("select name from migration")
      .toArray()
      .map(({ name }) => name),
  );
  for (const step of migrations) {
    if (applied.has(step.name)) continue;
    sql.exec(step.sql);
    sql.exec("insert into migration (name, applied_at) values (?, ?)", step.name, Date.now());
  }
}

/** Objects know no booleans. */
const bound = (params: readonly unknown[]) =>
  params.map((value) => (typeof value === "boolean" ? Number(value) : value)) as SqlStorageValue[];
