import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import postgres from "postgres";

/**
 * What reading a tenant's rows costs while the number of other tenants grows: the rows that D1 says it read, and the
 * pages and rows that Postgres says it touched. The control asks for the same rows without the tenant in front.
 * `npm run bench:data -- 2000` takes so many tenants in the place of 10,000.
 */
const TENANTS = Number(process.argv[2] ?? 10_000);
const STAGES = [...new Set([10, Math.floor(TENANTS / 10), TENANTS])].sort((a, b) => a - b);
/** Accounts of each tenant; each has one key, so a tenant has twice as many rows. */
const ACCOUNTS = 50;
const TENANT = "proj_measured";
const CONTROL = "control: no index by tenant";
const ROOT = join(import.meta.dirname, "..");
const folder = mkdtempSync(join(tmpdir(), "tenantry-bench-"));
const log = (line: string) => process.stderr.write(`${line}\n`);

interface Call {
  readonly call: string;
  readonly statements: readonly { readonly sql: string; readonly params: readonly unknown[] }[];
  readonly rowsRead?: number;
  readonly tookMs: number;
  readonly found: number;
}
interface Row {
  readonly database: "d1" | "postgres";
  readonly others: number;
  readonly call: string;
  readonly found: number;
  readonly rowsRead: number;
  readonly pages: number | null;
  readonly tookMs: number;
}

const server = spawn(process.execPath, [join(ROOT, "scripts/postgres-server.mjs"), `${folder}-postgres`], {
  stdio: ["pipe", "pipe", "inherit"],
});
const [line] = (await once(createInterface({ input: server.stdout }), "line")) as [string];
const urls = JSON.parse(line) as { superuser: string; app: string };
const superuser = postgres(new URL("/tenantry", urls.superuser).href, { max: 1, onnotice: () => {} });
const app = postgres(urls.app, { max: 1, onnotice: () => {} });

await build({
  entryPoints: [join(ROOT, "bench/data-worker.ts")],
  outfile: join(folder, "worker.js"),
  bundle: true,
  format: "esm",
  platform: "node",
  conditions: ["workerd", "worker"],
  external: ["node:*", "cloudflare:*"],
  logLevel: "error",
});
const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    log: new Log(LogLevel.ERROR),
    resourcePersistencePath: folder,
    modulesRoot: folder,
    modules: [{ type: "ESModule", path: join(folder, "worker.js") }],
    compatibilityDate: "2026-11-01",
    compatibilityFlags: ["nodejs_compat"],
    d1Databases: { DB: "bench" },
    hyperdrives: { HYPERDRIVE: urls.app },
  } as never),
);
const d1 = await miniflare.getD1Database("DB");
for (const file of readdirSync(join(ROOT, "migrations/d1"))
  .filter((name) => name.endsWith(".sql"))
  .sort()) {
  const text = readFileSync(join(ROOT, "migrations/d1", file), "utf8");
  await d1.batch(text.split("--> statement-breakpoint").map((statement) => d1.prepare(statement)));
}

const rows: Row[] = [];
await loadTenants([TENANT]);
let loaded = 0;
for (const others of STAGES) {
  const startedAtMs = Date.now();
  for (; loaded < others; ) {
    const upTo = Math.min(others, loaded + 200);
    await loadTenants(Array.from({ length: upTo - loaded }, (_, index) => `proj_other${loaded + index}`));
    loaded = upTo;
    if (loaded % 2_000 === 0)
      log(`${loaded} of ${others} other tenants (${((Date.now() - startedAtMs) / 1000).toFixed(0)} s)`);
  }
  await superuser.unsafe("vacuum analyze tenantry.service_account, tenantry.api_key");
  rows.push(...(await measureD1(others)), ...(await measurePostgres(others)));
  log(`${others} other tenants: measured`);
}
report();
await miniflare.dispose();
await Promise.all([app.end(), superuser.end()]);
server.kill("SIGTERM");
await once(server, "exit");
for (const path of [folder, `${folder}-postgres`, `${folder}-postgres.json`])
  rmSync(path, { recursive: true, force: true });

/** The same rows in both databases, made by themselves. */
async function loadTenants(tenants: readonly string[]): Promise<void> {
  const numbers = JSON.stringify(Array.from({ length: ACCOUNTS }, (_, index) => index));
  for (let from = 0; from < tenants.length; from += 50) {
    const names = JSON.stringify(tenants.slice(from, from + 50));
    const both = "from json_each(?1) as t, json_each(?2) as n";
    await d1.batch(
      [
        `insert into service_account select t.value, 'svc_' || n.value, 'name ' || n.value, 'member', n.value, n.value, null ${both}`,
        `insert into api_key select t.value, 'key_' || n.value, 'svc_' || n.value, 'name ' || n.value, 'sk-…', '[]', null, null, n.value, n.value, null ${both}`,
      ].map((statement) => d1.prepare(statement).bind(names, numbers)),
    );
  }
  const both = superuser`from unnest(${[...tenants]}::text[]) as t, generate_series(0, ${ACCOUNTS - 1}::int) as n`;
  await superuser`insert into tenantry.service_account select t, 'svc_' || n, 'name ' || n, 'member', n, n, null ${both}`;
  await superuser`insert into tenantry.api_key select t, 'key_' || n, 'svc_' || n, 'name ' || n, 'sk-…', '[]', null, null, n, n, null ${both}`;
}

