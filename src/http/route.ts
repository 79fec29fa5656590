import type { Stage } from "../pipeline/stages";
import type { Opening } from "../tenancy/authenticate";
import type { Scope } from "../tenancy/context";
import type { AppContext, Handler } from "./handler";

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** Hono's pattern; `:name` is a parameter. */
  readonly path: string;
  /** Who may call it; a route without one answers 500. */
  readonly scope: Scope | "public" | undefined;
  /** What a caller must have besides. */
  readonly alsoScopes?: readonly Scope[];
  /** The stages a request passes, in their order. */
  readonly stages: readonly Stage[];
  readonly handler: Handler;
  /** The body is a form with a file, of which nothing is held; other bodies are read whole. */
  readonly readsForm?: true;
  /** The reply shows a secret, once: an `Idempotency-Key` keeps no such reply. */
  readonly showsSecret?: true;
  /** The model call that a request is for, for the door: see {@link Opening}. */
  readonly opening?: (c: AppContext) => Opening;
}
