import directoryInit from "../migrations/directory/0000_init.sql";
import { MIGRATIONS } from "../src/data/migrations";

/** Every migration file in order; a test compares the lists with the folders. */
export const LOCAL_MIGRATIONS = {
  DB: MIGRATIONS,
  DIRECTORY: [{ name: "0000_init.sql", sql: directoryInit }],
} as const;

/** The table that `wrangler d1 migrations` keeps its books in, so that both can be used on one folder. */
const BOOKS = `create table if not exists d1_migrations (id integer primary key autoincrement, name text unique,
  applied_at timestamp default current_timestamp not null)`;

const migrated = new WeakSet<object>();

/** Applies what a local database has not seen yet. Production does this at deploy time, with wrangler. */
export async function migrateLocalDatabases(env: { readonly DB: D1Database; readonly DIRECTORY: D1Database }) {
  if (migrated.has(env)) return;
  await migrate(env.DB, LOCAL_MIGRATIONS.DB);
  await migrate(env.DIRECTORY, LOCAL_MIGRATIONS.DIRECTORY);
  migrated.add(env);
}

async function migrate(database: D1Database, migrations: readonly { readonly name: string; readonly sql: string }[]) {
  await database.prepare(BOOKS).run();
  const { results } = await database.prepare("select name from d1_migrations").all<{ name: string }>();
  const applied = new Set(results.map((row) => row.name));
  for (const { name, sql } of migrations) {
    if (applied.has(name)) continue;
    const statements = sql.split("--> statement-breakpoint").map((statement) => database.prepare(statement));
    const booked = database.prepare("insert into d1_migrations (name) values (?)").bind(name);
    try {
      await database.batch([...statements, booked]);
    } catch (error) {
      // Two first requests at once: the one that lost finds the other's entry.
      const known = await database.prepare("select 1 from d1_migrations where name = ?").bind(name).first();
      if (!known) throw error;
    }
  }
}
