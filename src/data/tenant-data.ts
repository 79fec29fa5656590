import { and, count, eq, isNull, type SQL, sql } from "drizzle-orm";
import type { BatchItem } from "drizzle-orm/batch";
import { type DrizzleD1Database, drizzle } from "drizzle-orm/d1";
import type { SQLiteColumn, SQLiteTable } from "drizzle-orm/sqlite-core";
import { assertMinted, type TenantContext } from "../tenancy/context";

/** A table that this handle can serve: it names its tenant and can be deleted softly. */
export type TenantTable = SQLiteTable & { tenantId: SQLiteColumn; deletedAtMs: SQLiteColumn };

/** A row as its callers write it: the tenant is stamped here, never passed in. */
type RowOf<T extends TenantTable> = Omit<T["$inferInsert"], "tenantId">;

/** A statement that is already bound to its tenant; several go into one {@link TenantData.batch}. */
export type BoundStatement = BatchItem<"sqlite"> & { readonly bound?: never };

/**
 * One tenant's view of the system of record. Every statement it makes is filtered by, and stamped with, its tenant,
 * and sees no deleted row unless asked to. There is no other way to the database.
 */
export class TenantData {
  readonly #db: DrizzleD1Database;
  readonly #tenantId: string;
  readonly #deletedToo: boolean;

  constructor(context: TenantContext, database: D1Database, deletedToo = false) {
    assertMinted(context);
    this.#db = drizzle(database);
    this.#tenantId = context.tenantId;
    this.#deletedToo = deletedToo;
    this.withDeleted = () => new TenantData(context, database, true);
  }

  /** The same view, soft-deleted rows included. */
  readonly withDeleted: () => TenantData;

  /** Rows of the tenant that match `where`, at most `limit`. */
  list<T extends TenantTable>(
    table: T,
    options: { readonly where?: SQL | undefined; readonly orderBy?: readonly SQL[]; readonly limit: number },
  ): Promise<T["$inferSelect"][]> {
    const query = this.#db
      .select()
      .from(table as SQLiteTable)
      .where(this.#scope(table, options.where))
      .orderBy(...(options.orderBy ?? []))
      .limit(options.limit);
    return query as unknown as Promise<T["$inferSelect"][]>;
  }

  /** The row that matches, or undefined; a foreign row is no row. */
  async first<T extends TenantTable>(table: T, where: SQL): Promise<T["$inferSelect"] | undefined> {
    return (await this.list(table, { where, limit: 1 })).at(0);
  }

  /** Writes a row, or replaces the columns of the one that has the same key. */
  upsert<T extends TenantTable>(table: T, key: readonly SQLiteColumn[], row: RowOf<T>): BoundStatement {
    const values = { ...row, tenantId: this.#tenantId } as T["$inferInsert"];
    return this.#db
      .insert(table as SQLiteTable)
      .values(values)
      .onConflictDoUpdate({ target: [table.tenantId, ...key], set: row as Record<string, unknown> }) as BoundStatement;
  }

  /** Changes the tenant's rows that match. */
  update<T extends TenantTable>(table: T, set: Partial<RowOf<T>>, where: SQL): BoundStatement {
    return this.#db
      .update(table as SQLiteTable)
      .set(set as Record<string, unknown>)
      .where(this.#scope(table, where)) as BoundStatement;
  }

  /** Runs the statements as one transaction: all of them or none. */
  async batch(statements: readonly BoundStatement[]): Promise<void> {
    const [first, ...rest] = statements;
    if (first) await this.#db.batch([first, ...rest]);
  }

  /** How many rows of the tenant match. */
  async count(table: TenantTable, where?: SQL): Promise<number> {
    const rows = await this.#db
      .select({ rows: count() })
      .from(table as SQLiteTable)
      .where(this.#scope(table, where));
    return rows.at(0)?.rows ?? 0;
  }

  /** One column of the rows that match, as text. */
  async names(table: TenantTable, column: SQLiteColumn, limit: number, where?: SQL): Promise<string[]> {
    const rows = await this.#db
      .select({ name: column })
      .from(table as SQLiteTable)
      .where(this.#scope(table, where))
      .limit(limit);
    return rows.map(({ name }) => String(name));
  }

  /** Removes rows for good, not softly. For the end of a tenant alone. */
  async erase(table: TenantTable, where?: SQL): Promise<void> {
    await this.#db.delete(table as SQLiteTable).where(this.#scope(table, where));
  }

  /** Settles when the database answers. */
  async answers(): Promise<void> {
    await this.#db.run(sql`select 1`);
  }

  #scope(table: TenantTable, where: SQL | undefined): SQL | undefined {
    const own = eq(table.tenantId, this.#tenantId);
    return and(own, this.#deletedToo ? undefined : isNull(table.deletedAtMs), where);
  }
}

/** A condition for those who may not know the query language. */
export const columnIs = (column: SQLiteColumn, value: string): SQL => eq(column, value);
