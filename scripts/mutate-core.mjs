// npm run mutate:core: Stryker on the pure core, by the core's own unit tests.
//
//   npm run mutate:core                          all of src/core; hours, since its properties take long
//   npm run mutate:core -- prices plans          these files of it
//
// Stryker is not among the dependencies, which it would double: it is installed beside a copy of the tree, once. What
// was tried is kept there, so that a later run tries only what has changed.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ensureToolchain, fail, ROOT } from "./toolchain.mjs";
import { copyTree } from "./tree-copy.mjs";

await ensureToolchain();
const { spawnSync } = await import("node:child_process");

const VERSION = "10.1.1";
const WORK = join(ROOT, ".tenantry", "stryker");
const files = process.argv.slice(2);

mkdirSync(WORK, { recursive: true });
const installed = join(WORK, "node_modules", "@stryker-mutator", "core", "package.json");
if (!existsSync(installed) || JSON.parse(readFileSync(installed, "utf8")).version !== VERSION) {
  writeFileSync(join(WORK, "package.json"), '{ "private": true }\n');
  const packages = ["core", "vitest-runner"].map((name) => `@stryker-mutator/${name}@${VERSION}`);
  // Vitest itself is found in the repository, above.
  const args = ["install", "--no-audit", "--no-fund", "--legacy-peer-deps", "--loglevel=error", ...packages];
  if (spawnSync("npm", args, { cwd: WORK, stdio: "inherit", shell: process.platform === "win32" }).status !== 0) {
    fail("Stryker could not be installed; see above.");
  }
}

const tree = copyTree(join(WORK, "tree"));
const tests = files.length === 0 ? ["test/unit/core/**/*.test.ts"] : files.map(testsOf);
writeFileSync(
  join(tree, "vitest.core.config.mjs"),
  `export default { test: { include: ${JSON.stringify(tests)}, testTimeout: 300_000 } };\n`,
);
writeFileSync(
  join(tree, "stryker.config.json"),
  JSON.stringify({
    testRunner: "vitest",
    plugins: [join(WORK, "node_modules", "@stryker-mutator", "vitest-runner", "dist", "src", "index.js")],
    vitest: { configFile: "vitest.core.config.mjs" },
    mutate: files.length === 0 ? ["src/core/**/*.ts"] : files.map((file) => `src/core/${file}.ts`),
    ignorePatterns: ["local-ai", "bench", "migrations", "docs", "durable-objects", "test/e2e", "dist"],
    // TypeScript 7 has no programmatic interface that Stryker could ask; Vitest strips types by itself.
    tsconfigFile: "none.json",
    disableTypeChecks: false,
    reporters: ["clear-text", "progress-append-only"],
    concurrency: 1,
    ignoreStatic: true,
    incremental: true,
    incrementalFile: join(WORK, "incremental.json"),
    tempDirName: ".tenantry/sandbox",
  }),
);
const bin = join(WORK, "node_modules", "@stryker-mutator", "core", "bin", "stryker.js");
const { status } = spawnSync(process.execPath, [bin, "run"], { cwd: tree, stdio: "inherit" });
process.exit(status ?? 1);

/** The test of a file of the core has its name; the policy's is that of the plans. */
function testsOf(file) {
  const test = `test/unit/core/${file === "policy" ? "plans" : file}.test.ts`;
  return existsSync(join(ROOT, test)) ? test : fail(`${test} does not exist`);
}
