import { earliest } from "../artifacts/sweep";
import {
  expiredFiles,
  type FileRow,
  filesToSweep,
  forgetFiles,
  forgettableFiles,
  markRemoved,
  markRemoving,
  nextFileTimes,
  postponeRemoval,
} from "../data/files";
import { MAX_SWEPT_ROWS } from "../data/storage-use";
import type { TenantData } from "../data/tenant-data";
import type { FileStore } from "../storage/files";
import type { TenantContext } from "../tenancy/context";

/** Batches of one sweep, so that an alarm stays short. */
const MAX_BATCHES = 10;
/** Bytes that could not be removed are tried again after this long. */
const RETRY_MS = 5 * 60 * 1000;

export interface SweepPorts {
  readonly data: (tenant: TenantContext) => TenantData;
  readonly files: Pick<FileStore, "remove">;
}
type Removable = Pick<FileRow, "id" | "endUser">;

/**
 * Removes files in three steps, of which each may be the last before a crash: nobody finds them and their room is
 * free; their bytes are gone; their rows say so. Maintenance goes on where it was cut off.
 * @param from the state that they must be in still
 * @returns how many were
 */
export async function removeFiles(
  ports: SweepPorts,
  tenant: TenantContext,
  files: readonly Removable[],
  { from, nowMs }: { readonly from: "ready" | "uploading"; readonly nowMs: number },
): Promise<number> {
  if (files.length === 0) return 0;
  const change = crypto.randomUUID();
  const marked = await markRemoving(ports.data(tenant), files, { from, change, nowMs });
  if (marked === files.length) await removeBytes(ports, tenant, files, nowMs);
  return marked; // of some, somebody else has decided meanwhile: maintenance finds those that are marked
}

/** @returns whether the bytes are gone; where not, maintenance comes back for them */
async function removeBytes(
  ports: SweepPorts,
  tenant: TenantContext,
  files: readonly Removable[],
  nowMs: number,
): Promise<boolean> {
  const ids = files.map(({ id }) => id);
  const data = ports.data(tenant);
  try {
    await ports.files.remove(tenant, ids);
    await markRemoved(data, ids, nowMs);
    return true;
  } catch (error) {
    console.error(JSON.stringify({ event: "file_bytes_not_removed", files: ids.length, reason: String(error) }));
    await postponeRemoval(data, ids, nowMs + RETRY_MS).catch(() => {}); // due already, then
    return false;
  }
}

/** @returns how many were removed, and whether none is left */
export async function sweepExpiredFiles(
  ports: SweepPorts,
  tenant: TenantContext,
  nowMs: number,
): Promise<{ readonly removed: number; readonly isDone: boolean }> {
  let removed = 0;
  for (let batch = 0; batch < MAX_BATCHES; batch++) {
    const expired = await expiredFiles(ports.data(tenant), nowMs, MAX_SWEPT_ROWS);
    removed += await removeFiles(ports, tenant, expired, { from: "ready", nowMs });
    if (expired.length < MAX_SWEPT_ROWS) return { removed, isDone: true };
  }
  return { removed, isDone: false };
}

/**
 * Removes what has expired, what nobody finished, and what could not be removed before; then the rows of what was
 * deleted before the retention. All in bounded batches.
 * @returns when there is more to do; undefined when nothing ever
 */
export async function sweepFiles(
  ports: SweepPorts,
  tenant: TenantContext,
  nowMs: number,
  retentionMs: number,
): Promise<number | undefined> {
  const data = ports.data(tenant);
  const expired = await sweepExpiredFiles(ports, tenant, nowMs);
  const isSwept = await inBatches(async () => {
    const due = await filesToSweep(data, nowMs, MAX_SWEPT_ROWS);
    const abandoned = due.filter(({ state }) => state === "uploading");
    await removeFiles(ports, tenant, abandoned, { from: "uploading", nowMs });
    const removing = due.filter(({ state }) => state === "removing");
    if (removing.length > 0) await removeBytes(ports, tenant, removing, nowMs);
    return due.length;
  });
  const isForgotten = await inBatches(async () => {
    const ids = await forgettableFiles(data, nowMs - retentionMs, MAX_SWEPT_ROWS);
    // Once more before nobody knows of them: earlier versions, and uploads that came late, may have left something.
    if (ids.length === 0) return 0;
    await ports.files.remove(tenant, ids);
    await forgetFiles(data, ids);
    return ids.length;
  });
  if (!expired.isDone || !isSwept || !isForgotten) return nowMs;
  const { expiresAtMs, sweepAtMs, deletedAtMs } = await nextFileTimes(data);
  return earliest(expiresAtMs, sweepAtMs, deletedAtMs === undefined ? undefined : deletedAtMs + retentionMs);
}

/** @returns whether the last batch was not a full one */
async function inBatches(batch: () => Promise<number>): Promise<boolean> {
  for (let count = 0; count < MAX_BATCHES; count++) if ((await batch()) < MAX_SWEPT_ROWS) return true;
  return false;
}
