import type { CatalogueTable } from "./rules";

type Rows = (sql: string) => Promise<Record<string, unknown>[]>;

/** Every table of a live SQLite database, by `sqlite_master` and its PRAGMAs. */
export async function sqliteCatalogue(rows: Rows): Promise<CatalogueTable[]> {
  const tables = await rows("select name from sqlite_master where type = 'table'");
  const names = tables.map(({ name }) => String(name)).filter((name) => !name.startsWith("_cf_"));
  return Promise.all(names.map((name) => tableOf(name, rows)));
}

async function tableOf(name: string, rows: Rows): Promise<CatalogueTable> {
  const columns = await rows(`pragma table_info("${name}")`);
  const indexes = await rows(`pragma index_list("${name}")`);
  const references = await rows(`pragma foreign_key_list("${name}")`);
  const key = columns.filter(({ pk }) => Number(pk) > 0).sort((a, b) => Number(a.pk) - Number(b.pk));
  const groups = Map.groupBy(references, ({ id }) => id);
  return {
    name,
    columns: columns.map((column) => ({ name: String(column.name), notNull: column.notnull === 1 })),
    primaryKey: key.map((column) => String(column.name)),
    indexes: await Promise.all(
      indexes
        .filter(({ origin }) => origin !== "pk")
        .map(async (index) => ({
          name: String(index.name),
          unique: index.unique === 1,
          columns: (await rows(`pragma index_info("${index.name}")`)).map((column) => String(column.name)),
          where: await conditionOf(String(index.name), rows),
        })),
    ),
    foreignKeys: [...groups.values()].map((parts) => ({
      table: String(parts[0]?.table),
      columns: parts.map(({ from }) => String(from)),
      referenced: parts.map(({ to }) => String(to)),
    })),
  };
}

async function conditionOf(index: string, rows: Rows): Promise<string | null> {
  const [row] = await rows(`select sql from sqlite_master where type = 'index' and name = '${index}'`);
  const text = String(row?.sql ?? "");
  const at = text.toLowerCase().lastIndexOf(" where ");
  return at < 0
    ? null
    : text
        .slice(at + 7)
        .replaceAll(/["`]/g, "")
        .replace(/^\w+\./, "")
        .toLowerCase();
}
