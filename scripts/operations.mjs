// npm run operations: counts what calls cost on the running platform and writes the README's table of it.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";

const args = [join(import.meta.dirname, "test.mjs"), "test/e2e/operations"];
const env = { ...process.env, UPDATE_README: "1" };
process.exit(spawnSync(process.execPath, args, { stdio: "inherit", env }).status ?? 1);
