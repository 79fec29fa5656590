import type { Sql } from "postgres";
import type { CatalogueTable } from "./rules";

/** Every table of one schema of a live Postgres, by `pg_catalog`. */
export async function postgresCatalogue(sql: Sql, schema: string): Promise<CatalogueTable[]> {
  const tables = await sql<{ oid: number; name: string; enabled: boolean; forced: boolean }[]>`
    select c.oid, c.relname as name, c.relrowsecurity as enabled, c.relforcerowsecurity as forced
    from pg_class c where c.relnamespace = quote_ident(${schema})::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')`;
  return Promise.all(tables.map((table) => tableOf(sql, table)));
}

async function tableOf(
  sql: Sql,
  { oid, name, enabled, forced }: { oid: number; name: string; enabled: boolean; forced: boolean },
): Promise<CatalogueTable> {
  const [columns, indexes, references, policies] = await Promise.all([
    sql<{ name: string; not_null: boolean }[]>`
      select attname as name, attnotnull as not_null from pg_attribute where attrelid = ${oid} and attnum > 0 and not attisdropped`,
    sql<{ name: string; is_unique: boolean; is_primary: boolean; columns: string[]; condition: string | null }[]>`
      select (select relname from pg_class where oid = i.indexrelid) as name, i.indisunique as is_unique, i.indisprimary as is_primary,
        pg_get_expr(i.indpred, i.indrelid) as condition,
        array(select coalesce((select attname::text from pg_attribute where attrelid = i.indrelid and attnum = k), '(expression)')
              from unnest(i.indkey::int2[]) with ordinality as u(k, n) order by n) as columns
      from pg_index i where i.indrelid = ${oid}`,
    sql<{ table: string; columns: string[]; referenced: string[] }[]>`
      select (select relname from pg_class where oid = confrelid) as table,
        array(select attname::text from unnest(conkey) with ordinality as u(k, n) join pg_attribute on attrelid = conrelid and attnum = k order by n) as columns,
        array(select attname::text from unnest(confkey) with ordinality as u(k, n) join pg_attribute on attrelid = confrelid and attnum = k order by n) as referenced
      from pg_constraint where conrelid = ${oid} and contype = 'f'`,
    sql<{ command: string; using: string | null; check: string | null; permissive: boolean }[]>`
      select case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end as command,
        pg_get_expr(polqual, polrelid) as using, pg_get_expr(polwithcheck, polrelid) as check
      from pg_policy where polrelid = ${oid} order by polname`,
  ]);
  const primaryKey = indexes.find((index) => index.is_primary)?.columns ?? [];
  return {
    name,
    columns: columns.map((column) => ({ name: column.name, notNull: column.not_null })),
    primaryKey,
    indexes: indexes
      .filter((index) => !index.is_primary)
      .map((index) => ({
        name: index.name,
        unique: index.is_unique,
        columns: index.columns,
        where: index.condition?.replace(/^\((.*)\)$/, "$1").toLowerCase() ?? null,
      })),
    foreignKeys: references,
    rowSecurity: { enabled, forced, policies },
  };
}
