import { backgroundRuns } from "../durable-objects/background-runs";
import { idempotencyStore } from "../durable-objects/idempotency-store";
import { ModelDispatcher } from "../durable-objects/model-dispatcher";
import { tenantDatabase } from "../durable-objects/tenant-database";
import { tenantGate } from "../durable-objects/tenant-gate";
import { createApp } from "./app";
import { MIGRATIONS } from "./data/migrations";
import { backgroundPorts } from "./http/response-background";
import { ROUTES } from "./http/routes";
import { gatePorts, idempotencyPorts, servicesOf } from "./services";

/** Entry of the Worker: wires ports, exports the Durable Objects. */
export class TenantGate extends tenantGate(gatePorts) {}
export class BackgroundRuns extends backgroundRuns(backgroundPorts(servicesOf)) {}
export class IdempotencyStore extends idempotencyStore(idempotencyPorts) {}
export { ModelDispatcher };
export class TenantDatabase extends tenantDatabase(MIGRATIONS) {}

const app = createApp(ROUTES, servicesOf);

export default { fetch: (request, env, ctx) => app.fetch(request, env, ctx) } satisfies ExportedHandler<object>;
