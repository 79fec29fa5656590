import type { Ledger, ObjectHome } from "./ports";
import type { Statements, UsageKey } from "./tenant-gate-statements";
import { lastUsed, type UsageHours } from "./usage-hours";

/** Hours of one write to the ledger, so that memory and a write stay small after a long outage. */
export const FLUSH_HOURS = 500;
/** Hours that the ledger has stay this long, in milliseconds; no event is counted in them any more by then. */
export const SYNCED_HOURS_MS = 48 * 3_600_000;
/** Hours that one flush forgets, so that a first one after years stays short. */
const FORGET_HOURS = 5_000;

/** What a flush needs of its gate. */
export interface UsageFlushDeps {
  readonly sql: Statements;
  readonly usage: UsageHours;
  readonly ledger: Ledger;
  readonly transaction: (work: () => void) => void;
  /** No event is stamped earlier than this any more. */
  readonly floorMs: () => number;
}

/**
 * Brings what the ledger may not have yet to it, in one pass over the durable hours, and forgets hours that it has.
 * An hour counts as written only when the ledger said so and the hour did not grow meanwhile; everything else is
 * written again, last uses of keys included, because they are read from the same hours.
 * @throws what the ledger throws; what it took before stays taken
 */
export async function flushUsage(deps: UsageFlushDeps, home: ObjectHome, nowMs: number): Promise<void> {
  const { sql, usage, ledger, transaction } = deps;
  let after: UsageKey | null = null;
  for (;;) {
    const hours = usage.unsynced(after, FLUSH_HOURS);
    const last = hours.at(-1);
    if (!last) break;
    const rows = hours.map((hour) => hour.usage);
    await ledger.write(home, rows, lastUsed(rows), nowMs);
    transaction(() => {
      for (const hour of hours) hour.markSynced();
    });
    after = last.key;
  }
  // A deleted hour that was counted again would begin at zero, so the clock of the records decides, not this machine's.
  sql.removeSyncedUsage(Math.min(nowMs, deps.floorMs()) - SYNCED_HOURS_MS, FORGET_HOURS);
}
