// npm run prove: the proofs that take long, each in its long form. `npm test` holds a short form of every one.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";

const LONG = [
  "test/unit/data/guard-attack",
  "test/unit/data/statement-guard",
  "test/unit/http/work-per-byte",
  "test/e2e/storm",
  "test/e2e/two-processes",
];
const args = [join(import.meta.dirname, "test.mjs"), ...LONG, ...process.argv.slice(2)];
const { status } = spawnSync(process.execPath, args, { stdio: "inherit", env: { ...process.env, PROVE: "1" } });
process.exit(status ?? 1);
