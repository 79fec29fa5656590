import { readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { generateAdminKey, hashKey } from "../scripts/keys.mjs";

/**
 * The platform as several isolates: Workers of the same bundle in one Miniflare, that share one set of Durable
 * Objects, databases and buckets. Their sockets are direct: nothing stands between a test and workerd.
 */
export type Bundle = keyof typeof MAIN;
const MAIN = { local: "dev.js", production: "index.js", operations: "worker.js" } as const;

export interface PlatformOptions {
  /** Built beforehand into dist/; only `local` has the embedded model, the others need an upstream. */
  readonly bundle?: Bundle;
  readonly isolates?: number;
  /** Folder for databases and objects; in memory without it. */
  readonly persistTo?: string;
  /** Variables on top of those of wrangler.toml. */
  readonly vars?: Readonly<Record<string, unknown>>;
  /** Address of a migrated Postgres; then that is the system of record. */
  readonly postgres?: string;
  /** Kept by the caller across restarts. */
  readonly adminKey?: string;
}

export interface Platform {
  /** One address for each isolate. */
  readonly urls: readonly string[];
  readonly url: string;
  readonly adminKey: string;
  readonly miniflare: Miniflare;
  stop(): Promise<void>;
}

const MODULE_TYPES: Readonly<Record<string, "Data" | "Text" | "CompiledWasm">> = {
  ".bin": "Data",
  ".sql": "Text",
  ".wasm": "CompiledWasm",
};
const ROOT = join(import.meta.dirname, "..");
const LOCAL_SECRETS = {
  TOKEN_SECRET: "a-secret-of-the-tests-that-is-long-enough",
  WRAPPING_KEYS: `1:${Buffer.alloc(32, 7).toString("base64")}`,
};

export async function startPlatform(options: PlatformOptions = {}): Promise<Platform> {
  const { bundle = "local", isolates = 1, persistTo, postgres, vars = {} } = options;
  const adminKey = options.adminKey ?? generateAdminKey();
  const names = Array.from({ length: isolates }, (_, index) => `isolate-${index}`);
  const database = postgres === undefined ? {} : { DATABASE: "postgres" };
  const bindings = {
    ...LOCAL_SECRETS,
    ...database,
    REGIONS: "global",
    BOOTSTRAP_ADMIN_KEY_HASH: hashKey(adminKey),
    ...vars,
  };
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.ERROR),
      unsafeInspectDurableObjects: true,
      ...(persistTo === undefined ? {} : { resourcePersistencePath: persistTo }),
      workers: names.map((name) => workerOptions(name, names[0] ?? name, bundle, bindings, postgres)),
    }),
  );
  await miniflare.ready;
  const urls: string[] = [];
  for (const name of names) urls.push((await miniflare.unsafeGetDirectURL(name)).origin);
  if (bundle !== "local") await migrate(miniflare, names[0] ?? "");
  const stop = () => miniflare.dispose();
  return { urls, url: urls[0] ?? "", adminKey, miniflare, stop };
}

