import type { BackgroundRunsRpc, StartRequest } from "../../durable-objects/background-runs.messages";
import type { TenantContext } from "./context";
import { askGate } from "./gates";

export type { BackgroundPorts } from "../../durable-objects/background-runs";
export type { BackgroundTask } from "../../durable-objects/background-runs.messages";

export type BackgroundRunsOf = (context: TenantContext) => BackgroundRunsRpc;

/** Takes work on that is durable when this settles. @throws ApiError 503 */
export const startRun = (runsOf: BackgroundRunsOf, tenant: TenantContext, request: StartRequest): Promise<void> =>
  askGate(() => runsOf(tenant).start(request), "storage_unavailable");

/** Settles when it has ended. @throws ApiError 503 */
export const cancelRun = (runsOf: BackgroundRunsOf, tenant: TenantContext, id: string): Promise<void> =>
  askGate(() => runsOf(tenant).cancel(id), "storage_unavailable");
