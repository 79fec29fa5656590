import type { Context } from "hono";
import type { PolicySnapshot } from "../core/policy";
import type { Services } from "../services";
import type { Opened } from "../tenancy/authenticate";
import type { TenantContext } from "../tenancy/context";
import type { Route } from "./route";

/** What a handler can reach: its tenant, and services that ask for one. No binding. */
export interface Variables {
  readonly requestId: string;
  readonly route: Route;
  readonly services: Services;
  /** Set on every route whose scope is not public. */
  readonly tenant: TenantContext;
  readonly policy: PolicySnapshot;
  /** The gate's answer to the call itself, where it was asked who calls. */
  readonly opened: Opened | undefined;
  /** How the reply ends, where its status was sent before that was known. */
  readonly ending: { failed: boolean; formDigest: string | null };
}
/** `env` has nothing in it for a handler: a binding that is read there does not compile. */
export type AppEnv = { Variables: Variables; Bindings: Readonly<Record<never, never>> };
export type AppContext = Context<AppEnv>;
export type Handler = (c: AppContext) => Response | Promise<Response>;