/** All isolates use the objects, databases and buckets of the first. */
function workerOptions(
  name: string,
  owner: string,
  bundle: Bundle,
  bindings: Record<string, unknown>,
  postgres: string | undefined,
) {
  const folder = join(ROOT, "dist", bundle);
  const main = MAIN[bundle];
  const object = (className: string) => ({
    className,
    useSQLite: true,
    ...(name === owner ? {} : { scriptName: owner }),
  });
  const local = bundle === "local";
  return {
    name,
    modulesRoot: folder,
    modules: [
      { type: "ESModule" as const, path: join(folder, main) },
      ...readdirSync(folder).flatMap((file) => {
        const type = MODULE_TYPES[extname(file)];
        return type ? [{ type, path: join(folder, file) }] : [];
      }),
    ],
    compatibilityDate: "2026-11-01",
    compatibilityFlags: ["nodejs_compat", "enable_request_signal"],
    bindings: { ...bindings, ...(local ? { MODEL_CATALOGUE: bindings.MODEL_CATALOGUE ?? LOCAL_CATALOGUE } : {}) },
    d1Databases: { DB: "tests", DIRECTORY: "tests-directory" },
    ...(postgres === undefined ? {} : { hyperdrives: { HYPERDRIVE: postgres } }),
    r2Buckets: { ARTIFACTS: "tests-artifacts" },
    durableObjects: {
      TENANT_GATE: object("TenantGate"),
      TENANT_DATABASE: object("TenantDatabase"),
      MODEL_DISPATCHER: object("ModelDispatcher"),
      IDEMPOTENCY_STORE: object("IdempotencyStore"),
      BACKGROUND_RUNS: object("BackgroundRuns"),
      ...(local ? { EMBEDDED_MODEL: object("EmbeddedModel") } : {}),
    },
    ...(local ? { serviceBindings: { AI: { name: owner, entrypoint: "LocalAI" } } } : {}),
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  } as never;
}

export const LOCAL_CATALOGUE = {
  version: "tests",
  models: [
    {
      name: "tiny-support-lm",
      aliases: ["gpt-4o-mini"],
      task: "chat",
      owned_by: "tenantry",
      created: 1763856000,
      provider: "workers-ai",
      provider_model: "@local/tiny-support-lm",
      context_tokens: 512,
      tokenizer: "bytes",
      default_max_output_tokens: 128,
      max_in_flight: 16,
      capabilities: ["json_object", "json_schema", "seed", "stop", "top_k", "penalties"],
      classifier: "@local/tiny-support-lm-classify",
      regions: ["global", "eu", "us"],
    },
    {
      name: "tenantry-rules",
      aliases: ["omni-moderation-latest"],
      task: "moderation",
      owned_by: "tenantry",
      created: 1763856000,
      provider: "rules",
      provider_model: "rules",
      context_tokens: 128_000,
      regions: ["global", "eu", "us"],
    },
    {
      name: "tiny-support-embed",
      aliases: ["text-embedding-3-small"],
      task: "embedding",
      owned_by: "tenantry",
      created: 1763856000,
      provider: "workers-ai",
      provider_model: "@local/tiny-support-lm-embed",
      context_tokens: 512,
      tokenizer: "bytes",
      dimensions: 192,
      capabilities: [],
      regions: ["global", "eu", "us"],
    },
  ],
};

/** A catalogue entry for a model of the mock upstream; for both bundles. */
export const upstreamModel = (name: string, more: Readonly<Record<string, unknown>> = {}) => ({
  name,
  task: "chat",
  owned_by: "upstream",
  created: 1763856000,
  provider: "openai-compatible",
  provider_model: name,
  context_tokens: 128_000,
  default_max_output_tokens: 256,
  capabilities: ["tools", "json_object", "json_schema", "seed", "stop", "penalties", "logprobs"],
  regions: ["global", "eu", "us"],
  ...more,
});

/** The local entry migrates by itself; production is migrated at deploy time, and here. */
async function migrate(miniflare: Miniflare, worker: string): Promise<void> {
  for (const [binding, folder] of [
    ["DB", "d1"],
    ["DIRECTORY", "directory"],
  ] as const) {
    const database = await miniflare.getD1Database(binding, worker);
    await database.prepare("create table if not exists d1_migrations (name text primary key)").run();
    const { results } = await database.prepare("select name from d1_migrations").all<{ name: string }>();
    const applied = results.map(({ name }) => name);
    const files = readdirSync(join(ROOT, "migrations", folder)).filter((file) => file.endsWith(".sql"));
    for (const file of files.sort().filter((name) => !applied.includes(name))) {
      const statements = readFileSync(join(ROOT, "migrations", folder, file), "utf8").split("--> statement-breakpoint");
      const booked = database.prepare("insert into d1_migrations (name) values (?)").bind(file);
      await database.batch([...statements.map((statement) => database.prepare(statement)), booked]);
    }
  }
}
