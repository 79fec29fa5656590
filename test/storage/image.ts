import type { Platform } from "../isolates";

type Row = Record<string, string | number | null>;
interface Tables {
  /** The statements that made the tables, and their rows. */
  readonly schema: readonly string[];
  readonly rows: Readonly<Record<string, readonly Row[]>>;
}

/** Everything that a platform has stored of one tenant and of its operator, as it lies there. */
export interface StorageImage {
  readonly recordedBy: string;
  readonly tenantId: string;
  readonly adminKey: string;
  readonly tenantKey: string;
  /** By object name. */
  readonly gates: Readonly<Record<string, Tables>>;
  readonly databases: Readonly<Record<"DB" | "DIRECTORY", Tables>>;
  /** Migrations that DB had seen; the first alone where it is missing. */
  readonly migrations?: readonly string[];
  /** R2 objects, base64 by key. */
  readonly objects: Readonly<Record<string, string>>;
}

const OWNER = "isolate-0";
type Exec = (sql: string, ...values: unknown[]) => Promise<Row[]>;

async function gateExec({ miniflare }: Platform, name: string): Promise<Exec> {
  const storage = await miniflare.unsafeGetDurableObjectStorage(OWNER, "TenantGate", { name });
  return (sql, ...values) => storage.exec<Row>(sql, ...(values as string[]));
}

async function databaseExec({ miniflare }: Platform, binding: "DB" | "DIRECTORY"): Promise<Exec> {
  const database = await miniflare.getD1Database(binding, OWNER);
  return async (sql, ...values) =>
    (
      await database
        .prepare(sql)
        .bind(...values)
        .all<Row>()
    ).results;
}

const TABLES = `select name, sql from sqlite_master where sql is not null and name not like 'sqlite\\_%' escape '\\'
  and name not like '\\_cf%' escape '\\' and name not in ('d1_migrations', '__miniflare_do_name') order by type desc, rowid`;

async function dump(exec: Exec): Promise<Tables> {
  const objects = (await exec(TABLES)) as { name: string; sql: string }[];
  const rows: Record<string, Row[]> = {};
  for (const { name, sql } of objects)
    if (/^create table/i.test(sql)) rows[name] = await exec(`select * from "${name}"`);
  return { schema: objects.map(({ sql }) => sql), rows };
}

/** Replaces what is there by what was recorded. */
async function load(exec: Exec, image: Tables): Promise<void> {
  const present = (await exec(TABLES)) as { name: string; sql: string }[];
  const tables = present.filter(({ sql }) => /^create table/i.test(sql)).map(({ name }) => name);
  // Dependants first: foreign keys are on.
  for (const name of tables.sort((a, b) => Number(b === "api_key") - Number(a === "api_key")))
    await exec(`drop table "${name}"`);
  for (const sql of image.schema) await exec(sql);
  const names = Object.keys(image.rows).sort((a, b) => Number(a === "api_key") - Number(b === "api_key"));
  for (const name of names) {
    for (const row of image.rows[name] ?? []) {
      const columns = Object.keys(row);
      const places = columns.map(() => "?").join(", ");
      await exec(
        `insert into "${name}" (${columns.map((c) => `"${c}"`).join(", ")}) values (${places})`,
        ...Object.values(row),
      );
    }
  }
}

export async function recordStorage(
  platform: Platform,
  who: Pick<StorageImage, "recordedBy" | "tenantId" | "adminKey" | "tenantKey">,
): Promise<StorageImage> {
  const gates: Record<string, Tables> = {};
  for (const name of ["global/platform", `global/${who.tenantId}`])
    gates[name] = await dump(await gateExec(platform, name));
  const databases = {
    DB: await dump(await databaseExec(platform, "DB")),
    DIRECTORY: await dump(await databaseExec(platform, "DIRECTORY")),
  };
  const objects: Record<string, string> = {};
  const bucket = await platform.miniflare.getR2Bucket("ARTIFACTS", OWNER);
  for (const { key } of (await bucket.list()).objects) {
    const object = await bucket.get(key);
    if (object) objects[key] = Buffer.from(await object.arrayBuffer()).toString("base64");
  }
  const seen = await (await databaseExec(platform, "DB"))("select name from d1_migrations order by name");
  return { ...who, gates, databases, migrations: seen.map(({ name }) => String(name)), objects };
}

/** Puts an image under a platform, whose objects must then be started anew to see it. */
export async function restoreStorage(platform: Platform, image: StorageImage): Promise<void> {
  for (const [name, tables] of Object.entries(image.gates)) await load(await gateExec(platform, name), tables);
  for (const binding of ["DB", "DIRECTORY"] as const)
    await load(await databaseExec(platform, binding), image.databases[binding]);
  const books = await databaseExec(platform, "DB");
  await books("delete from d1_migrations");
  for (const name of image.migrations ?? ["0000_init.sql"]) {
    await books("insert into d1_migrations (name) values (?)", name);
  }
  const bucket = await platform.miniflare.getR2Bucket("ARTIFACTS", OWNER);
  for (const [key, bytes] of Object.entries(image.objects)) await bucket.put(key, Buffer.from(bytes, "base64"));
}
