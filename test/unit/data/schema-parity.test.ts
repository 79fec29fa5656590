import { readFileSync } from "node:fs";
import { join } from "node:path";
import { getTableColumns, getTableName } from "drizzle-orm";
import { type PgTable, getTableConfig as postgresConfig } from "drizzle-orm/pg-core";
import { type SQLiteTable, getTableConfig as sqliteConfig } from "drizzle-orm/sqlite-core";
import { describe, expect, it } from "vitest";
import { OPERATOR_TABLES, TENANT_TABLES } from "../../../src/data/ownership";
import * as sqliteSchema from "../../../src/data/schema";
import * as postgresSchema from "../../../src/data/schema-postgres";

const sqlite = { ...sqliteSchema };
const postgres = { ...postgresSchema };

type Key = keyof typeof sqlite;
const KEYS = Object.keys(sqlite) as Key[];

/** What both dialects must say of a table in the same words: properties, columns, kinds of values, keys, references. */
function describeColumns(table: SQLiteTable | PgTable) {
  return Object.entries(getTableColumns(table)).map(([property, column]) => ({
    property,
    name: column.name,
    kind: column.dataType,
    notNull: column.notNull,
    hasDefault: column.hasDefault,
    isUnique: column.isUnique,
  }));
}

type Config = ReturnType<typeof sqliteConfig> | ReturnType<typeof postgresConfig>;
function describeKeys({ primaryKeys, indexes, foreignKeys, uniqueConstraints }: Config) {
  const names = (columns: readonly object[]) => columns.map((column) => (column as { name: string }).name);
  return {
    primaryKeys: primaryKeys.map(({ columns }) => names(columns)),
    indexes: indexes.map(({ config }) => ({
      name: config.name,
      unique: config.unique ?? false,
      columns: names(config.columns),
      isPartial: config.where !== undefined,
    })),
    foreignKeys: foreignKeys.map((key) => {
      const { columns, foreignColumns, foreignTable } = key.reference();
      return { columns: names(columns), table: getTableName(foreignTable), referenced: names(foreignColumns) };
    }),
    uniqueConstraints: uniqueConstraints.length,
  };
}

describe("the two dialects of the schema", () => {
  it("have the same tables", () => {
    expect(Object.keys(postgres).sort(), "add the table to both schemas").toEqual(KEYS.sort());
  });

  it.each(KEYS)("say the same of %s", (key) => {
    expect(getTableName(postgres[key])).toBe(getTableName(sqlite[key]));
    expect(describeColumns(postgres[key])).toEqual(describeColumns(sqlite[key]));
    expect(describeKeys(postgresConfig(postgres[key]))).toEqual(describeKeys(sqliteConfig(sqlite[key])));
    expect(describeKeys(sqliteConfig(sqlite[key])).uniqueConstraints, "use a partial unique index instead").toBe(0);
  });

  it.each(KEYS)("have %s in the latest migration, column by column", (key) => {
    for (const [dialect, name] of [
      ["d1", getTableName(sqlite[key])],
      ["postgres", `public.${getTableName(postgres[key])}`],
    ] as const) {
      const folder = join(import.meta.dirname, "../../../migrations", dialect, "meta");
      const journal = JSON.parse(readFileSync(join(folder, "_journal.json"), "utf8")) as { entries: { idx: number }[] };
      const latest = String(journal.entries.at(-1)?.idx).padStart(4, "0");
      const snapshot = JSON.parse(readFileSync(join(folder, `${latest}_snapshot.json`), "utf8")) as {
        tables: Record<string, { columns: Record<string, { notNull: boolean }> }>;
      };
      const migrated = Object.entries(snapshot.tables[name]?.columns ?? {}).map(([column, { notNull }]) => [
        column,
        notNull,
      ]);
      const declared = Object.values(getTableColumns(sqlite[key])).map((column) => [column.name, column.notNull]);
      expect(migrated.sort(), "run `npm run generate`").toEqual(declared.sort());
    }
  });
});

describe("every table", () => {
  it("belongs to the tenant or to the operator, so that counting, erasing and purging reach it", () => {
    expect(Object.keys({ ...TENANT_TABLES, ...OPERATOR_TABLES }).sort(), "add it to src/data/ownership.ts").toEqual(
      KEYS.sort(),
    );
  });

  it("is removed before what it refers to", () => {
    const order: string[] = Object.keys(TENANT_TABLES).map((key) => getTableName(sqlite[key as Key]));
    for (const key of KEYS) {
      for (const { table } of describeKeys(sqliteConfig(sqlite[key])).foreignKeys) {
        expect(order.indexOf(getTableName(sqlite[key])), `${key} before ${table}`).toBeLessThan(order.indexOf(table));
      }
    }
  });
});
