import { type Actor, mint, PLATFORM_TENANT, type TenantContext, type TenantHome } from "./context";

/** The door for what has no caller: alarms and other work of a tenant's own objects. `home` is the object's own. */
export function enterAsJob(home: TenantHome, name: string): TenantContext {
  return mint(home, { type: "job", name }, []);
}

/** For work that goes on after its caller has left: in its name, and with its rights as they are then. */
export function enterForCaller(home: TenantHome, actor: Actor): TenantContext {
  return mint(home, actor, ["data"]);
}

/** The same for work on what belongs to the operator. */
export function enterPlatformAsJob(name: string): TenantContext {
  return enterAsJob({ tenantId: PLATFORM_TENANT, region: "global", isolation: "pool" }, name);
}
