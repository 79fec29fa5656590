// Writes the next Postgres migration. The generator puts "public" before what a foreign key refers to; our tables lie
// in the pool's schema or a tenant's own, and the search path says which.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const ROOT = join(import.meta.dirname, "..");
const FOLDER = join(ROOT, "migrations", "postgres");
const generator = join(ROOT, "node_modules", "drizzle-kit", "bin.cjs");
const args = [generator, "generate", "--config", "drizzle.postgres.config.ts", ...process.argv.slice(2)];
const { status } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: "inherit" });
for (const file of readdirSync(FOLDER).filter((name) => /^\d{4}_.*\.sql$/.test(name))) {
  const text = readFileSync(join(FOLDER, file), "utf8");
  if (text.includes('"public".')) writeFileSync(join(FOLDER, file), text.replaceAll('"public".', ""));
}
process.exit(status ?? 1);
