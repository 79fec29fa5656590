import type { ObjectAddress } from "../core/object-name";
import { mint, PLATFORM_TENANT, type Region, type TenantContext } from "./context";

/** The door for what has no caller: alarms and other work of a tenant's own objects. `address` is the object's own. */
export function enterAsJob(address: ObjectAddress, name: string): TenantContext {
  return mint({ tenantId: address.tenantId, region: address.region as Region }, { type: "job", name }, []);
}

/** The same for work on what belongs to the operator. */
export function enterPlatformAsJob(name: string): TenantContext {
  return enterAsJob({ tenantId: PLATFORM_TENANT, region: "global" }, name);
}
