import { describe, expect, it } from "vitest";
import { bucketOf, configFrom } from "../../src/config";

const d1 = () => ({ prepare: () => {}, batch: () => {} });
const objects = () => ({ getByName: () => {} });
const bucket = () => ({ put: () => {}, get: () => {} });
const key = (byte: number) => Buffer.alloc(32, byte).toString("base64");
const ENV = {
  ...{ DB: d1(), DIRECTORY: d1(), ARTIFACTS: bucket() },
  ...{ TENANT_DATABASE: objects(), TENANT_GATE: objects(), MODEL_DISPATCHER: objects() },
  ...{ IDEMPOTENCY_STORE: objects(), BACKGROUND_RUNS: objects() },
  ...{ TOKEN_SECRET: "x".repeat(32), WRAPPING_KEYS: `1:${key(1)}` },
};
const from = (more: Record<string, unknown> = {}) => configFrom({ ...ENV, ...more });

describe("the configuration", () => {
  it("has a value for everything that it need not be told", () => {
    expect(from()).toMatchObject({
      ...{ REGIONS: ["global"], JURISDICTIONS: "off", LEASE_MAX: 16, BINDING_MS: 800 },
      ...{ REQUEST_DEADLINE_MS: 600_000, UPSTREAM_TIMEOUT_MS: 120_000 },
    });
    expect(from().databases.offered).toEqual(["pool", "silo"]);
  });

  it("is read once for each isolate", () => {
    const env = { ...ENV };
    expect(configFrom(env)).toBe(configFrom(env));
  });

  it.each([
    ["no secret", { TOKEN_SECRET: undefined }, "TOKEN_SECRET"],
    ["a short secret", { TOKEN_SECRET: "s3cret-too-short" }, "TOKEN_SECRET"],
    ["no wrapping key", { WRAPPING_KEYS: undefined }, "WRAPPING_KEYS"],
    ["a wrapping key of 16 bytes", { WRAPPING_KEYS: `1:${Buffer.alloc(16).toString("base64")}` }, "WRAPPING_KEYS"],
    ["a wrapping key without a version", { WRAPPING_KEYS: key(1) }, "WRAPPING_KEYS"],
    ["a wrapping key of version 0", { WRAPPING_KEYS: `0:${key(1)}` }, "WRAPPING_KEYS"],
    ["no database", { DB: undefined }, "DB"],
    ["no directory", { DIRECTORY: {} }, "DIRECTORY"],
    ["no gate", { TENANT_GATE: {} }, "TENANT_GATE"],
    ["no bucket", { ARTIFACTS: { get: () => {} } }, "ARTIFACTS"],
    ["a key that is trusted for longer than 800 ms", { BINDING_MS: 801 }, "BINDING_MS"],
    ["an admin key in the clear", { BOOTSTRAP_ADMIN_KEY_HASH: "sk-admin-s3cret" }, "BOOTSTRAP_ADMIN_KEY_HASH"],
    ["leases of 65 calls", { LEASE_MAX: 65 }, "LEASE_MAX"],
    ["a deadline of over an hour", { REQUEST_DEADLINE_MS: 3_600_001 }, "REQUEST_DEADLINE_MS"],
    ["an unknown region", { REGIONS: "global,mars" }, "REGIONS"],
    ["no global region", { REGIONS: "eu" }, "REGIONS"],
    ["an unknown database", { DATABASE: "mysql" }, "DATABASE"],
  ])("with %s is refused by the variable's name, without its value", (_, more, name) => {
    expect(() => from(more)).toThrow(new RegExp(`^configuration: .*${name}`));
    expect(() => from(more)).not.toThrow(/s3cret/);
  });

  it("needs a database and a bucket of its own for every region, and takes no other region's", () => {
    expect(() => from({ REGIONS: "global,eu" })).toThrow(/region eu has no D1 database/);
    expect(() => from({ REGIONS: "global,eu", DB_EU: d1() })).toThrow(/region eu has no bucket/);
    const [own, abroad] = [bucket(), bucket()];
    const config = from({ REGIONS: "global, eu", DB_EU: d1(), ARTIFACTS: own, ARTIFACTS_EU: abroad });
    expect(bucketOf(config, "global")).toBe(own);
    expect(bucketOf(config, "eu")).toBe(abroad);
    expect(() => bucketOf(config, "us")).toThrow(/region us has no bucket/);
  });

  it("on Postgres offers schemas, and needs a Hyperdrive binding", () => {
    expect(() => from({ DATABASE: "postgres" })).toThrow(/region global has no Hyperdrive binding/);
    const config = from({ DATABASE: "postgres", HYPERDRIVE: { connectionString: "postgres://x" } });
    expect(config.databases.offered).toEqual(["pool", "bridge", "silo"]);
  });

  it("takes several wrapping keys, a catalogue and a price book, as text or as objects", () => {
    const prices = { price_version: "p", cost_version: "c", models: {} };
    const catalogue = { version: "1", models: [] };
    const config = from({
      ...{ WRAPPING_KEYS: `1:${key(1)}, 2:${key(2)}`, PRICES: JSON.stringify(prices), MODEL_CATALOGUE: catalogue },
    });
    expect([...config.WRAPPING_KEYS.keys()]).toEqual([1, 2]);
    expect(config.prices.priceVersion).toBe("p");
    expect(config.catalogue.version).toBe("1");
  });
});
