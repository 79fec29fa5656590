import { type StorageLimit, type StorageQuota, storageQuotaOf } from "../core/plans";
import type { PolicySnapshot } from "../core/policy";
import type { StoredKind } from "../data/schema";
import { isBeyondQuota, type StorageUse, storageUse } from "../data/storage-use";
import { ApiError } from "../errors";
import { BoundedCache } from "../tenancy/bounded-cache";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";

/** Where this much of a quota is still free, it is not asked for again for a while: the write checks it exactly. */
const AMPLE_SHARE = 0.1;
const AMPLE_MS = 60_000;
const MAX_REMEMBERED_OWNERS = 10_000;

/** What storing needs: where, whose, and what its plan allows. */
export interface Storing {
  readonly ports: TenancyPorts;
  readonly tenant: TenantContext;
  readonly policy: PolicySnapshot;
  readonly kind: StoredKind;
  /** Gives back the room of what has expired. @returns whether there was anything */
  readonly sweep: () => Promise<boolean>;
}

const ample = new WeakMap<TenancyPorts, BoundedCache<number>>(); // once per isolate

/**
 * Whether there is room for one more of so many bytes, before it is paid for. Reads two rows at most, and none within
 * {@link AMPLE_MS} of having seen plenty.
 * @throws ApiError 403 `storage_quota_exceeded`
 */
export async function assertRoom(storing: Storing, bytes: number): Promise<void> {
  const { ports, tenant, kind } = storing;
  const name = `${kind} ${tenant.tenantId} ${endUserOf(tenant) ?? ""}`;
  const seen = ample.get(ports) ?? new BoundedCache<number>(MAX_REMEMBERED_OWNERS);
  ample.set(ports, seen);
  if ((seen.get(name) ?? 0) > Date.now()) return;
  const state = await roomFor(storing, bytes);
  if (state === "ample") seen.set(name, Date.now() + AMPLE_MS);
  if (state !== "none") return;
  // What has expired takes no room: it is cleared away before anybody is refused for it.
  if (!(await storing.sweep()) || (await roomFor(storing, bytes)) === "none") throw beyondQuota(storing);
}

/**
 * Writes what takes room; `write` fails as a whole where it would pass the quota.
 * @throws ApiError 403 `storage_quota_exceeded`
 */
export async function takingRoom(storing: Storing, write: (quota: StorageQuota) => Promise<void>): Promise<void> {
  const quota = storageQuotaOf(storing.policy, storing.kind);
  try {
    await write(quota);
  } catch (error) {
    if (!isBeyondQuota(error)) throw error;
    if (!(await storing.sweep())) throw beyondQuota(storing);
    await write(quota).catch((again) => {
      throw isBeyondQuota(again) ? beyondQuota(storing) : again;
    });
  }
}

/**
 * How many bytes of one more object there is room for now.
 * @throws ApiError 403 `storage_quota_exceeded` where there is none for another object
 */
export async function bytesLeft(storing: Storing): Promise<number> {
  let left = await roomLeft(storing);
  if ((left.objects < 1 || left.bytes < 1) && (await storing.sweep())) left = await roomLeft(storing);
  if (left.objects < 1) throw beyondQuota(storing);
  return Math.max(0, left.bytes);
}

async function roomLeft({ ports, tenant, policy, kind }: Storing): Promise<StorageUse> {
  const endUser = endUserOf(tenant);
  const quota = storageQuotaOf(policy, kind);
  const used = await storageUse(ports.data(tenant), { kind, endUser: endUser ?? "" });
  const left = (limit: StorageLimit, { objects, bytes }: StorageUse) => ({
    objects: limit.count - objects,
    bytes: limit.bytes - bytes,
  });
  const whole = left(quota, used.tenant);
  if (endUser === null) return whole;
  const own = left(quota.endUser, used.endUser);
  return { objects: Math.min(whole.objects, own.objects), bytes: Math.min(whole.bytes, own.bytes) };
}

async function roomFor({ ports, tenant, policy, kind }: Storing, bytes: number): Promise<"ample" | "some" | "none"> {
  const endUser = endUserOf(tenant);
  const quota = storageQuotaOf(policy, kind);
  const used = await storageUse(ports.data(tenant), { kind, endUser: endUser ?? "" });
  const states = [stateOf(used.tenant, quota, bytes)];
  if (endUser !== null) states.push(stateOf(used.endUser, quota.endUser, bytes));
  if (states.includes("none")) return "none";
  return states.includes("some") ? "some" : "ample";
}

function stateOf(used: StorageUse, limit: StorageLimit, bytes: number): "ample" | "some" | "none" {
  if (used.objects + 1 > limit.count || used.bytes + bytes > limit.bytes) return "none";
  const share = 1 - AMPLE_SHARE;
  return used.objects < limit.count * share && used.bytes + bytes < limit.bytes * share ? "ample" : "some";
}

/** An end user sees and fills what is its own; the tenant's server sees everything. */
export const endUserOf = ({ actor }: TenantContext): string | null =>
  actor.type === "end_user" ? actor.subject : null;

export function beyondQuota({ tenant, policy, kind }: Storing): ApiError {
  const { endUser, ...whole } = storageQuotaOf(policy, kind);
  const what = kind === "file" ? "files" : "stored completions and responses";
  const rooms = `${whole.count} ${what} and ${whole.bytes} bytes in all`;
  const own = endUserOf(tenant) === null ? "" : `, each end user for ${endUser.count} and ${endUser.bytes} bytes`;
  const advice = kind === "file" ? "Delete what is not needed." : "Delete what is not needed, or send 'store: false'.";
  const message = `This project's plan has room for ${rooms}${own}. ${advice}`;
  const headers = { "x-should-retry": "false" };
  return new ApiError("storage_quota_exceeded", message, { param: kind === "file" ? "file" : "store", headers });
}
