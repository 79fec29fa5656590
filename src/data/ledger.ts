import { and, asc, eq, gte, lt } from "drizzle-orm";
import type { Ledger, ObjectHome } from "../../durable-objects/ports";
import type { HourlyUsage } from "../../durable-objects/tenant-gate.messages";
import { objectName } from "../core/object-name";
import { NO_ESTIMATES } from "../core/reconciliation";
import { lastUsedUpdates } from "./api-keys";
import type { BoundStatement, TenantData } from "./tenant-data";

/** Statements of one D1 batch; its documented bound on queries of an invocation is 1,000. */
const BATCH_SIZE = 100;

const HOUR_MS = 3_600_000;
/** In the place of an end user where there is none: no subject is empty. */
const NOBODY = "";

/** Writes a gate's hourly usage into the operator's ledger, and the last use of its keys into the tenant's rows. */
export function ledger(stores: {
  readonly data: (tenant: ObjectHome) => TenantData;
  readonly platformData: () => TenantData;
}): Ledger {
  return {
    async write(tenant, usage, lastUsedMs, nowMs) {
      const platform = stores.platformData();
      const { usageRollup } = platform.tables;
      const rows = usage.map((hour) => {
        const { requests, inputTokens, cachedTokens, outputTokens, priceMicrodollars, costMicrodollars } = hour;
        const key = [
          usageRollup.hourMs,
          usageRollup.projectId,
          usageRollup.gate,
          usageRollup.kind,
          usageRollup.model,
          usageRollup.keyId,
          usageRollup.serviceTier,
          usageRollup.batch,
          usageRollup.endUser,
        ];
        const row = {
          projectId: tenant.tenantId,
          gate: objectName(tenant),
          hourMs: hour.hourMs,
          kind: hour.kind,
          model: hour.model,
          keyId: hour.keyId,
          serviceTier: hour.serviceTier,
          batch: hour.batch,
          endUser: hour.endUser ?? NOBODY,
          requests,
          inputTokens,
          cachedTokens,
          outputTokens,
          priceMicrodollars,
          costMicrodollars,
          minutes: hour.minutes as Record<string, [number, number, number, number]>,
          estimates: hour.estimates,
          createdAtMs: nowMs,
          updatedAtMs: nowMs,
        };
        // Absolute numbers that only grow: an earlier write that arrives late must not take them back.
        return platform.upsert(usageRollup, key, row, { grows: usageRollup.requests });
      });
      await inBatches(platform, rows);
      const own = stores.data(tenant);
      await inBatches(own, lastUsedUpdates(own, lastUsedMs));
    },
  };
}

async function inBatches(data: TenantData, statements: readonly BoundStatement[]): Promise<void> {
  for (let from = 0; from < statements.length; from += BATCH_SIZE) {
    await data.batch(statements.slice(from, from + BATCH_SIZE));
  }
}

export interface RollupFilter {
  readonly kind: HourlyUsage["kind"];
  readonly fromMs: number;
  readonly toMs: number;
  readonly projectIds: readonly string[] | null;
}
export type ProjectUsage = HourlyUsage & { readonly projectId: string; readonly gate: string };

/** Rows of one read; a longer answer is refused by its caller rather than cut. */
export const ROLLUP_READ_LIMIT = 50_000;

/**
 * The same, however many rows there are: the time is halved until a part of it is one read.
 * @throws RangeError for a single hour that is more than one read
 */
export async function* allRollups(platform: TenantData, filter: RollupFilter): AsyncGenerator<ProjectUsage> {
  const rows = await readRollups(platform, filter);
  if (rows.length < ROLLUP_READ_LIMIT) return yield* rows;
  const hours = Math.ceil((filter.toMs - filter.fromMs) / HOUR_MS);
  if (hours <= 1) throw new RangeError("one hour of usage has more rows than can be read at once");
  const middleMs = filter.fromMs + Math.floor(hours / 2) * HOUR_MS;
  yield* allRollups(platform, { ...filter, toMs: middleMs });
  yield* allRollups(platform, { ...filter, fromMs: middleMs });
}

/** The operator's ledger between two times, hours ascending. */
export async function readRollups(platform: TenantData, filter: RollupFilter): Promise<ProjectUsage[]> {
  const { usageRollup } = platform.tables;
  const hours = and(gte(usageRollup.hourMs, filter.fromMs), lt(usageRollup.hourMs, filter.toMs));
  const projects = filter.projectIds ? platform.anyOf(usageRollup.projectId, filter.projectIds) : undefined;
  const rows = await platform.list(usageRollup, {
    where: and(hours, eq(usageRollup.kind, filter.kind), projects),
    orderBy: [asc(usageRollup.hourMs)],
    limit: ROLLUP_READ_LIMIT,
  });
  return rows.map(({ endUser, estimates, ...row }) => ({
    ...row,
    kind: filter.kind,
    endUser: endUser === NOBODY ? null : endUser,
    estimates: estimates ?? NO_ESTIMATES,
  }));
}
