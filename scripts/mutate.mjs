// npm run mutate: breaks the product on purpose, one fault at a time, and expects the tests that guard it to turn red.
//
//   npm run mutate                       every mutation of test/mutations/*.ts
//   npm run mutate -- journal            those of a part; or whose promise or file contains the text
//   npm run mutate -- --jobs 2           so many at a time
//   npm run mutate -- --fresh            also those whose file and tests are as they were when they were last run
//
// Works on copies of the tree below .tenantry/mutate, never on the tree itself. What is done is kept at once, so a run
// that was cut off goes on where it was. Writes bench/results/mutations.json and a section of docs/proof.md.
import { ensureToolchain, fail, ROOT } from "./toolchain.mjs";
import { copyTree } from "./tree-copy.mjs";

await ensureToolchain();
const { spawn } = await import("node:child_process");
const { createHash } = await import("node:crypto");
const { once } = await import("node:events");
const fs = await import("node:fs");
const { cpus } = await import("node:os");
const { basename, dirname, join } = await import("node:path");
const { default: process } = await import("node:process");
const { pathToFileURL } = await import("node:url");
const { parseArgs } = await import("node:util");
const { transform } = await import("esbuild");
const { applyMutation, isEnough, isSelected, proofSection, REQUIRED_PERCENT, remainingSeconds, scores, withSection } =
  await import("./mutations.mjs");

const WORK = join(ROOT, ".tenantry", "mutate");
const RESULTS = join(ROOT, "bench", "results", "mutations.json");
const PROOF = join(ROOT, "docs", "proof.md");
/** A mutated run that takes so many times as long as the control run, and a minute, hangs. */
const PATIENCE = 5;

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { jobs: { type: "string", default: "1" }, fresh: { type: "boolean", default: false } },
});
const jobs = Math.max(1, Math.min(Number(options.jobs) || 1, cpus().length));

const mutations = await readMutations();
const chosen = mutations.filter((mutation) => isSelected(mutation, filters));
if (chosen.length === 0) fail("No mutation matches.");
/** By digest; what was run before is taken over while nothing that it depends on has changed. */
const known = new Map(readResults().map((result) => [result.digest, result]));
const pending = chosen.filter(({ digest }) => options.fresh || !known.has(digest));
if (chosen.length > pending.length)
  console.log(`${chosen.length - pending.length} are as they were when they were last run.`);

removeLeftTrees();
const controls = new Map();
const secondsOf = new Map();
const children = new Set();
const startedAtMs = Date.now();
let done = 0;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop(130));

// Fast ones first, and those of one set of tests together.
const queue = [...pending].sort(
  (one, other) => costOf(one) - costOf(other) || testsOf(one).localeCompare(testsOf(other)),
);
await Promise.all(
  Array.from({ length: Math.min(jobs, queue.length) }, (_, index) =>
    work(copyTree(join(WORK, `${process.pid}-${index}`))),
  ),
);
write();
report();

async function work(tree) {
  for (let mutation = queue.shift(); mutation; mutation = queue.shift()) {
    const begunAtMs = Date.now();
    const { outcome, detail } = await tryOut(tree, mutation);
    const seconds = Math.round((Date.now() - begunAtMs) / 100) / 10;
    if (outcome === "caught" || outcome === "survived") secondsOf.set(testsOf(mutation), seconds);
    known.set(mutation.digest, { ...mutation, outcome, detail, seconds });
    done++;
    write();
    const left = remainingSeconds(queue.map(testsOf), secondsOf) / jobs;
    const note = outcome === "caught" ? "" : ` (${detail})`;
    console.log(
      `[${done}/${pending.length}, about ${Math.ceil(left / 60)} min left] ${outcome}: ${mutation.part}: ` +
        `${mutation.promise} — ${mutation.file}${note}`,
    );
  }
}

/** One mutation on a copy of the tree, which is afterwards as it was. */
async function tryOut(tree, mutation) {
  const path = join(tree, mutation.file);
  const missing = [mutation.file, ...mutation.tests].find((file) => !fs.existsSync(join(tree, file)));
  if (missing) return { outcome: "stale", detail: `${missing} does not exist` };
  if (mutation.tests.length === 0) return { outcome: "invalid", detail: "it names no tests" };
  const original = fs.readFileSync(path, "utf8");
  const applied = applyMutation(original, mutation);
  if ("stale" in applied) return { outcome: "stale", detail: applied.stale };
  const syntaxError = await syntaxErrorOf(mutation.file, applied.text);
  if (syntaxError) return { outcome: "invalid", detail: syntaxError };
  const control = await controlOf(tree, mutation);
  if (!control.isGreen) return { outcome: "red without it", detail: control.detail };
  try {
    fs.writeFileSync(path, applied.text);
    const { isGreen, detail } = await runTests(tree, mutation.tests, 60_000 + PATIENCE * control.ms);
    return { outcome: isGreen ? "survived" : "caught", detail };
  } finally {
    fs.writeFileSync(path, original);
  }
}

/** The tests on the tree as it is; once for each set of them. */
function controlOf(tree, mutation) {
  const tests = testsOf(mutation);
  const control = controls.get(tests) ?? runTests(tree, mutation.tests, 30 * 60_000);
  controls.set(tests, control);
  return control;
}

