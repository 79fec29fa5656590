import type { TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import type { TenantData } from "../data/tenant-data";
import type { Authenticator } from "./authenticate";
import type { Region, TenantContext } from "./context";
import type { EndUserTokens } from "./end-user-tokens";

/** What the services of the control plane need; every tenant-bound part asks for a context. */
export interface TenancyPorts {
  readonly authenticator: Authenticator;
  readonly tokens: EndUserTokens;
  readonly gate: (context: TenantContext) => TenantGateRpc;
  readonly data: (context: TenantContext) => TenantData;
  /** Regions that this deployment offers. */
  readonly regions: readonly Region[];
}
