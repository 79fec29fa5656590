import {
  and,
  count,
  eq,
  type GetColumnData,
  getTableColumns,
  getTableName,
  isNotNull,
  isNull,
  lte,
  type SQL,
  sql,
  sum,
} from "drizzle-orm";
import type { SQLiteColumn, SQLiteTable, SQLiteUpdateSetSource } from "drizzle-orm/sqlite-core";
import type { SqliteRemoteDatabase } from "drizzle-orm/sqlite-proxy";
import { assertMinted, type TenantContext } from "../tenancy/context";
import type { Database, Statement } from "./database";
import { reportingNoValues, unwrapped } from "./database-errors";
import type { Dialect, Tables, TenantTable } from "./dialect";
import * as schema from "./schema";
import { StatementGuard } from "./statement-guard";

export type { TenantTable } from "./dialect";

/** A row as its callers write it: the tenant is stamped here, never passed in. */
export type RowOf<T extends TenantTable> = Omit<T["$inferInsert"], "tenantId">;
/** Columns to change: each to a value, or to what the database computes from what is there. */
export type ChangesOf<T extends TenantTable> = { readonly [K in keyof RowOf<T>]?: RowOf<T>[K] | SQL };

/** How a row that is there already is changed. */
export interface UpsertOptions<T extends TenantTable> {
  /** In place of the new row's own values. */
  readonly changes?: ChangesOf<T>;
  /** Where the stored row has more in this column, it stays: writes that arrive late change nothing. */
  readonly grows?: SQLiteColumn;
}

export interface ListOptions {
  readonly where?: SQL | undefined;
  readonly orderBy?: readonly SQL[];
  readonly limit: number;
}

/** A write that is already bound to its tenant; several go into one {@link TenantData.batch}. */
class Bound {
  readonly #statement: Statement;
  constructor(
    readonly owner: string,
    statement: Statement,
  ) {
    this.#statement = statement;
  }
  static statementOf(bound: Bound): Statement {
    return bound.#statement;
  }
}
export type BoundStatement = Bound; // the type leaves this module, the constructor does not

const guard = new StatementGuard(Object.values(schema).map((table) => getTableName(table)));

/**
 * One tenant's view of the system of record. Every statement it makes is filtered by, and stamped with, its tenant,
 * and sees no deleted row unless asked to; a guard parses each distinct text and refuses one that is not. There is
 * no other way to the database.
 */
export class TenantData {
  readonly #context: TenantContext;
  readonly #database: Database;
  readonly #dialect: Dialect;
  readonly #builder: SqliteRemoteDatabase;
  readonly #deletedToo: boolean;

  constructor(context: TenantContext, database: Database, dialect: Dialect, deletedToo = false) {
    assertMinted(context);
    this.#context = context;
    this.#database = reportingNoValues(database);
    this.#dialect = dialect;
    this.#deletedToo = deletedToo;
    this.#builder = dialect.builder((text, params) => this.#database.read(this.#guarded({ sql: text, params })));
  }

  /** The tables as this tenant's database has them; conditions must be made of these. */
  get tables(): Tables {
    return this.#dialect.tables;
  }

