// Plain JavaScript that any Node from 20 on runs without dependencies: it installs what is missing and goes on with
// the Node that the project carries.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

export const ROOT = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");
const BIN = join(ROOT, "node_modules", ".bin");
/** The oldest Node that the pinned toolchain runs on. */
const NEEDED = [22, 12];

/** Makes sure that dependencies are installed and that this script runs on a Node that the toolchain accepts. */
export async function ensureToolchain() {
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20) fail(`Node ${process.versions.node} is too old: install Node 20 or newer.`);
  if (isInstallNeeded()) install();
  process.env.PATH = `${BIN}${process.platform === "win32" ? ";" : ":"}${process.env.PATH ?? ""}`;
  process.env.WRANGLER_SEND_METRICS = "false";
  if (isNewEnough(process.versions.node)) return;
  const carried = join(BIN, process.platform === "win32" ? "node.cmd" : "node");
  if (!existsSync(carried)) {
    fail(`This platform needs Node ${NEEDED.join(".")} or newer on the PATH; ${process.versions.node} is there now.`);
  }
  process.exit(await goOnWith(carried));
}

/** Runs this script again, hands every signal on, and waits: whoever stops this process stops that one. */
async function goOnWith(node) {
  const again = spawn(node, process.argv.slice(1), { stdio: "inherit", env: process.env });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => again.kill(signal));
  const [code, signal] = await once(again, "exit");
  return code ?? (signal ? 1 : 0);
}

export function fail(message) {
  console.error(message);
  process.exit(1);
}

const isNewEnough = (version) => {
  const [major, minor] = version.split(".").map(Number);
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1]);
};

/** npm writes its hidden lockfile at the end of every install. */
function isInstallNeeded() {
  const installed = join(ROOT, "node_modules", ".package-lock.json");
  if (!existsSync(installed)) return true;
  return statSync(join(ROOT, "package-lock.json")).mtimeMs > statSync(installed).mtimeMs + 1_000;
}

function install() {
  console.log("Installing dependencies (npm ci) …");
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const options = { cwd: ROOT, stdio: "inherit", shell: process.platform === "win32" };
  const { status } = spawnSync(npm, ["ci", "--no-audit", "--no-fund", "--loglevel=error"], options);
  if (status !== 0) fail("npm ci failed; see above.");
}
