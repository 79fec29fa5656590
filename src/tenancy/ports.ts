import type { TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import type { TenantData } from "../data/tenant-data";
import type { Authenticator } from "./authenticate";
import type { Isolation, Region, TenantContext } from "./context";
import type { EndUserTokens } from "./end-user-tokens";

export interface TenantHomes {
  /** How a tenant may be kept apart from the others here. */
  readonly offered: readonly Isolation[];
  /** Prepares a tenant's place; may be called again. */
  prepare(context: TenantContext, isolation: Isolation): Promise<void>;
}

/** What the services of the control plane need; every tenant-bound part asks for a context. */
export interface TenancyPorts {
  readonly authenticator: Authenticator;
  readonly tokens: EndUserTokens;
  readonly gate: (context: TenantContext) => TenantGateRpc;
  readonly data: (context: TenantContext) => TenantData;
  /** Regions that this deployment offers. */
  readonly regions: readonly Region[];
  /** Makes the place where a tenant's rows will lie. */
  readonly homes: TenantHomes;
}
