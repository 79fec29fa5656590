import { availableParallelism } from "node:os";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-pool-workers";
import { defineConfig } from "vitest/config";

/** On a busy machine everything takes its time; only what hangs takes longer than this. */
const PATIENCE_MS = 30_000;

/** The layers: pure code in Node, objects inside workerd, a real Postgres, real clients on the running platform. */
export default defineConfig({
  test: {
    // On two cores the default is one: half of the machine would wait for the other.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // The Postgres driver goes on reading a socket that it has closed itself; nobody waits for that.
    onUnhandledError: (error) =>
      !(/This socket has been closed/.test(error.message) && /postgres/.test(error.stack ?? "")),
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts", "test/local-ai/**/*.test.ts"],
          testTimeout: PATIENCE_MS,
        },
      },
      {
        plugins: [
          cloudflareTest(async ({ inject }) => ({
            remoteBindings: false,
            main: "./test/worker/entry.ts",
            wrangler: { configPath: "./test/worker/wrangler.toml" },
            miniflare: {
              hyperdrives: { HYPERDRIVE: inject("postgres").app },
              bindings: {
                TEST_MIGRATIONS: await readD1Migrations("migrations/d1"),
                TEST_DIRECTORY_MIGRATIONS: await readD1Migrations("migrations/directory"),
              },
            },
          })),
        ],
        test: {
          name: "worker",
          include: ["test/worker/**/*.test.ts"],
          globalSetup: ["test/postgres.ts"],
          setupFiles: ["test/worker/setup.ts"],
          testTimeout: PATIENCE_MS,
        },
      },
      {
        test: {
          name: "postgres",
          include: ["test/postgres/**/*.test.ts"],
          globalSetup: ["test/postgres.ts"],
          fileParallelism: false, // they change one database's schemas
          testTimeout: PATIENCE_MS,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          globalSetup: ["test/e2e/build.ts", "test/postgres.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 10_000 } },
        },
      },
    ],
  },
});
