import { spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestProject } from "vitest/node";

/** Addresses of one Postgres, by who connects. */
export interface PostgresUrls {
  readonly superuser: string;
  /** Makes the tables. */
  readonly owner: string;
  /** What the platform connects as. */
  readonly app: string;
}

declare module "vitest" {
  interface ProvidedContext {
    postgres: PostgresUrls;
  }
}

/** A real Postgres for the tests of one project, new and migrated; gone when they are done. */
export default async function startPostgres(project: TestProject): Promise<() => Promise<void>> {
  const folder = join(tmpdir(), `tenantry-postgres-${process.pid}-${project.name}`);
  const script = join(import.meta.dirname, "../scripts/postgres-server.mjs");
  const server = spawn(process.execPath, [script, folder], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(server, "exit");
  const lines = createInterface({ input: server.stdout });
  const [line] = (await Promise.race([once(lines, "line"), ended.then(() => [""])])) as [string];
  if (line === "") throw new Error("Postgres did not start; see above");
  project.provide("postgres", JSON.parse(line) as PostgresUrls);
  return async () => {
    server.kill("SIGTERM");
    await ended;
    for (const path of [folder, `${folder}.json`]) rmSync(path, { recursive: true, force: true });
  };
}
