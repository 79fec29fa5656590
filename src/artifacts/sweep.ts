import { endArtifacts, expiredArtifacts, forgetArtifacts, nextArtifactTimes } from "../data/artifacts";
import { MAX_SWEPT_ROWS } from "../data/storage-use";
import type { TenantData } from "../data/tenant-data";

/** Batches of one sweep, so that an alarm stays short. */
const MAX_BATCHES = 10;

/** @returns how many were ended, and whether none is left */
export async function sweepExpiredArtifacts(
  data: TenantData,
  nowMs: number,
): Promise<{ readonly ended: number; readonly isDone: boolean }> {
  let ended = 0;
  for (let batch = 0; batch < MAX_BATCHES; batch++) {
    const rows = await expiredArtifacts(data, nowMs, MAX_SWEPT_ROWS);
    ended += await endArtifacts(data, rows, { change: crypto.randomUUID(), nowMs });
    if (rows.length < MAX_SWEPT_ROWS) return { ended, isDone: true };
  }
  return { ended, isDone: false };
}

/**
 * Ends what has expired, and removes for good what was deleted before the retention, in bounded batches.
 * @returns when there is more to do; undefined when nothing ever
 */
export async function sweepArtifacts(
  data: TenantData,
  nowMs: number,
  retentionMs: number,
): Promise<number | undefined> {
  const { isDone } = await sweepExpiredArtifacts(data, nowMs);
  let forgotten = MAX_SWEPT_ROWS;
  for (let batch = 0; batch < MAX_BATCHES && forgotten === MAX_SWEPT_ROWS; batch++)
    forgotten = await forgetArtifacts(data, nowMs - retentionMs, MAX_SWEPT_ROWS);
  if (!isDone || forgotten === MAX_SWEPT_ROWS) return nowMs;
  const { expiresAtMs, deletedAtMs } = await nextArtifactTimes(data);
  return earliest(expiresAtMs, deletedAtMs === undefined ? undefined : deletedAtMs + retentionMs);
}

/** The smallest of those that there are. */
export function earliest(...times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
