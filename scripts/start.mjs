// npm start: the whole platform on this machine.
import { ensureToolchain, fail, ROOT } from "./toolchain.mjs";

await ensureToolchain();
const { spawn } = await import("node:child_process");
const { existsSync, rmSync } = await import("node:fs");
const { createInterface } = await import("node:readline");
const { join, resolve } = await import("node:path");
const { default: process } = await import("node:process");
const { Bootstrap } = await import("./bootstrap.mjs");
const { LocalProxy, freePort, isTaken } = await import("./local-proxy.mjs");
const { hashKey } = await import("./keys.mjs");
const { parseOptions, USAGE } = await import("./options.mjs");
const { SecretsFile } = await import("./secrets-file.mjs");
const { upstreamCatalogue } = await import("./upstream.mjs");

const READY_MS = 60_000;
const STOP_MS = 5_000;
const GRACE_MS = 300;
const LOG_LINES = 40;

const options = readOptions();
const url = `http://localhost:${options.port}`;
const persist = resolve(options["persist-to"]);
if (await isTaken(options.port)) {
  const other = `npm start -- --port ${options.port + 1}`;
  fail(`Port ${options.port} is taken. Stop what listens there, or choose another: ${other}`);
}
if (options.fresh) forget(persist);
const catalogue =
  options.upstream && (await upstreamCatalogue(options.upstream, options.upstreamKey).catch((e) => fail(e.message)));
const bootstrap = new Bootstrap(join(persist, "bootstrap.json"));
const log = [];
let stopping = false;
const database = options.database === "postgres" ? await startPostgres() : undefined;
const secrets = new SecretsFile(join(persist, "start.env"), secretsOfStart());
const innerPort = await freePort();
const localProxy = await LocalProxy.open(options.port, innerPort);
const wrangler = startWrangler();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void stop(0));
wrangler.on("exit", (code) => {
  if (stopping) return;
  console.error(log.join("\n"));
  fail(`wrangler dev has ended (code ${code}); its last lines are above.`);
});
try {
  await ready();
  await bootstrap.seed(url);
} catch (error) {
  console.error(log.join("\n"));
  console.error(error.message);
  await stop(1);
}
announce();

function readOptions() {
  try {
    const parsed = parseOptions(process.argv.slice(2), process.env);
    if (!parsed.help) return parsed;
  } catch (error) {
    fail(`${error.message}\n\n${USAGE}`);
  }
  console.log(USAGE);
  process.exit(0);
}

/** Only what this project and its simulator put there. */
function forget(folder) {
  for (const name of ["bootstrap.json", "start.env", "v3", "postgres", "postgres.json"]) {
    rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** In a process of its own, that ends with this one however this one ends. */
async function startPostgres() {
  process.stderr.write("Starting Postgres …\n");
  const script = join(ROOT, "scripts", "postgres-server.mjs");
  const server = spawn(process.execPath, [script, join(persist, "postgres")], { stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise((settle) => {
    createInterface({ input: server.stdout }).once("line", settle);
    server.once("exit", () => settle(undefined));
  });
  if (line === undefined) fail("Postgres did not start; see above.");
  server.on("exit", () => {
    if (!stopping) console.error("Postgres has ended; the platform answers 503 to what needs it.");
  });
  return { server, urls: JSON.parse(line) };
}

/** Addresses may carry a password. */
function secretsOfStart() {
  const known = { BOOTSTRAP_ADMIN_KEY_HASH: hashKey(bootstrap.keys.adminKey) };
  if (catalogue) known.UPSTREAM_URL = options.upstream;
  if (options.upstreamKey) known.UPSTREAM_KEY = options.upstreamKey;
  return known;
}

function startWrangler() {
  const vars = { DATABASE: options.database, ...(catalogue ? { MODEL_CATALOGUE: JSON.stringify(catalogue) } : {}) };
  const args = ["dev", "--ip", "127.0.0.1", "--port", String(innerPort), "--inspector-ip", "127.0.0.1"];
  args.push("--persist-to", persist, "--show-interactive-dev-session=false", "--env-file", secrets.path);
  for (const [name, value] of Object.entries(vars)) args.push("--var", `${name}:${value}`);
  const bin = join(ROOT, "node_modules", "wrangler", "bin", "wrangler.js");
  if (!existsSync(bin)) fail("wrangler is not installed; delete node_modules and start again.");
  // In this process's own group: whoever ends the group, with whatever signal, ends all of it.
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: ROOT,
    env: {
      ...process.env,
      TENANTRY_UPSTREAM_KEY: undefined,
      // Its explorer shows every tenant's rows to whoever asks, and its traces what was asked.
      X_LOCAL_EXPLORER: "false",
      X_LOCAL_OBSERVABILITY: "false",
      ...(database ? { CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE: database.urls.app } : {}),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      if (options.verbose) process.stdout.write(chunk);
      log.push(
        ...String(chunk)
          .split("\n")
          .filter((line) => line.trim() !== ""),
      );
      log.splice(0, Math.max(0, log.length - LOG_LINES));
    });
  }
  return child;
}

async function ready() {
  const giveUpAtMs = Date.now() + READY_MS;
  process.stderr.write("Starting …");
  for (;;) {
    const reply = await fetch(`${url}/health`, { signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
    if (reply?.ok) break;
    if (Date.now() > giveUpAtMs) throw new Error(`the platform did not answer within ${READY_MS / 1000} s`);
    process.stderr.write(".");
    await new Promise((settle) => setTimeout(settle, 250));
  }
  process.stderr.write("\n");
}

function announce() {
  const { adminKey, tenantKey } = bootstrap.keys;
  const model = catalogue ? catalogue.models.find(({ task }) => task === "chat")?.name : "tiny-support-lm";
  const body = JSON.stringify({
    model,
    stream: true,
    messages: [{ role: "user", content: "How do I cancel my order?" }],
  });
  console.log(`url: ${url}`);
  console.log(`admin key: ${adminKey}`);
  console.log(`tenant key: ${tenantKey}`);
  console.log(
    `curl -N ${url}/v1/chat/completions -H "Authorization: Bearer ${tenantKey}" -H "Content-Type: application/json" -d '${body}'`,
  );
  if (database) {
    console.log(`database: ${database.urls.app}`);
    console.log(
      "  as the platform's own role: without a tenant it sees no row. `select * from tenantry.project` shows none.",
    );
  }
  console.log("Press Ctrl-C to stop; the data stays.");
}

/** After the platform, which still writes while it ends. */
async function stopPostgres() {
  if (!database || database.server.exitCode !== null || database.server.signalCode !== null) return;
  const ended = new Promise((settle) => database.server.once("exit", settle));
  database.server.kill("SIGTERM");
  await Promise.race([ended, new Promise((settle) => setTimeout(settle, STOP_MS))]);
}

async function stop(code) {
  if (stopping) return;
  stopping = true;
  localProxy.close();
  const ended = new Promise((settle) => wrangler.once("exit", settle));
  const pause = (ms) => new Promise((settle) => setTimeout(settle, ms));
  // Ctrl-C in a terminal reaches the whole group; only a signal to this process alone has to be handed on.
  for (const [signal, patienceMs] of [
    [undefined, GRACE_MS],
    ["SIGINT", STOP_MS],
    ["SIGTERM", STOP_MS],
    ["SIGKILL", STOP_MS],
  ]) {
    if (wrangler.exitCode !== null || wrangler.signalCode !== null) break;
    if (signal) wrangler.kill(signal);
    await Promise.race([ended, pause(patienceMs)]);
  }
  await stopPostgres();
  secrets.remove();
  process.exit(code);
}
