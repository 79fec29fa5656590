import { mint, PLATFORM_TENANT, type TenantContext, type TenantHome } from "./context";

/** The door for what has no caller: alarms and other work of a tenant's own objects. `home` is the object's own. */
export function enterAsJob(home: TenantHome, name: string): TenantContext {
  return mint(home, { type: "job", name }, []);
}

/** The same for work on what belongs to the operator. */
export function enterPlatformAsJob(name: string): TenantContext {
  return enterAsJob({ tenantId: PLATFORM_TENANT, region: "global", isolation: "pool" }, name);
}
