// npm test: types, lint, every test, in the order of their speed. Ends with "N passed, N failed".
import { ensureToolchain, ROOT } from "./toolchain.mjs";

await ensureToolchain();
const { spawnSync } = await import("node:child_process");
const { mkdtempSync, readFileSync, rmSync } = await import("node:fs");
const { tmpdir } = await import("node:os");
const { join } = await import("node:path");
const { default: process } = await import("node:process");

const filters = process.argv.slice(2);
const count = { passed: 0, failed: 0 };
const report = mkdtempSync(join(tmpdir(), "tenantry-test-"));
const json = join(report, "vitest.json");

if (filters.length === 0) {
  step("types", ["typescript/bin/tsc", "-p", ".", "--noEmit"]);
  step("lint", ["@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."]);
}
runTests();
rmSync(report, { recursive: true, force: true });
console.log(`${count.passed} passed, ${count.failed} failed`);
process.exit(count.failed === 0 ? 0 : 1);

function run([script, ...args]) {
  const bin = join(ROOT, "node_modules", script);
  return spawnSync(process.execPath, [bin, ...args], { cwd: ROOT, stdio: "inherit" }).status === 0;
}

function step(name, command) {
  const startedAtMs = Date.now();
  const isGreen = run(command);
  count[isGreen ? "passed" : "failed"]++;
  console.log(`${isGreen ? "✓" : "✗"} ${name} (${((Date.now() - startedAtMs) / 1000).toFixed(1)} s)`);
}

function runTests() {
  const isGreen = run([
    "vitest/vitest.mjs",
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${json}`,
    ...filters,
  ]);
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(json, "utf8"));
    // A file that does not even load has no tests to fail.
    const broken = testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0).length;
    count.passed += numPassedTests;
    count.failed += numFailedTests + broken;
    if (!isGreen && numFailedTests + broken === 0) count.failed++; // an error outside of any test
  } catch {
    count.failed++;
  }
}