/** @returns whether all is green; else the first test that is not, or what happened to the run */
async function runTests(tree, tests, patienceMs) {
  const startedAtMs = Date.now();
  const json = join(tree, ".tenantry", "vitest.json");
  fs.rmSync(json, { force: true });
  const vitest = join(tree, "node_modules", "vitest", "vitest.mjs");
  const args = [vitest, "run", "--bail=1", "--reporter=json", `--outputFile.json=${json}`, ...tests];
  const child = spawn(process.execPath, args, { cwd: tree, stdio: "ignore", detached: true });
  children.add(child);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    endGroup(child);
  }, patienceMs);
  const [code] = await once(child, "exit");
  clearTimeout(timer);
  children.delete(child);
  endGroup(child); // servers of a run that did not end by itself
  const ms = Date.now() - startedAtMs;
  if (timedOut) return { isGreen: false, ms, detail: `still running after ${Math.round(ms / 1000)} s` };
  const read = fs.existsSync(json) ? JSON.parse(fs.readFileSync(json, "utf8")) : undefined;
  if (!read || (read.numPassedTests === 0 && read.numFailedTests === 0 && code === 0)) {
    return { isGreen: false, ms, detail: "the run ended without a report" };
  }
  const failed = read.testResults.flatMap(({ name, message, assertionResults }) => {
    const test = assertionResults.find(({ status }) => status === "failed");
    if (test) return [test.fullName];
    return message ? [`${basename(name)}: ${message.split("\n")[0]}`] : [];
  });
  return { isGreen: code === 0, ms, detail: failed[0] ?? (code === 0 ? "" : "an error outside of any test") };
}

function endGroup(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // nobody is left
  }
}

/** Those of runs that were cut off; another run that is under way keeps its own. */
function removeLeftTrees() {
  for (const name of fs.existsSync(WORK) ? fs.readdirSync(WORK) : []) {
    try {
      process.kill(Number.parseInt(name, 10), 0);
    } catch {
      fs.rmSync(join(WORK, name), { recursive: true, force: true });
    }
  }
}

function stop(code) {
  for (const child of children) endGroup(child);
  process.exit(code);
}

/** Vitest does not check types, so a text that does not even parse must be found here. */
async function syntaxErrorOf(file, text) {
  if (!/\.(ts|mjs|js)$/.test(file)) return undefined;
  try {
    await transform(text, { loader: file.endsWith(".ts") ? "ts" : "js", logLevel: "silent" });
    return undefined;
  } catch (error) {
    return `it does not parse: ${error.errors?.[0]?.text ?? error}`;
  }
}

async function readMutations() {
  const folder = join(ROOT, "test", "mutations");
  const all = [];
  for (const file of fs
    .readdirSync(folder)
    .filter((name) => name.endsWith(".ts") && name !== "mutation.ts")
    .sort()) {
    const { mutations } = await import(pathToFileURL(join(folder, file)).href);
    const part = basename(file, ".ts");
    for (const mutation of mutations ?? []) all.push({ part, ...mutation, digest: digestOf(mutation) });
  }
  return all;
}

function digestOf(mutation) {
  const hash = createHash("sha256").update(JSON.stringify(mutation));
  for (const file of [mutation.file, ...mutation.tests]) {
    const path = join(ROOT, file);
    hash.update(fs.existsSync(path) ? fs.readFileSync(path) : "missing");
  }
  return hash.digest("hex").slice(0, 16);
}

function testsOf(mutation) {
  return [...mutation.tests].sort().join(" ");
}

/** How long tests take, by what they need: nothing, workerd or a Postgres, the built platform. */
function costOf({ tests }) {
  const rank = (test) => (test.startsWith("test/e2e/") ? 2 : test.startsWith("test/unit/") ? 0 : 1);
  return Math.max(0, ...tests.map(rank));
}

function readResults() {
  return fs.existsSync(RESULTS) ? JSON.parse(fs.readFileSync(RESULTS, "utf8")).results : [];
}

/** What there is of the mutations that exist now. */
function current() {
  return mutations.flatMap(({ digest }) => known.get(digest) ?? []);
}

function write() {
  const machine = `${cpus().length} cores, Node ${process.versions.node}`;
  const run = { date: new Date().toISOString().slice(0, 10), machine };
  const minutes = Math.round((Date.now() - startedAtMs) / 6_000) / 10;
  const json = { ...run, minutes, scores: scores(current()), results: current() };
  fs.mkdirSync(dirname(RESULTS), { recursive: true });
  fs.writeFileSync(RESULTS, `${JSON.stringify(json, null, 2)}\n`);
  const document = fs.existsSync(PROOF) ? fs.readFileSync(PROOF, "utf8") : "# Proof\n";
  fs.writeFileSync(PROOF, withSection(document, "mutations", proofSection(current(), run)));
}

function report() {
  const parts = new Set(chosen.map(({ part }) => part));
  const of = scores(chosen.flatMap(({ digest }) => known.get(digest) ?? [])).filter(({ part }) => parts.has(part));
  for (const result of chosen.map(({ digest }) => known.get(digest))) {
    if (result && result.outcome !== "caught")
      console.log(
        `${result.outcome}: ${result.part}: ${result.promise} — ${result.file}: ${result.find.split("\n")[0]}`,
      );
  }
  for (const { part, caught, all, percent } of of)
    console.log(`${part}: ${caught} of ${all} caught (${percent.toFixed(1)} %)`);
  if (!isEnough(of)) console.log(`Less than ${REQUIRED_PERCENT} %, so this run has failed.`);
  process.exit(isEnough(of) ? 0 : 1);
}
