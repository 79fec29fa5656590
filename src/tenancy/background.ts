import type { AcceptReply, AcceptRequest, BackgroundRunsRpc } from "../../durable-objects/background-runs.messages";
import { ApiError } from "../errors";
import type { TenantContext } from "./context";
import { askGate } from "./gates";

export type { BackgroundPorts } from "../../durable-objects/background-runs";
export type { BackgroundTask } from "../../durable-objects/background-runs.messages";

export type BackgroundRunsOf = (context: TenantContext) => BackgroundRunsRpc;

/** Takes work on that is durable when this settles, and begins with {@link beginRun}. @throws ApiError 429, 503 */
export async function acceptRun(
  runsOf: BackgroundRunsOf,
  tenant: TenantContext,
  request: AcceptRequest,
): Promise<void> {
  const reply = await askGate(() => runsOf(tenant).accept(request), "storage_unavailable");
  if (!reply.accepted) throw tooMuch(reply);
}

export const beginRun = (runsOf: BackgroundRunsOf, tenant: TenantContext, id: string): Promise<void> =>
  askGate(() => runsOf(tenant).begin(id), "storage_unavailable");

/** Forgets work that has not begun. @throws ApiError 503 */
export const forgetRun = (runsOf: BackgroundRunsOf, tenant: TenantContext, id: string): Promise<void> =>
  askGate(() => runsOf(tenant).forget(id), "storage_unavailable");

/** Settles when it has ended. @throws ApiError 503 */
export const cancelRun = (runsOf: BackgroundRunsOf, tenant: TenantContext, id: string): Promise<void> =>
  askGate(() => runsOf(tenant).cancel(id), "storage_unavailable");

function tooMuch({ rule, limit }: Extract<AcceptReply, { accepted: false }>): ApiError {
  const what = {
    runs: `${limit} of this project's responses`,
    end_user_runs: `${limit} of this end user's responses`,
    bytes: `${limit} bytes of this project's requests`,
  }[rule];
  const message = `At most ${what} may wait or run in the background; as many are. Try again when some are over.`;
  return new ApiError("queue_full", message, { param: "background", headers: { "retry-after": "5" } });
}
