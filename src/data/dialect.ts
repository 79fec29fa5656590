import { type SQL, sql } from "drizzle-orm";
import { drizzle as drizzlePostgres } from "drizzle-orm/pg-proxy";
import type { SQLiteColumn, SQLiteTable } from "drizzle-orm/sqlite-core";
import { drizzle as drizzleSqlite, type SqliteRemoteDatabase } from "drizzle-orm/sqlite-proxy";
import * as sqliteSchema from "./schema";
import * as postgresSchema from "./schema-postgres";

/** A table of a tenant's: it names its tenant and can be deleted softly. */
export type TenantTable = SQLiteTable & { tenantId: SQLiteColumn; deletedAtMs: SQLiteColumn };

/** The tables, as the repositories see them whatever database is below. */
export type Tables = typeof sqliteSchema;

/** Values of one row, in the order of the columns asked for. */
export type RowValues = unknown[];
export type ReadRows = (text: string, params: unknown[]) => Promise<RowValues[]>;

/** What differs between the databases: their tables, how a query is written down, and some conditions. */
export interface Dialect {
  readonly name: "sqlite" | "postgres";
  readonly tables: Tables;
  /** A query builder whose reads go to `read`. */
  builder(read: ReadRows): SqliteRemoteDatabase;
  /** `column` is one of `values`; one JSON parameter, so that the text stays the same for any number of them. */
  anyOf(column: SQLiteColumn, values: readonly string[]): SQL;
  /** The JSON object in `column` has all of these members; one parameter again. */
  hasMembers(column: SQLiteColumn, members: Readonly<Record<string, string>>): SQL;
}

export const sqliteDialect: Dialect = {
  name: "sqlite",
  tables: sqliteSchema,
  builder: (read) => drizzleSqlite(async (text, params) => ({ rows: await read(text, params) })),
  anyOf: (column, values) => sql`${column} in (select value from json_each(${JSON.stringify(values)}))`,
  hasMembers: (column, members) => sql`not exists (select 1 from json_each(${JSON.stringify(members)}) as wanted
    where not exists (select 1 from json_each(${column}) as own where own.key = wanted.key and own.value = wanted.value))`,
};

/**
 * Repositories are written once, against the SQLite types. This is the only cast that presents the Postgres objects
 * under them: both builders have the same methods, and a test compares the tables column by column, modes and
 * nullability included.
 */
export const postgresDialect: Dialect = {
  name: "postgres",
  tables: postgresSchema as unknown as Tables,
  builder: (read) =>
    drizzlePostgres(async (text, params) => ({ rows: await read(text, params) })) as unknown as SqliteRemoteDatabase,
  anyOf: (column, values) =>
    sql`${column} in (select value from jsonb_array_elements_text(cast(${JSON.stringify(values)} as jsonb)))`,
  hasMembers: (
    column,
    members,
  ) => sql`not exists (select 1 from jsonb_each_text(cast(${JSON.stringify(members)} as jsonb)) as wanted
    where not exists (select 1 from jsonb_each_text(${column}) as own where own.key = wanted.key and own.value = wanted.value))`,
};

type Row<T> = T extends { $inferSelect: infer R } ? R : never;
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type SameRows = {
  [K in keyof Tables]: K extends keyof typeof postgresSchema
    ? Same<Row<Tables[K]>, Row<(typeof postgresSchema)[K]>>
    : false;
}[keyof Tables];
/** Does not compile where a table is missing from a dialect or its rows have other types there. */
export const ROWS_ARE_THE_SAME: SameRows = true;