  /** The same view, soft-deleted rows included. */
  withDeleted(): TenantData {
    return new TenantData(this.#context, this.#database, this.#dialect, true);
  }

  /** Rows of the tenant that match `where`, at most `limit`. */
  list<T extends TenantTable>(table: T, options: ListOptions): Promise<T["$inferSelect"][]> {
    const query = this.#builder
      .select()
      .from(table as SQLiteTable)
      .where(this.#scope(table, options.where))
      .orderBy(...(options.orderBy ?? []))
      .limit(options.limit);
    return unwrapped(query as unknown as Promise<T["$inferSelect"][]>);
  }

  /** Rows, each with the row of another table that it refers to by `on`; null where that is deleted or none. */
  async listWith<T extends TenantTable, P extends TenantTable>(
    table: T,
    parent: P,
    on: SQL,
    options: ListOptions,
  ): Promise<{ row: T["$inferSelect"]; parent: P["$inferSelect"] | null }[]> {
    const query = this.#builder
      .select({ row: table as SQLiteTable, parent: parent as SQLiteTable })
      .from(table as SQLiteTable)
      .leftJoin(parent as SQLiteTable, this.#scope(parent, on))
      .where(this.#scope(table, options.where))
      .orderBy(...(options.orderBy ?? []))
      .limit(options.limit);
    return unwrapped(query as unknown as Promise<{ row: T["$inferSelect"]; parent: P["$inferSelect"] | null }[]>);
  }

  /** The row that matches, or undefined; a foreign row is no row. */
  async first<T extends TenantTable>(table: T, where: SQL): Promise<T["$inferSelect"] | undefined> {
    return (await this.list(table, { where, limit: 1 })).at(0);
  }

  /** How many rows of the tenant match. */
  async count(table: TenantTable, where?: SQL): Promise<number> {
    const query = this.#builder
      .select({ rows: count() })
      .from(table as SQLiteTable)
      .where(this.#scope(table, where));
    const rows = await unwrapped(query);
    return rows.at(0)?.rows ?? 0;
  }

  /** The sum of a column over the rows that match. */
  async total(table: TenantTable, column: SQLiteColumn, where?: SQL): Promise<number> {
    const query = this.#builder.select({ total: sum(column) }).from(table as SQLiteTable);
    const rows = await unwrapped(query.where(this.#scope(table, where)));
    return Number(rows.at(0)?.total ?? 0);
  }

  /** Some columns of the rows that match, where whole rows are large. */
  pick<C extends Record<string, SQLiteColumn>>(
    table: TenantTable,
    columns: C,
    options: ListOptions,
  ): Promise<{ [K in keyof C]: GetColumnData<C[K], "query"> }[]> {
    const query = this.#builder
      .select(columns as Record<string, SQLiteColumn>)
      .from(table as SQLiteTable)
      .where(this.#scope(table, options.where))
      .orderBy(...(options.orderBy ?? []))
      .limit(options.limit);
    return unwrapped(query as unknown as Promise<{ [K in keyof C]: GetColumnData<C[K], "query"> }[]>);
  }

  /** One column of the rows that match, as text. */
  async names(table: TenantTable, column: SQLiteColumn, limit: number, where?: SQL): Promise<string[]> {
    const query = this.#builder.select({ name: column }).from(table as SQLiteTable);
    const rows = await unwrapped(query.where(this.#scope(table, where)).limit(limit));
    return rows.map(({ name }) => String(name));
  }

  /** `column` is one of `values`. */
  anyOf(column: SQLiteColumn, values: readonly string[]): SQL {
    return this.#dialect.anyOf(column, values);
  }

  /** The JSON object in `column` has all of `members`. */
  hasMembers(column: SQLiteColumn, members: Readonly<Record<string, string>>): SQL {
    return this.#dialect.hasMembers(column, members);
  }

  /** Writes a new row; the batch fails where its key is taken, by a deleted row too. */
  insert<T extends TenantTable>(table: T, row: RowOf<T>): BoundStatement {
    return this.#bound(this.#builder.insert(table as SQLiteTable).values(this.#stamped(table, row)));
  }

  /** Writes a row, or changes the one that has the same key: to the same columns, unless `how` says otherwise. */
  upsert<T extends TenantTable>(
    table: T,
    key: readonly SQLiteColumn[],
    row: RowOf<T>,
    { changes, grows }: UpsertOptions<T> = {},
  ): BoundStatement {
    const insert = this.#builder.insert(table as SQLiteTable).values(this.#stamped(table, row));
    const set = (changes ?? row) as SQLiteUpdateSetSource<SQLiteTable>;
    const setWhere = grows && sql`${grows} <= excluded.${sql.identifier(grows.name)}`;
    return this.#bound(
      insert.onConflictDoUpdate({ target: [table.tenantId, ...key], set, ...(setWhere && { setWhere }) }),
    );
  }

  /** Writes a row, unless there is one with the same key. Its values may be subqueries of this view. */
  insertOnce<T extends TenantTable>(table: T, key: readonly SQLiteColumn[], row: ChangesOf<T>): BoundStatement {
    const insert = this.#builder.insert(table as SQLiteTable).values(this.#stamped(table, row as RowOf<T>));
    return this.#bound(insert.onConflictDoNothing({ target: [table.tenantId, ...key] }));
  }

  /** As an expression: how many rows of the tenant match. */
  rowsOf(table: TenantTable, where: SQL): SQL {
    return sql`(select count(*) from ${table} where ${this.#scope(table, where)})`;
  }

  /** As an expression: the sum of a column over the tenant's rows that match. */
  sumOf(table: TenantTable, column: SQLiteColumn, where: SQL): SQL {
    return sql`(select coalesce(sum(${column}), 0) from ${table} where ${this.#scope(table, where)})`;
  }

  /** Changes the tenant's rows that match. */
  update<T extends TenantTable>(table: T, set: ChangesOf<T>, where: SQL): BoundStatement {
    const query = this.#builder.update(table as SQLiteTable).set(set as SQLiteUpdateSetSource<SQLiteTable>);
    return this.#bound(query.where(this.#scope(table, where)));
  }

  /** Deletes the rows that match, softly: from now on nobody sees them unless asked to. */
  remove(table: TenantTable, where: SQL, nowMs: number): BoundStatement {
    return this.update(table, { deletedAtMs: nowMs, updatedAtMs: nowMs } as ChangesOf<TenantTable>, where);
  }

  /** Brings back deleted rows that match; `deletedAtMs` in `where` keeps those that were deleted for another reason. */
  restore(table: TenantTable, where: SQL, nowMs: number): BoundStatement {
    const set = { deletedAtMs: null, updatedAtMs: nowMs } as ChangesOf<TenantTable>;
    return this.withDeleted().update(table, set, and(isNotNull(table.deletedAtMs), where) as SQL);
  }

  /** Removes for good what was deleted softly at or before that time. */
  purge(table: TenantTable, deletedUntilMs: number): BoundStatement {
    return this.withDeleted().#delete(table, lte(table.deletedAtMs, deletedUntilMs));
  }

  /** Removes rows for good, deleted ones included. For the end of a tenant alone. */
  erase(table: TenantTable, where?: SQL): BoundStatement {
    return this.withDeleted().#delete(table, where);
  }

  /**
   * Runs the statements as one transaction: all of them or none.
   * @returns the number of rows that each changed
   */
  async batch(statements: readonly BoundStatement[]): Promise<number[]> {
    if (statements.length === 0) return [];
    const { tenantId } = this.#context;
    if (statements.some(({ owner }) => owner !== tenantId)) throw new TypeError("a statement of another tenant");
    return this.#database.write(statements.map(Bound.statementOf));
  }

  /** Settles when the database answers. */
  async answers(): Promise<void> {
    await this.count(this.tables.project, sql`1 = 0`);
  }

  #delete(table: TenantTable, where: SQL | undefined): BoundStatement {
    return this.#bound(this.#builder.delete(table as SQLiteTable).where(this.#scope(table, where)));
  }

  #scope(table: TenantTable, where: SQL | undefined): SQL | undefined {
    const own = eq(table.tenantId, this.#context.tenantId);
    return and(own, this.#deletedToo ? undefined : isNull(table.deletedAtMs), where);
  }

  /** Every column is there, so that a table has one text of an insert, whatever a row leaves out. */
  #stamped<T extends TenantTable>(table: T, row: RowOf<T>): T["$inferInsert"] {
    const empty = Object.fromEntries(
      Object.keys(getTableColumns(table as SQLiteTable)).map((column) => [column, null]),
    );
    const given = Object.entries(row).filter(([, value]) => value !== undefined);
    return { ...empty, ...Object.fromEntries(given), tenantId: this.#context.tenantId } as T["$inferInsert"];
  }

  #bound(query: { toSQL(): Statement }): BoundStatement {
    return new Bound(this.#context.tenantId, this.#guarded(query.toSQL()));
  }

  #guarded(statement: Statement): Statement {
    guard.assertScoped(statement, this.#context.tenantId, this.#deletedToo);
    return statement;
  }
}
