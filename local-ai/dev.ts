/**
 * The local entry: the Worker as it is in production, and beside it the stand-in for Workers AI. Databases are
 * brought up to date on the first request, so that `npx wrangler dev` alone is enough.
 */
import worker from "../src/index";
import { migrateLocalDatabases } from "./local-databases";

export * from "../src/index";
export { EmbeddedModel } from "./embedded-model";
export { EmbeddedTrainer } from "./embedded-trainer";
export { LocalAI } from "./local-ai";
export { LocalTrainer } from "./local-trainer";

type Env = Parameters<typeof migrateLocalDatabases>[0];

export default {
  async fetch(request, env, ctx) {
    await migrateLocalDatabases(env);
    return worker.fetch(request, env, ctx);
  },
} satisfies ExportedHandler<Env>;
