import { z } from "zod";

/** What goes between the Worker and a ModelDispatcher. Version 1. */
const Id = z.string().min(1).max(200);
const Tokens = z.int().min(0).max(1_000_000_000);

export const AcquireRequest = z.object({
  requestId: Id,
  tenantId: Id,
  keyId: Id,
  /** Of the tenant's plan. */
  weight: z.number().positive().max(1_000_000),
  /** Upper bound of the prompt; corrected when the slot is freed. */
  inputTokens: Tokens,
  patienceMs: z.int().min(0).max(600_000),
  /** Sequences of the model that may run at once, by the catalogue. */
  slots: z.int().min(1).max(100_000),
  /** Of the call, that would run at once if there were room; absent from a Worker that knows one a call. */
  sequences: z.int().min(1).max(1_000).default(1),
});
export type AcquireRequest = z.input<typeof AcquireRequest>;

/** Where a call goes; null for models whose one address is in the catalogue. */
export interface CallEndpoint {
  readonly id: string;
  readonly url: string;
  /** Of the call, that may run there at once; absent from an object that knows one a call. */
  readonly sequences?: number;
}
export type AcquireReply =
  | {
      readonly acquired: true;
      readonly queuedMs: number;
      readonly endpoint: CallEndpoint | null;
      /** Of the call, that may run at once: at least one, at most as many as were asked for. */
      readonly sequences?: number;
    }
  | {
      readonly acquired: false;
      /** `left`: the call was cancelled or released before. */
      readonly reason: "queue_full" | "queue_timeout" | "left";
      readonly retryAfterMs: number;
    };

/** `outcome` is what the call says of its endpoint, see `src/core/endpoint-pool.ts`. */
export const ReleaseRequest = z.object({
  requestId: Id,
  inputTokens: Tokens,
  outputTokens: Tokens,
  outcome: z.enum(["ended", "failed"]).default("ended"),
});

/** Before its first token: the endpoint did not answer, another may. */
export const FailoverRequest = z.object({
  requestId: Id,
  /** The one that failed: a call that has moved on already does not move again. Absent from an earlier Worker. */
  endpointId: Id.optional(),
  outcome: z.enum(["failed", "busy"]),
  restMs: z.int().min(0).max(600_000),
});
export type FailoverRequest = z.infer<typeof FailoverRequest>;

export const EndpointSpec = z.object({
  id: Id,
  url: z.url().max(2_000),
  maxInFlight: z.int().min(1).max(100_000),
});
export type EndpointSpec = z.infer<typeof EndpointSpec>;
export interface ListedEndpoint extends EndpointSpec {
  readonly addedAtMs: number;
  readonly state: "closed" | "open" | "half_open" | "leaving";
  readonly inFlight: number;
  readonly failures: number;
}
export type ReleaseRequest = z.input<typeof ReleaseRequest>;

/** What an autoscaler of the machines behind the model follows; `inFlight` counts sequences. */
export interface DispatcherMetrics {
  readonly queueDepth: number;
  readonly oldestWaitMs: number;
  readonly inFlight: number;
}

/** The methods of a ModelDispatcher, as its callers see them. */
export interface ModelDispatcherRpc {
  /** A slot, when it is this call's turn; several at once, as far as they are free, for one of several sequences. */
  acquire(request: AcquireRequest): Promise<AcquireReply>;
  /** The caller of a waiting request has gone; one that runs already is not touched. May overtake {@link acquire}. */
  leave(requestId: string): Promise<void>;
  /** So many output tokens so far: charged, and a sign of life. */
  progress(requestId: string, outputTokens: number): Promise<void>;
  /** Frees the slot with what was really taken. May be called again, and may overtake {@link acquire}. */
  release(request: ReleaseRequest): Promise<void>;
  /** @returns another endpoint for the same slot; null where there is none that was not tried */
  failover(request: FailoverRequest): Promise<CallEndpoint | null>;
  /** Joins, or changes its address or size; calls that run there go on. */
  addEndpoint(spec: EndpointSpec): Promise<void>;
  /** Lets one leave: no new call goes there. @returns false where there is none */
  removeEndpoint(id: string): Promise<boolean>;
  listEndpoints(): Promise<readonly ListedEndpoint[]>;
  metrics(): Promise<DispatcherMetrics>;
  /** Rows that name a tenant. */
  countRows(tenantId: string): Promise<number>;
  /** Forgets a tenant's counters. For the end of a tenant alone. */
  eraseTenant(tenantId: string): Promise<void>;
}
