import { z } from "zod";
import type { TenantDatabaseRpc } from "../durable-objects/tenant-database.messages";
import type { PriceBook } from "./core/prices";
import { Databases } from "./data/databases";
import { Directory } from "./data/directory";
import { ModelCatalogue } from "./inference/catalogue";
import productionModels from "./inference/models.json";
import { parsePrices } from "./inference/prices";
import productionPrices from "./inference/prices.json";
import type { AiBinding } from "./inference/providers";
import type { Region } from "./tenancy/context";
import { objectsOf } from "./tenancy/gates";

const has =
  (...methods: string[]) =>
  (value: unknown) =>
    value !== null &&
    (typeof value === "object" || typeof value === "function") &&
    methods.every((method) => typeof (value as Record<string, unknown>)[method] === "function");

const database = z.custom<D1Database>(has("prepare", "batch"), "needs a D1 binding");
const hyperdrive = z
  .custom<Hyperdrive>((value) => typeof (value as Hyperdrive | null)?.connectionString === "string")
  .optional();
const objects = z.custom<DurableObjectNamespace>(has("getByName"), "needs a Durable Object binding");
const bucket = z.custom<R2Bucket>(has("put", "get"), "needs an R2 binding");

/** `1:<base64 of 32 bytes>,2:…`: the highest version wraps, all of them unwrap. */
const WrappingKeys = z.string().transform((text, context) => {
  const keys = new Map<number, Uint8Array>();
  for (const entry of text.split(",")) {
    const [version, encoded] = entry.trim().split(":");
    const bytes = Uint8Array.from(atob(encoded ?? ""), (character) => character.charCodeAt(0));
    if (!/^[1-9][0-9]{0,8}$/.test(version ?? "") || bytes.length !== 32) {
      context.addIssue({ code: "custom", message: "needs the form 1:<base64 of 32 bytes>[,2:…]" });
      return z.NEVER;
    }
    keys.set(Number(version), bytes);
  }
  return keys;
});

const Regions = z.string().transform((text, context): readonly Region[] => {
  const parsed = z
    .array(z.enum(["global", "eu", "us"]))
    .min(1)
    .safeParse(text.split(",").map((part) => part.trim()));
  if (parsed.success && parsed.data.includes("global")) return parsed.data;
  context.addIssue({ code: "custom", message: "needs a comma-separated list of global, eu, us with global in it" });
  return z.NEVER;
});

/** What may be kept nowhere but in {@link Databases}: no other file ever sees these bindings. */
const DatabaseEnv = z.object({
  /** Which kind of database is the system of record. */
  DATABASE: z.enum(["d1", "postgres"]).default("d1"),
  DB: database,
  DB_EU: database.optional(),
  DB_US: database.optional(),
  HYPERDRIVE: hyperdrive,
  HYPERDRIVE_EU: hyperdrive,
  HYPERDRIVE_US: hyperdrive,
  TENANT_DATABASE: objects,
  DIRECTORY: database,
});

const Env = DatabaseEnv.extend({
  ARTIFACTS: bucket,
  ARTIFACTS_EU: bucket.optional(),
  ARTIFACTS_US: bucket.optional(),
  TENANT_GATE: objects,
  MODEL_DISPATCHER: objects,
  IDEMPOTENCY_STORE: objects,
  BACKGROUND_RUNS: objects,
  AI: z.custom<AiBinding>(has("run"), "needs the Workers AI binding").optional(),
  /** JSON, as text or as an object; the repository's own catalogue without it. */
  MODEL_CATALOGUE: z.unknown().optional(),
  /** JSON, as text or as an object; the repository's own price book without it. */
  PRICES: z.unknown().optional(),
  UPSTREAM_URL: z.url().optional(),
  UPSTREAM_KEY: z.string().optional(),
  /** To the first byte of an upstream's reply, and between two chunks of it. */
  UPSTREAM_TIMEOUT_MS: z.coerce.number().int().min(100).max(600_000).default(120_000),
  TOKEN_SECRET: z.string().min(32, "needs at least 32 characters"),
  WRAPPING_KEYS: WrappingKeys,
  REGIONS: Regions.default(["global"]),
  /** Whether the runtime knows Durable Object jurisdictions; the local one does not. */
  JURISDICTIONS: z.enum(["on", "off"]).default("off"),
  BOOTSTRAP_ADMIN_KEY_HASH: z
    .string()
    .regex(/^[0-9a-f]{64}$/, "needs a SHA-256 in hex")
    .optional(),
  /** A call that nobody settled within this time is booked at its worst case. */
  REQUEST_DEADLINE_MS: z.coerce.number().int().min(1_000).max(3_600_000).default(600_000),
  /** Calls that an isolate may admit for one question to the gate; 1 asks for each. */
  LEASE_MAX: z.coerce.number().int().min(1).max(64).default(16),
  /** How long an isolate trusts what a gate said of a key and its policy. */
  BINDING_MS: z.coerce.number().int().min(0).max(800).default(800),
});

type Parsed = z.output<typeof Env>;
export type Config = Omit<Parsed, "MODEL_CATALOGUE" | "PRICES" | keyof z.output<typeof DatabaseEnv>> & {
  readonly catalogue: ModelCatalogue;
  readonly prices: PriceBook;
  readonly databases: Databases;
  readonly directory: Directory;
};

const parsed = new WeakMap<object, Config>(); // once per isolate, not once per request

/**
 * The only reader of `env`.
 * @throws TypeError when something is missing or wrong; names the variables, never their values
 */
export function configFrom(env: object): Config {
  const known = parsed.get(env);
  if (known) return known;
  const result = Env.safeParse(env);
  if (!result.success) {
    const findings = result.error.issues.map((issue) => `${issue.path.join(".")} ${issue.message}`);
    throw new TypeError(`configuration: ${findings.join("; ")}`);
  }
  const { MODEL_CATALOGUE, DATABASE, DB, DB_EU, DB_US, HYPERDRIVE, HYPERDRIVE_EU, HYPERDRIVE_US, ...others } =
    result.data;
  const { TENANT_DATABASE, DIRECTORY, PRICES, ...rest } = others;
  const databases = new Databases(
    {
      kind: DATABASE,
      d1: { global: DB, eu: DB_EU, us: DB_US },
      postgres: { global: HYPERDRIVE, eu: HYPERDRIVE_EU, us: HYPERDRIVE_US },
      silo: objectsOf<TenantDatabaseRpc>(TENANT_DATABASE, rest.JURISDICTIONS),
    },
    rest.REGIONS,
  );
  for (const region of rest.REGIONS) bucketOf(rest, region);
  const catalogue = ModelCatalogue.parse(documentOf(MODEL_CATALOGUE) ?? productionModels);
  const prices = parsePrices(documentOf(PRICES) ?? productionPrices);
  const config = { ...rest, catalogue, prices, databases, directory: new Directory(DIRECTORY) };
  parsed.set(env, config);
  return config;
}

const documentOf = (value: unknown): unknown => (typeof value === "string" ? JSON.parse(value) : value);

/** The bucket that keeps what belongs to tenants of `region`. */
export function bucketOf(
  config: Pick<Config, "ARTIFACTS" | "ARTIFACTS_EU" | "ARTIFACTS_US">,
  region: Region,
): R2Bucket {
  const bucket = { global: config.ARTIFACTS, eu: config.ARTIFACTS_EU, us: config.ARTIFACTS_US }[region];
  if (!bucket) throw new TypeError(`configuration: region ${region} has no bucket of its own`);
  return bucket;
}
