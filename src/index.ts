import { tenantGate } from "../durable-objects/tenant-gate";
import { createApp } from "./app";
import { ROUTES } from "./http/routes";
import { gatePorts, servicesOf } from "./services";

/** Entry of the Worker: wires ports, exports the Durable Objects. */
export class TenantGate extends tenantGate(gatePorts) {}

const app = createApp(ROUTES, servicesOf);

export default { fetch: app.fetch } satisfies ExportedHandler;
