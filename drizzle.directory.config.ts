import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "sqlite",
  schema: "./src/data/directory-schema.ts",
  out: "./migrations/directory",
});
