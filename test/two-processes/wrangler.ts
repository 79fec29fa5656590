import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../free-port";

const ROOT = join(import.meta.dirname, "../..");
const OWNER = "tenantry-local";

/** A `wrangler dev` in a process group of its own. */
export interface WranglerDev {
  readonly url: string;
  /** SIGKILL to the whole group, as a machine dies. */
  kill(): Promise<void>;
}

export interface WranglerDevOptions {
  /** Shared by the processes that are to find each other, and by nobody else. */
  readonly registry: string;
  /** Databases and objects lie here. */
  readonly persistTo: string;
  readonly vars: Readonly<Record<string, string>>;
}

/** The platform as `wrangler.toml` describes it; it has all objects. */
export const startOwner = (options: WranglerDevOptions) => start(join(ROOT, "wrangler.toml"), options);

/** The same Worker once more, whose bindings name the owner's objects; it has none itself. */
export function startGuest(options: WranglerDevOptions): Promise<WranglerDev> {
  mkdirSync(options.persistTo, { recursive: true });
  const file = join(options.persistTo, "wrangler.json");
  writeFileSync(file, JSON.stringify(GUEST));
  return start(file, options);
}

const objectOf = (name: string, class_name: string) => ({ name, class_name, script_name: OWNER });
const database = (binding: string, name: string) => ({
  ...{ binding, database_name: name, database_id: name, migrations_dir: join(ROOT, "migrations") },
});
const GUEST = {
  name: "tenantry-guest",
  main: join(ROOT, "local-ai/dev.ts"),
  compatibility_date: "2026-11-01",
  compatibility_flags: ["nodejs_compat", "enable_request_signal"],
  send_metrics: false,
  durable_objects: {
    bindings: [
      objectOf("TENANT_GATE", "TenantGate"),
      objectOf("TENANT_DATABASE", "TenantDatabase"),
      objectOf("MODEL_DISPATCHER", "ModelDispatcher"),
      objectOf("IDEMPOTENCY_STORE", "IdempotencyStore"),
      objectOf("BACKGROUND_RUNS", "BackgroundRuns"),
      objectOf("EMBEDDED_MODEL", "EmbeddedModel"),
    ],
  },
  services: [{ binding: "AI", service: OWNER, entrypoint: "LocalAI" }],
  d1_databases: [database("DB", OWNER), database("DIRECTORY", `${OWNER}-directory`)],
  r2_buckets: [{ binding: "ARTIFACTS", bucket_name: `${OWNER}-artifacts` }],
  rules: [
    { type: "Text", globs: ["**/*.sql"], fallthrough: true },
    { type: "Data", globs: ["**/*.bin"], fallthrough: true },
  ],
  vars: {
    DATABASE: "d1",
    TOKEN_SECRET: "local-development-only-token-secret-0000000000",
    WRAPPING_KEYS: "1:bG9jYWwtZGV2ZWxvcG1lbnQtb25seS13cmFwcGluZyE=",
    REGIONS: "global",
  },
};

async function start(config: string, { registry, persistTo, vars }: WranglerDevOptions): Promise<WranglerDev> {
  const [port, inspector] = [await freePort(), await freePort()];
  const args = ["dev", "--config", config, "--port", String(port), "--inspector-port", String(inspector)];
  args.push("--persist-to", persistTo, "--show-interactive-dev-session=false");
  for (const [name, value] of Object.entries(vars)) args.push("--var", `${name}:${value}`);
  const child = spawn(process.execPath, [join(ROOT, "node_modules/wrangler/bin/wrangler.js"), ...args], {
    cwd: ROOT,
    detached: true,
    env: { ...process.env, WRANGLER_REGISTRY_PATH: registry, MINIFLARE_REGISTRY_PATH: registry },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (log += String(chunk)));
  const url = `http://localhost:${port}`;
  while (!(await isServed(url))) {
    if (child.exitCode !== null) throw new Error(`wrangler dev has ended:\n${log}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { url, kill: () => killGroup(child) };
}

const isServed = (url: string) =>
  fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) }).then(
    (reply) => reply.ok,
    () => false,
  );

async function killGroup(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  process.kill(-(child.pid ?? 0), "SIGKILL");
  await exited;
}
