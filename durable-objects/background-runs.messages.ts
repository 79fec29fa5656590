import { z } from "zod";

const Id = z.string().min(1).max(200);
const Milliseconds = z.int().min(0);
const Count = z.int().min(0).max(1_000_000_000);

/** What goes between the Worker and BackgroundRuns. Version 1: work that begins at once, with no limit of its own. */
export const StartRequest = z.object({
  id: Id,
  createdAtMs: Milliseconds,
  /** Who asked, and what: as the Worker wrote it, for the Worker to read again. */
  task: z.string().max(1_000_000),
});
export type StartRequest = z.input<typeof StartRequest>;

/** Version 2: work that is taken on first, and begins when its caller says so, or after {@link BEGIN_AFTER_MS}. */
export const AcceptRequest = StartRequest.extend({
  /** Whose work it is beside the tenant's; empty for the tenant's own. */
  endUser: z.string().max(512),
  /** Until when what was reserved for it at the gate may be used; then it is given back, and asked for anew. */
  heldUntilMs: Milliseconds,
  limits: z.object({ runs: Count, bytes: Count, endUserRuns: Count }),
});
export type AcceptRequest = z.input<typeof AcceptRequest>;

export type AcceptReply =
  | { readonly accepted: true }
  /** `limit` is that of the rule. */
  | { readonly accepted: false; readonly rule: "runs" | "bytes" | "end_user_runs"; readonly limit: number };

/** Work that was taken on and not begun by its caller begins by itself: its caller may have been cut off. */
export const BEGIN_AFTER_MS = 60_000;

export interface BackgroundTask {
  readonly id: string;
  readonly createdAtMs: number;
  readonly task: string;
  /** Whether what was reserved for it at the gate is there still. */
  readonly isHeld: boolean;
}

/** The methods of BackgroundRuns, as its callers see them. */
export interface BackgroundRunsRpc {
  start(request: StartRequest): Promise<void>;
  /** May be repeated. */
  accept(request: AcceptRequest): Promise<AcceptReply>;
  /** Begins what was accepted; nothing where it has begun or is over. */
  begin(id: string): Promise<void>;
  /** Forgets what was accepted and has not begun. */
  forget(id: string): Promise<void>;
  /** Settles when the run has ended; at once for one that is over or never was. */
  cancel(id: string): Promise<void>;
  countRows(): Promise<number>;
  erase(): Promise<void>;
}
