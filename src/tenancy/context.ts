/**
 * The tenant as a type that nobody else can make. Everyone may import the types and `assertMinted`; only
 * `authenticate.ts` and `jobs.ts` beside this file may import `mint` (a lint wall holds that).
 */
import type { Isolation } from "../core/policy";

declare const brand: unique symbol;

/** A server-made id `proj_…`, or the reserved `platform`, the operator's own tenant. */
export type TenantId = string & { readonly [brand]: "TenantId" };

/** Where a tenant's objects live; part of every object name. */
export type Region = "global" | "eu" | "us";

export type { Isolation } from "../core/policy";

/** The reserved tenant that owns the operator's keys, the list of projects and the organization-wide ledger. */
export const PLATFORM_TENANT = "platform";

export const SCOPES = ["data", "account", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** What a key must have to mint an end user's token, and to keep: the token reads and writes data in its name. */
export const MINTING_SCOPES = ["account", "data"] as const satisfies readonly Scope[];

/** Who acts, so that no record ever has to guess. */
export type Actor =
  | { readonly type: "api_key"; readonly keyId: string; readonly serviceAccountId: string }
  | {
      readonly type: "end_user";
      readonly keyId: string;
      readonly subject: string;
      readonly models: readonly string[] | null;
      readonly requestsPerMinute: number | null;
    }
  | { readonly type: "admin_key"; readonly keyId: string }
  | { readonly type: "job"; readonly name: string };

/** What the directory knows of a tenant: enough to find its objects, nothing else. */
export interface TenantLocation {
  readonly tenantId: string;
  readonly region: Region;
}

/** Where a tenant's rows are: what its gate says beside what the directory knows. */
export interface TenantHome extends TenantLocation {
  readonly isolation: Isolation;
}

class Context {
  readonly #minted = true; // makes the type nominal: no object literal and no single `as` can imitate it
  readonly tenantId: TenantId;
  readonly region: Region;
  /** Whether its rows lie among those of others, in a schema of its own, or in a database of its own. */
  readonly isolation: Isolation;

  constructor(
    home: TenantHome,
    readonly actor: Actor,
    readonly scopes: readonly Scope[],
  ) {
    this.tenantId = home.tenantId as TenantId;
    this.region = home.region;
    this.isolation = home.isolation;
    Object.freeze(this);
  }

  static isMinted(value: unknown): value is Context {
    return typeof value === "object" && value !== null && #minted in value && value.#minted;
  }
}

export type TenantContext = Context; // the type leaves this module, the constructor does not

/** Binds a located tenant to whoever acts for it. Callers have proven both. */
export function mint(home: TenantHome, actor: Actor, scopes: readonly Scope[]): TenantContext {
  return new Context(home, actor, Object.freeze([...scopes]));
}

/** First line of every door to storage: a cast can fool the compiler, not this. */
export function assertMinted(value: unknown): asserts value is TenantContext {
  if (!Context.isMinted(value)) throw new TypeError("tenant context not made by authenticate() or a job's door");
}
