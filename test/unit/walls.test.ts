import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "../..");
type Case = readonly [file: string, statement: string];

/** Lints every import as if it stood in its file. @returns for each whether it breaks a wall */
function breaksWall(cases: readonly Case[]): boolean[] {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-walls-"));
  try {
    cpSync(join(ROOT, "biome.jsonc"), join(folder, "biome.jsonc"));
    const files = cases.map(([file], index) => file.replace("x.ts", `x${index}.ts`));
    for (const [index, file] of files.entries()) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), `${cases[index]?.[1].replace("import", "export")}\n`);
    }
    const biome = join(ROOT, "node_modules/@biomejs/biome/bin/biome");
    const args = [biome, "lint", "--vcs-enabled=false", "--reporter=github", "--max-diagnostics=none", "."];
    const { stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
    const broken = stdout.split("\n").filter((line) => line.includes("noRestrictedImports"));
    return files.map((file) => broken.some((line) => line.includes(`/${file},`)));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether a file of this name with this text breaks a rule. */
function breaksRule(file: string, text: string, rule: string): boolean {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-rule-"));
  try {
    cpSync(join(ROOT, "biome.jsonc"), join(folder, "biome.jsonc"));
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), `${text}\n`);
    const biome = join(ROOT, "node_modules/@biomejs/biome/bin/biome");
    const args = [biome, "lint", "--vcs-enabled=false", "--reporter=github", "."];
    return spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" }).stdout.includes(rule);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** From where, what: one of each that a wall forbids, and one that it must let through. */
const FORBIDDEN: readonly Case[] = [
  ["src/core/x.ts", 'import { ApiError } from "../errors";'],
  ["src/core/x.ts", 'import { z } from "zod";'],
  ["src/core/x.ts", 'import { createHash } from "node:crypto";'],
  ["src/data/x.ts", 'import { errorBody } from "../http/errors";'],
  ["src/data/x.ts", 'import { meter } from "../pipeline/meter";'],
  ["src/data/x.ts", 'import { mint } from "../tenancy/context";'],
  ["src/data/x.ts", 'import { configFrom } from "../config";'],
  ["src/storage/x.ts", 'import { eq } from "drizzle-orm";'],
  ["src/storage/x.ts", 'import { d1Database } from "../data/d1-database";'],
  ["src/tenancy/x.ts", 'import { postgresDatabase } from "../data/postgres-database";'],
  ["src/tenancy/authenticate.ts", 'import { objectDatabase } from "../data/object-database";'],
  ["src/metering/x.ts", 'import { Sql } from "postgres";'],
  ["src/pipeline/x.ts", 'import type { Database } from "../data/database";'],
  ["src/inference/x.ts", 'import { d1Database } from "../data/d1-database";'],
  ["src/cache/x.ts", 'import { errorBody } from "../http/errors";'],
  ["src/tenancy/x.ts", 'import { mint } from "./context";'],
  ["src/tenancy/x.ts", 'import { eq } from "drizzle-orm";'],
  ["src/tenancy/x.ts", 'import { meter } from "../pipeline/meter";'],
  ["src/tenancy/authenticate.ts", 'import { eq } from "drizzle-orm";'],
  ["src/artifacts/x.ts", 'import { eq } from "drizzle-orm";'],
  ["src/files/x.ts", 'import { eq } from "drizzle-orm";'],
  ["src/audit/x.ts", 'import { mint } from "../tenancy/context";'],
  ["src/metering/x.ts", 'import { drizzle } from "drizzle-orm/d1";'],
  ["src/guard/x.ts", 'import { readJson } from "../http/json-body";'],
  ["src/inference/x.ts", 'import { configFrom } from "../config";'],
  ["src/inference/providers/x.ts", 'import { LocalAI } from "../../../local-ai/local-ai";'],
  ["src/pipeline/x.ts", 'import { readJson } from "../http/json-body";'],
  ["src/pipeline/x.ts", 'import { workersAi } from "../inference/providers/workers-ai";'],
  ["src/http/x.ts", 'import { eq } from "drizzle-orm";'],
  ["src/http/x.ts", 'import { TenantData } from "../data/tenant-data";'],
  ["src/http/x.ts", 'import { segmentStore } from "../storage/segments";'],
  ["src/http/x.ts", 'import { env } from "cloudflare:workers";'],
  ["src/http/x.ts", 'import { configFrom } from "../config";'],
  ["src/http/x.ts", 'import { BindRequest } from "../../durable-objects/tenant-gate.messages";'],
  ["src/http/x.ts", 'import { mint } from "../tenancy/context";'],
  ["durable-objects/x.ts", 'import { TenantData } from "../src/data/tenant-data";'],
  ["durable-objects/x.ts", 'import { mint } from "../src/tenancy/context";'],
  ["durable-objects/x.ts", 'import { readJson } from "../src/http/json-body";'],
];
const ALLOWED: readonly Case[] = [
  ["src/core/x.ts", 'export { GENESIS } from "./hash-chain";'],
  ["src/data/x.ts", 'export { eq } from "drizzle-orm";'],
  ["src/data/x.ts", 'export { assertMinted } from "../tenancy/context";'],
  ["src/storage/x.ts", 'export { objectName } from "../core/object-name";'],
  ["src/tenancy/authenticate.ts", 'export { mint } from "./context";'],
  ["src/tenancy/jobs.ts", 'export { mint } from "./context";'],
  ["src/audit/x.ts", 'export { TenantData } from "../data/tenant-data";'],
  ["src/pipeline/x.ts", 'export { ProviderError } from "../inference/provider";'],
  ["src/http/x.ts", 'export { createProject } from "../tenancy/projects";'],
  ["src/http/x.ts", 'export { z } from "zod";'],
  ["durable-objects/x.ts", 'export { GENESIS } from "../src/core/hash-chain";'],
  ["durable-objects/x.ts", 'export { z } from "zod";'],
];

describe("the walls of the house", () => {
  const forbidden = breaksWall(FORBIDDEN);
  const allowed = breaksWall(ALLOWED);

  it.each(FORBIDDEN.map((wall, index) => [...wall, index] as const))("%s may not %s", (_, __, index) => {
    expect(forbidden[index]).toBe(true);
  });

  it("let nobody but their own room name a binding's type", () => {
    const named = (file: string) => breaksRule(file, "export type Held = D1Database | R2Bucket;", "noRestrictedTypes");
    for (const file of [
      "src/http/x.ts",
      "src/tenancy/x.ts",
      "src/pipeline/x.ts",
      "src/services.ts",
      "src/metering/x.ts",
    ]) {
      expect(named(file), file).toBe(true);
    }
    for (const file of ["src/data/x.ts", "src/storage/x.ts", "src/config.ts"]) expect(named(file), file).toBe(false);
  });

  it.each(ALLOWED.map((door, index) => [...door, index] as const))("%s may %s", (_, __, index) => {
    expect(allowed[index]).toBe(false);
  });
});
