import type { DataKeys, PayloadSealing, WrappedKey } from "../../durable-objects/ports";
import type { ObjectAddress } from "../core/object-name";
import type { Region } from "./context";
import type { GateAt } from "./gates";

/**
 * What a tenant's objects keep of requests and replies, sealed. The gate is asked for the wrapped key once, by each
 * object that keeps something.
 */
export function payloadSealing(dataKeys: DataKeys, gateAt: GateAt): (tenant: ObjectAddress) => PayloadSealing {
  return (tenant) => {
    let wrapped: WrappedKey | undefined;
    const key = async (): Promise<WrappedKey> => {
      const region = tenant.region as Region;
      wrapped ??= (await gateAt({ tenantId: tenant.tenantId, region }).dataKey()) ?? undefined;
      if (!wrapped) throw new TypeError("this tenant has no data key");
      return wrapped;
    };
    return {
      seal: async (purpose, text) => dataKeys.seal(tenant, await key(), purpose, new TextEncoder().encode(text)),
      open: async (purpose, sealed) =>
        new TextDecoder().decode(await dataKeys.open(tenant, await key(), purpose, sealed)),
    };
  };
}
