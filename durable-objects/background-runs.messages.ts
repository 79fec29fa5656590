import { z } from "zod";

/** What goes between the Worker and BackgroundRuns. Version 1. */
export const StartRequest = z.strictObject({
  id: z.string().min(1).max(200),
  createdAtMs: z.int().min(0),
  /** Who asked, and what: as the Worker wrote it, for the Worker to read again. */
  task: z.string().max(1_000_000),
});
export type StartRequest = z.input<typeof StartRequest>;
export type BackgroundTask = z.output<typeof StartRequest>;

/** The methods of BackgroundRuns, as its callers see them. */
export interface BackgroundRunsRpc {
  start(request: StartRequest): Promise<void>;
  /** Settles when the run has ended; at once for one that is over or never was. */
  cancel(id: string): Promise<void>;
  countRows(): Promise<number>;
  erase(): Promise<void>;
}
