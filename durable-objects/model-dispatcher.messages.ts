import { z } from "zod";

/** What goes between the Worker and a ModelDispatcher. Version 1. */
const Id = z.string().min(1).max(200);
const Tokens = z.int().min(0).max(1_000_000_000);

export const AcquireRequest = z.strictObject({
  requestId: Id,
  tenantId: Id,
  keyId: Id,
  /** Of the tenant's plan. */
  weight: z.number().positive().max(1_000_000),
  /** Upper bound of the prompt; corrected when the slot is freed. */
  inputTokens: Tokens,
  patienceMs: z.int().min(0).max(600_000),
  /** Calls of the model that may run at once, by the catalogue. */
  slots: z.int().min(1).max(100_000),
});
export type AcquireRequest = z.infer<typeof AcquireRequest>;

export type AcquireReply =
  | { readonly acquired: true; readonly queuedMs: number }
  | {
      readonly acquired: false;
      readonly reason: "queue_full" | "queue_timeout" | "left";
      readonly retryAfterMs: number;
    };

export const ReleaseRequest = z.strictObject({ requestId: Id, inputTokens: Tokens, outputTokens: Tokens });
export type ReleaseRequest = z.infer<typeof ReleaseRequest>;

/** What an autoscaler of the machines behind the model follows. */
export interface DispatcherMetrics {
  readonly queueDepth: number;
  readonly oldestWaitMs: number;
  readonly inFlight: number;
}

/** The methods of a ModelDispatcher, as its callers see them. */
export interface ModelDispatcherRpc {
  /** A slot, when it is this call's turn. */
  acquire(request: AcquireRequest): Promise<AcquireReply>;
  /** The caller of a waiting request has gone; one that runs already is not touched. */
  leave(requestId: string): Promise<void>;
  /** So many output tokens so far: charged, and a sign of life. */
  progress(requestId: string, outputTokens: number): Promise<void>;
  /** Frees the slot with what was really taken. May be called again. */
  release(request: ReleaseRequest): Promise<void>;
  metrics(): Promise<DispatcherMetrics>;
  /** Rows that name a tenant. */
  countRows(tenantId: string): Promise<number>;
  /** Forgets a tenant's counters. For the end of a tenant alone. */
  eraseTenant(tenantId: string): Promise<void>;
}
