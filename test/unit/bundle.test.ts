import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { unstable_readConfig } from "wrangler";

const ROOT = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "tenantry-bundle-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ENVIRONMENTS = [
  { name: "local", environment: "", main: "dev.js" },
  { name: "production", environment: "production", main: "index.js" },
] as const;

const config = (environment: string) =>
  unstable_readConfig({ config: join(ROOT, "wrangler.toml"), env: environment }, { hideWarnings: true });

/** Classes and entrypoints that a configuration counts on; a dry run does not notice when the bundle lacks one. */
function declared(environment: string): string[] {
  const { exports, durable_objects, services, name } = config(environment);
  const entrypoints = services
    ?.filter(({ service }: { service: string }) => service === name)
    .map(({ entrypoint }: { entrypoint?: string }) => entrypoint ?? "default");
  const classes = durable_objects.bindings.map(({ class_name }: { class_name: string }) => class_name);
  return [...new Set(["default", ...Object.keys(exports ?? {}), ...classes, ...(entrypoints ?? [])])].sort();
}

function build(environment: string, name: string): string {
  const wrangler = join(ROOT, "node_modules/wrangler/bin/wrangler.js");
  const outdir = join(folder, name);
  execFileSync(process.execPath, [wrangler, "deploy", "--dry-run", `--env=${environment}`, "--outdir", outdir], {
    cwd: ROOT,
    stdio: "pipe",
  });
  return outdir;
}

const exportsOf = (bundle: string) =>
  [...(bundle.match(/export \{([^}]*)\};\s*(?:\/\/#.*)?\s*$/)?.[1] ?? "").matchAll(/(?:\bas\s+)?([\w$]+)\s*(?:,|$)/g)]
    .map(([, name]) => name ?? "")
    .sort();

describe.each(ENVIRONMENTS)("the $name bundle", ({ name, environment, main }) => {
  const outdir = build(environment, name);
  const bundle = readFileSync(join(outdir, main), "utf8");

  it("exports exactly the classes and entrypoints that its configuration declares", () => {
    expect(exportsOf(bundle)).toEqual(declared(environment));
  });
});

describe("the production bundle", () => {
  it("contains nothing of the embedded model and none of the local secrets", () => {
    for (const trace of [
      "tiny-support",
      "@local/",
      "local-development-only",
      "EmbeddedModel",
      "EmbeddedTrainer",
      "safetensors",
      "<|assistant|>",
    ]) {
      expect(readFileSync(join(folder, "production", "index.js"), "utf8")).not.toContain(trace);
    }
    // Of data there are the vocabularies that prompts are counted by, and no weights.
    const data = readdirSync(join(folder, "production")).filter((file) => file.endsWith(".bin"));
    expect(data.map((file) => file.replace(/^[0-9a-f]+-/, "")).sort()).toEqual([
      ...["cl100k.bin", "llama3-extension.bin", "o200k.bin"],
    ]);
  });
});

describe("the production configuration", () => {
  it("requires its secrets and writes none of them down", () => {
    const { vars, secrets } = config("production") as { vars: object; secrets?: { required?: string[] } };
    expect(secrets?.required).toEqual(["TOKEN_SECRET", "WRAPPING_KEYS", "BOOTSTRAP_ADMIN_KEY_HASH"]);
    expect(Object.keys(vars)).not.toEqual(expect.arrayContaining(["TOKEN_SECRET"]));
    expect(JSON.stringify(vars)).not.toContain("local-development-only");
  });
});

describe("the lists of migrations", () => {
  it.each([
    ["src/data/migrations.ts", "d1"],
    ["local-ai/local-databases.ts", "directory"],
  ])("%s names every file of migrations/%s, in order", (list, folder) => {
    const files = readdirSync(join(ROOT, "migrations", folder)).filter((file) => file.endsWith(".sql"));
    const listed = readFileSync(join(ROOT, list), "utf8").matchAll(/name: "([^"]+)"/g);
    expect([...listed].map(([, file]) => file)).toEqual(files.sort());
  });
});
