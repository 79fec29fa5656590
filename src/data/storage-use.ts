import { and, eq, type SQL, sql } from "drizzle-orm";
import type { StorageLimit, StorageQuota } from "../core/plans";
import type { StoredKind } from "./schema";
import type { BoundStatement, TenantData } from "./tenant-data";

/** Name of the constraint that a change beyond a quota breaks; databases name it in their error. */
const WITHIN_QUOTA = "storage_within_quota";
/** The counter of the whole tenant. */
const TENANT = "";
/** Rows of one change, so that a transaction stays short. */
export const MAX_SWEPT_ROWS = 100;

export interface StorageUse {
  readonly objects: number;
  readonly bytes: number;
}
/** Whose room something takes: the tenant's, and an end user's where it is one's (empty where it is not). */
export interface StorageOwner {
  readonly kind: StoredKind;
  readonly endUser: string;
}

/**
 * What is stored, of the tenant and of the end user: reads two rows at most. Where nobody has counted a tenant yet,
 * its rows of earlier versions are counted, once.
 */
export async function storageUse(
  data: TenantData,
  owner: StorageOwner,
): Promise<{ readonly tenant: StorageUse; readonly endUser: StorageUse }> {
  const { storageUse: table } = data.tables;
  const where = and(eq(table.kind, owner.kind), data.anyOf(table.endUser, [TENANT, owner.endUser])) as SQL;
  const read = async () => {
    const rows = await data.list(table, { where, limit: 2 });
    return new Map(rows.map((row) => [row.endUser, row]));
  };
  let found = await read();
  if (!found.has(TENANT)) {
    await data.batch([firstCount(data, owner.kind, Date.now())]);
    found = await read();
  }
  const none = { objects: 0, bytes: 0 };
  return { tenant: found.get(TENANT) ?? none, endUser: found.get(owner.endUser) ?? none };
}

/** Counts what earlier versions stored, in one statement; does nothing where there is a counter. */
function firstCount(data: TenantData, kind: StoredKind, nowMs: number): BoundStatement {
  const { storageUse: table, artifact, file } = data.tables;
  const counted = kind === "file" ? file : artifact;
  const live = sql`1 = 1`;
  return data.insertOnce(table, [table.kind, table.endUser], {
    ...{ kind, endUser: TENANT, isWithin: 1, createdAtMs: nowMs, updatedAtMs: nowMs },
    objects: data.rowsOf(counted, live),
    bytes: data.sumOf(counted, counted.bytes, live),
  });
}

/**
 * Takes room for one object. In a batch with the row that it counts, either both are written or, beyond the quota,
 * neither is, however many do so at once; writes one row for the tenant and one for an end user.
 */
export function takeRoom(
  data: TenantData,
  { kind, endUser }: StorageOwner,
  quota: StorageQuota,
  bytes: number,
  nowMs: number,
): BoundStatement[] {
  const { storageUse: table } = data.tables;
  const taken = (owner: string, limit: StorageLimit) => {
    const fits = 1 <= limit.count && bytes <= limit.bytes;
    const within = sql`case when ${table.objects} + 1 <= ${limit.count} and ${table.bytes} + ${bytes} <= ${limit.bytes}
      then 1 else 0 end`;
    const row = { kind, endUser: owner, objects: 1, bytes, isWithin: fits ? 1 : 0 };
    return data.upsert(
      table,
      [table.kind, table.endUser],
      { ...row, createdAtMs: nowMs, updatedAtMs: nowMs },
      {
        changes: {
          objects: sql`${table.objects} + 1`,
          bytes: sql`${table.bytes} + ${bytes}`,
          isWithin: within,
          updatedAtMs: nowMs,
        },
      },
    );
  };
  return [taken(TENANT, quota), ...(endUser === TENANT ? [] : [taken(endUser, quota.endUser)])];
}

/** Whether a batch was refused because it would have passed a quota. */
export const isBeyondQuota = (error: unknown): boolean => String(error).includes(WITHIN_QUOTA);

/** Rows that a change has ended: they bear its id, and nobody else's change bears it. */
export interface EndedRows {
  readonly kind: StoredKind;
  readonly change: string;
  readonly ids: readonly string[];
  /** Of those rows' end users, each once. */
  readonly endUsers: readonly string[];
}

/**
 * Gives back the room of the rows that bear `change`; in the batch that ends them, behind it. Rows that somebody else
 * has ended meanwhile do not bear it, so nothing is given back twice.
 */
export function giveBackRoom(
  data: TenantData,
  { kind, change, ids, endUsers }: EndedRows,
  nowMs: number,
): BoundStatement[] {
  const all = data.withDeleted();
  const { storageUse: table, artifact, file } = data.tables;
  const rows = kind === "file" ? file : artifact;
  const ended = and(eq(rows.change, change), data.anyOf(rows.id, ids)) as SQL;
  const named = endUsers.filter((endUser) => endUser !== TENANT);
  const given = [undefined, ...named].map((endUser) => {
    const where = (endUser === undefined ? ended : and(ended, eq(rows.endUser, endUser))) as SQL;
    return all.update(
      table,
      {
        objects: atLeastZero(sql`${table.objects} - ${all.rowsOf(rows, where)}`),
        bytes: atLeastZero(sql`${table.bytes} - ${all.sumOf(rows, rows.bytes, where)}`),
        updatedAtMs: nowMs,
      },
      and(eq(table.kind, kind), eq(table.endUser, endUser ?? TENANT)) as SQL,
    );
  });
  if (named.length === 0) return given;
  // An end user with nothing left needs no counter: there may be any number of them.
  const empty = and(eq(table.kind, kind), data.anyOf(table.endUser, named), eq(table.objects, 0)) as SQL;
  return [...given, data.erase(table, empty)];
}

/** An end user's rows of versions that did not count are given back too. */
const atLeastZero = (value: SQL): SQL => sql`case when ${value} > 0 then ${value} else 0 end`;

/** Corrects what one row takes, where the row bears `change`; only downwards, so no quota can be passed. */
export function shrinkRoom(
  data: TenantData,
  { kind, endUser, id, change }: StorageOwner & { readonly id: string; readonly change: string },
  byBytes: number,
  nowMs: number,
): BoundStatement[] {
  const { storageUse: table, artifact, file } = data.tables;
  const rows = kind === "file" ? file : artifact;
  const isOurs = sql`${data.rowsOf(rows, and(eq(rows.id, id), eq(rows.change, change)) as SQL)} = 1`;
  const owners = endUser === TENANT ? [TENANT] : [TENANT, endUser];
  return owners.map((owner) => {
    const where = and(eq(table.kind, kind), eq(table.endUser, owner), isOurs) as SQL;
    return data.update(
      table,
      { bytes: atLeastZero(sql`${table.bytes} - ${Math.max(0, byBytes)}`), updatedAtMs: nowMs },
      where,
    );
  });
}