async function callsOn(database: "d1" | "postgres"): Promise<Call[]> {
  const reply = await miniflare.dispatchFetch(`http://bench/?tenant=${TENANT}&database=${database}`);
  if (!reply.ok) throw new Error(await reply.text());
  return (await reply.json()) as Call[];
}

async function measureD1(others: number): Promise<Row[]> {
  await callsOn("d1"); // warm
  const measured = (await callsOn("d1")).map(({ call, found, rowsRead, tookMs }) => ({
    ...{ database: "d1" as const, others, call, found, tookMs, pages: null },
    rowsRead: rowsRead ?? 0,
  }));
  const { meta } = await d1
    .prepare("select * from service_account where name = 'name 7' and tenant_id || '' = ? limit 20")
    .bind(TENANT)
    .all();
  const control = { rowsRead: meta.rows_read, tookMs: meta.duration, found: 1, pages: null };
  return [...measured, { database: "d1", others, call: CONTROL, ...control }];
}

interface Plan {
  readonly "Actual Rows": number;
  readonly "Actual Loops": number;
  readonly "Rows Removed by Filter"?: number;
  readonly "Rows Removed by Index Recheck"?: number;
  readonly "Shared Hit Blocks": number;
  readonly "Shared Read Blocks": number;
  readonly Plans?: readonly Plan[];
}

async function measurePostgres(others: number): Promise<Row[]> {
  await callsOn("postgres"); // warm
  const measured: Row[] = [];
  const control = {
    sql: "select * from service_account where name = 'name 7' and tenant_id || '' = $1 limit 20",
    params: [TENANT],
  };
  for (const { call, found, statements, tookMs } of [
    ...(await callsOn("postgres")),
    { call: CONTROL, found: 1, statements: [control], tookMs: 0 },
  ]) {
    let [rowsRead, pages] = [0, 0];
    for (const { sql, params } of statements) {
      // Row level security alone would find the index; the control is one whom it does not hold.
      const as = call === CONTROL ? superuser : app;
      const [result] = await as.begin(async (tx) => {
        await tx`select set_config('app.tenant_id', ${TENANT}, true), set_config('search_path', 'tenantry', true)`;
        return tx.unsafe(`explain (analyze, buffers, format json) ${sql}`, params as never[]);
      });
      const { Plan: plan } = (result?.["QUERY PLAN"] as { Plan: Plan }[] | undefined)?.[0] ?? noPlan();
      rowsRead += touched(plan);
      pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"];
    }
    measured.push({ database: "postgres", others, call, found, rowsRead, pages, tookMs });
  }
  return measured;
}

function noPlan(): never {
  throw new Error("Postgres explained nothing");
}

/** Rows that the leaves of a plan looked at, those they threw away included. */
function touched(plan: Plan): number {
  if (plan.Plans && plan.Plans.length > 0) return plan.Plans.reduce((sum, child) => sum + touched(child), 0);
  const removed = (plan["Rows Removed by Filter"] ?? 0) + (plan["Rows Removed by Index Recheck"] ?? 0);
  return (plan["Actual Rows"] + removed) * plan["Actual Loops"];
}

function report(): void {
  const raw = {
    tenants: TENANTS,
    rowsInEach: 2 * ACCOUNTS,
    processor: cpus()[0]?.model ?? "",
    node: process.version,
    rows,
  };
  mkdirSync(join(import.meta.dirname, "results"), { recursive: true });
  writeFileSync(join(import.meta.dirname, "results", "data.json"), `${JSON.stringify(raw, null, 1)}\n`);
  const stages = [...new Set(rows.map(({ others }) => others))];
  const cell = (row: Row | undefined) => (row ? `${row.rowsRead}${row.pages === null ? "" : ` (${row.pages})`}` : "");
  for (const database of ["d1", "postgres"] as const) {
    const unit = database === "d1" ? "rows_read" : "rows touched (pages)";
    console.log(`\n${database}: ${unit}, with so many other tenants of ${2 * ACCOUNTS} rows each\n`);
    console.log(
      `| | found | ${stages.map((stage) => stage.toLocaleString("en")).join(" | ")} |\n|---|---|${stages.map(() => "---").join("|")}|`,
    );
    for (const call of new Set(rows.map((row) => row.call))) {
      const of = rows.filter((row) => row.database === database && row.call === call);
      const cells = stages.map((stage) => cell(of.find(({ others }) => others === stage)));
      console.log(`| ${call} | ${of[0]?.found} | ${cells.join(" | ")} |`);
    }
  }
}
