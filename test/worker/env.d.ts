import type { BackgroundRuns, IdempotencyStore, ModelDispatcher, TenantDatabase, TenantGate } from "../../src/index";

declare global {
  namespace Cloudflare {
    interface Env {
      readonly DB: D1Database;
      readonly DIRECTORY: D1Database;
      readonly HYPERDRIVE: Hyperdrive;
      readonly ARTIFACTS: R2Bucket;
      readonly TENANT_GATE: DurableObjectNamespace<TenantGate>;
      readonly BACKGROUND_RUNS: DurableObjectNamespace<BackgroundRuns>;
      /** The product's class, with ports that the tests hold. */
      readonly SCRIPTED_RUNS: DurableObjectNamespace<BackgroundRuns>;
      readonly IDEMPOTENCY_STORE: DurableObjectNamespace<IdempotencyStore>;
      readonly MODEL_DISPATCHER: DurableObjectNamespace<ModelDispatcher>;
      readonly TENANT_DATABASE: DurableObjectNamespace<TenantDatabase>;
      readonly TEST_MIGRATIONS: D1Migration[];
      readonly TEST_DIRECTORY_MIGRATIONS: D1Migration[];
    }
  }
  interface D1Migration {
    readonly name: string;
    readonly queries: string[];
  }
}
