import {
  type ClaimReply,
  type ClaimRequest,
  type IdempotencyStoreRpc,
  type KeptReply,
  MAX_REPLY_BYTES,
} from "../../durable-objects/idempotency-store.messages";
import type { TenantContext } from "./context";
import { askGate } from "./gates";

export type { ClaimReply, KeptReply } from "../../durable-objects/idempotency-store.messages";
export { MAX_REPLY_BYTES };

export type IdempotencyStoreOf = (context: TenantContext) => IdempotencyStoreRpc;

/** A request that does the work of its key. */
export interface Claim {
  /** @param content SHA-256 of a form, once it is read; null for other bodies. @throws ApiError 503 */
  readonly keep: (reply: KeptReply | null, content: string | null) => Promise<void>;
  readonly release: () => Promise<void>;
}

/**
 * Asks whether a request is the first with its key. @returns the claim, or what became of the first
 * @throws ApiError 503 when nobody can tell: nothing is done twice by accident
 */
export async function claimKey(
  storeOf: IdempotencyStoreOf,
  tenant: TenantContext,
  request: ClaimRequest,
): Promise<Claim | Exclude<ClaimReply, { state: "claimed" }>> {
  const store = storeOf(tenant);
  const { key, requestId } = request;
  const answer = await askGate(() => store.claim(request), "storage_unavailable");
  if (answer.state !== "claimed") return answer;
  return {
    keep: (reply, content) => askGate(() => store.keep({ key, requestId, content, reply }), "storage_unavailable"),
    release: () => store.release(key, requestId).catch(() => {}), // else the claim ends by itself
  };
}
