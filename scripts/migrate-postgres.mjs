// npm run migrate:postgres: brings a Postgres up to date, its pool and every tenant's own schema.
import { ensureToolchain, fail } from "./toolchain.mjs";

await ensureToolchain();
const { default: process } = await import("node:process");
const { APP_ROLE, migratePostgres } = await import("./postgres-migrations.mjs");

const { MIGRATION_DATABASE_URL: url, APP_DATABASE_PASSWORD: appPassword } = process.env;
if (!url) {
  fail(`Set MIGRATION_DATABASE_URL to the direct connection of the tables' owner (not Hyperdrive, no transaction pool),
and APP_DATABASE_PASSWORD the first time: the password of ${APP_ROLE}, the role that Hyperdrive connects as.`);
}
try {
  const applied = await migratePostgres({ url, appPassword, report: (line) => console.log(line) });
  console.log(applied.length === 0 ? "Up to date." : `${applied.length} steps applied.`);
} catch (error) {
  fail(`Nothing further was applied: ${error.message}`);
}
