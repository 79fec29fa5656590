import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-pool-workers";
import { defineConfig } from "vitest/config";

/** Three layers: pure code in Node, objects inside workerd, real clients against the running platform. */
export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts", "test/local-ai/**/*.test.ts"] } },
      {
        plugins: [
          cloudflareTest(async () => ({
            remoteBindings: false,
            main: "./src/index.ts",
            wrangler: { configPath: "./test/worker/wrangler.toml" },
            miniflare: {
              bindings: {
                TEST_MIGRATIONS: await readD1Migrations("migrations/d1"),
                TEST_DIRECTORY_MIGRATIONS: await readD1Migrations("migrations/directory"),
              },
            },
          })),
        ],
        test: { name: "worker", include: ["test/worker/**/*.test.ts"], setupFiles: ["test/worker/setup.ts"] },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          globalSetup: ["test/e2e/build.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
