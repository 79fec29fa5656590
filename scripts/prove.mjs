// npm run prove: the proofs that take long, each in its long form. `npm test` holds a short form of every one.
//
//   npm run prove                 all of them; those that were green at this commit are not run again
//   npm run prove -- storm        those whose path contains the text
//   npm run prove -- --fresh      those that are green already, too
//
// Each result is written as soon as it is there: bench/results/proofs.json, and a section of docs/proof.md.
import { ensureToolchain, ROOT } from "./toolchain.mjs";

await ensureToolchain();
const { execFileSync, spawnSync } = await import("node:child_process");
const { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = await import("node:fs");
const { cpus, tmpdir } = await import("node:os");
const { join } = await import("node:path");
const { default: process } = await import("node:process");
const { withSection } = await import("./mutations.mjs");

const RESULTS = join(ROOT, "bench", "results", "proofs.json");
const PROOF = join(ROOT, "docs", "proof.md");
const LONG = [
  { promise: "no generated attack passes the statement guard", test: "test/unit/data/guard-attack.test.ts" },
  { promise: "the guard refuses every statement that is not scoped", test: "test/unit/data/statement-guard.test.ts" },
  {
    promise: "no body costs more than 50 ms of CPU per MiB before something is reserved for it",
    test: "test/unit/http/work-per-byte.test.ts",
  },
  {
    promise:
      "10,000 calls over 16 isolates with three deaths of the machine: nothing held, every limit kept, each call billed once",
    test: "test/e2e/storm.test.ts",
  },
  { promise: "two processes on one store agree", test: "test/e2e/two-processes.test.ts" },
];

const isFresh = process.argv.includes("--fresh");
const filters = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const commit = commitOf();
const results = new Map(
  (existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, "utf8")) : []).map((one) => [one.test, one]),
);
let isGreen = true;
for (const { promise, test } of LONG) {
  if (filters.length > 0 && !filters.some((filter) => test.includes(filter))) continue;
  const known = results.get(test);
  if (!isFresh && commit !== null && known?.commit === commit && known.failed === 0) {
    console.log(`${test} was green at this commit already`);
    continue;
  }
  const result = prove(test);
  results.set(test, { promise, test, commit, ...result });
  isGreen &&= result.failed === 0;
  write();
}
process.exit(isGreen ? 0 : 1);

function prove(test) {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-prove-"));
  const json = join(folder, "vitest.json");
  const args = [join(ROOT, "node_modules/vitest/vitest.mjs"), "run", "--reporter=default", "--reporter=json"];
  const startedAtMs = Date.now();
  const env = { ...process.env, PROVE: "1" };
  const { status } = spawnSync(process.execPath, [...args, `--outputFile.json=${json}`, test], {
    cwd: ROOT,
    stdio: "inherit",
    env,
  });
  const seconds = Math.round((Date.now() - startedAtMs) / 1_000);
  const { numPassedTests: passed = 0, numFailedTests: failed = 0 } = existsSync(json)
    ? JSON.parse(readFileSync(json, "utf8"))
    : {};
  rmSync(folder, { recursive: true, force: true });
  return {
    passed,
    failed: status === 0 ? failed : Math.max(1, failed),
    seconds,
    date: new Date().toISOString().slice(0, 10),
  };
}

function write() {
  writeFileSync(RESULTS, `${JSON.stringify([...results.values()], null, 2)}\n`);
  const lines = LONG.map(({ promise, test }) => {
    const result = results.get(test);
    const figure = result
      ? `${result.failed === 0 ? `${result.passed} passed` : `${result.failed} failed`} | ${result.seconds} s | ${result.date}`
      : "not run | |";
    return `| ${promise} | \`${test}\` | ${figure} |`;
  });
  const body = [
    `On ${cpus().length} cores, Node ${process.versions.node}.`,
    "",
    "| promise | test in its long form | result | took | on |",
    "| --- | --- | --- | --- | --- |",
    ...lines,
  ];
  writeFileSync(PROOF, withSection(readFileSync(PROOF, "utf8"), "long proofs", body.join("\n")));
}

/** Of a tree without changes; null where there are some, so that nothing is taken over. */
function commitOf() {
  try {
    const git = (...args) => execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim();
    const changed = git("status", "--porcelain", "--", ".", ":!docs/proof.md", ":!bench/results");
    return changed === "" ? git("rev-parse", "HEAD") : null;
  } catch {
    return null;
  }
}
