import type { HourlyUsage } from "../../durable-objects/tenant-gate.messages";
import { objectName } from "../core/object-name";
import { CALL_KINDS } from "../core/records";
import { type ProjectUsage, ROLLUP_READ_LIMIT, readRollups } from "../data/ledger";
import { ApiError } from "../errors";
import type { TenantContext } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import type { TenancyPorts } from "../tenancy/ports";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
export const BUCKET_MS = { "1m": MINUTE_MS, "1h": HOUR_MS, "1d": 24 * HOUR_MS } as const;
export type BucketWidth = keyof typeof BUCKET_MS;

export type Dimension = "project_id" | "user_id" | "api_key_id" | "model" | "batch" | "service_tier";

export type UsageKind = HourlyUsage["kind"];
export interface UsageQuery {
  readonly kind: UsageKind;
  readonly fromMs: number;
  readonly toMs: number;
  readonly width: BucketWidth;
  readonly projectIds: readonly string[] | null;
  readonly apiKeyIds: readonly string[] | null;
  /** End users, by the subject of their tokens. */
  readonly userIds: readonly string[] | null;
  readonly models: readonly string[] | null;
  readonly batch: boolean | null;
  readonly groupBy: readonly Dimension[];
}

export interface CostQuery {
  readonly fromMs: number;
  readonly toMs: number;
  readonly projectIds: readonly string[] | null;
  readonly apiKeyIds: readonly string[] | null;
  readonly groupBy: readonly ("project_id" | "line_item" | "api_key_id")[];
}
export interface CostResult {
  readonly projectId: string | null;
  readonly apiKeyId: string | null;
  /** `<model>, input and output`: what of a model is not told apart here is one line. */
  readonly lineItem: string | null;
  priceMicrodollars: number;
}
export interface CostBucket {
  readonly fromMs: number;
  readonly toMs: number;
  readonly results: readonly CostResult[];
}

export interface UsageResult {
  /** Values of the dimensions asked for; null for the others. */
  readonly dimensions: Readonly<Record<Dimension, string | boolean | null>>;
  requests: number;
  inputTokens: number;
  cachedTokens: number;
  outputTokens: number;
}
export interface UsageBucket {
  readonly fromMs: number;
  readonly toMs: number;
  readonly results: readonly UsageResult[];
}

/**
 * Usage in buckets of UTC time. The ledger is at most 60 s behind; where one project is asked for, that project's
 * gate brings its own hours, which replace what the ledger has of them.
 */
export async function usageReport(
  ports: TenancyPorts,
  operator: TenantContext,
  query: UsageQuery,
): Promise<UsageBucket[]> {
  const width = BUCKET_MS[query.width];
  const fromMs = query.fromMs - (query.fromMs % width);
  const hours = await hoursOf(ports, operator, query, fromMs - (fromMs % HOUR_MS));
  const matching = hours.filter((row) => matches(row, query));
  const buckets: UsageBucket[] = [];
  for (let at = fromMs; at < query.toMs; at += width) {
    const parts = matching.flatMap((row) => partOf(row, at, width));
    buckets.push({ fromMs: at, toMs: at + width, results: grouped(parts, query.groupBy) });
  }
  return buckets;
}

/** What tenants pay, by UTC day; the same sources as usage, so both always agree. */
export async function costReport(
  ports: TenancyPorts,
  operator: TenantContext,
  query: CostQuery,
): Promise<CostBucket[]> {
  const day = BUCKET_MS["1d"];
  const fromMs = query.fromMs - (query.fromMs % day);
  const hours = await Promise.all(CALL_KINDS.map((kind) => hoursOf(ports, operator, { ...query, kind }, fromMs)));
  const rows = hours.flat().filter(({ keyId }) => query.apiKeyIds === null || query.apiKeyIds.includes(keyId));
  const buckets: CostBucket[] = [];
  for (let at = fromMs; at < query.toMs; at += day) {
    const results = new Map<string, CostResult>();
    for (const row of rows) {
      if (row.hourMs < at || row.hourMs >= at + day) continue;
      const by = <T>(dimension: CostQuery["groupBy"][number], value: T) =>
        query.groupBy.includes(dimension) ? value : null;
      const about = {
        projectId: by("project_id", row.projectId),
        apiKeyId: by("api_key_id", row.keyId),
        lineItem: by("line_item", `${row.model}, ${row.kind}`),
      };
      const name = JSON.stringify(about);
      const result = results.get(name) ?? { ...about, priceMicrodollars: 0 };
      result.priceMicrodollars += row.priceMicrodollars;
      results.set(name, result);
    }
    buckets.push({ fromMs: at, toMs: at + day, results: [...results.values()] });
  }
  return buckets;
}

/** The ledger's hours of one kind; where one project is asked for, its own gate's replace what the ledger has. */
async function hoursOf(
  ports: TenancyPorts,
  operator: TenantContext,
  query: Pick<UsageQuery, "kind" | "toMs" | "projectIds">,
  fromMs: number,
): Promise<ProjectUsage[]> {
  const hours = new Map<string, ProjectUsage>();
  const rows = await readRollups(ports.data(operator), { ...query, fromMs });
  if (rows.length === ROLLUP_READ_LIMIT) {
    const message = "This time has more usage than one reply can add up. Ask for a shorter time or fewer projects.";
    throw new ApiError("invalid_value", message, { param: "start_time" });
  }
  for (const row of rows) hours.set(nameOf(row), row);
  for (const row of await tailOf(ports, operator, query)) {
    if (row.kind !== query.kind || row.hourMs < fromMs || row.hourMs >= query.toMs) continue;
    hours.set(nameOf(row), row);
  }
  return [...hours.values()];
}

/** What one project's own gate knows and the ledger may not have yet; an organization-wide read does without. */
async function tailOf(
  ports: TenancyPorts,
  operator: TenantContext,
  query: Pick<UsageQuery, "projectIds">,
): Promise<ProjectUsage[]> {
  const [projectId, ...others] = query.projectIds ?? [];
  if (projectId === undefined || others.length > 0) return [];
  const project = await ports.authenticator.enterTenant(operator, projectId);
  if (!project) return [];
  const gate = ports.gate(project);
  const usage = await askGate(() => gate.unsyncedUsage(), "storage_unavailable");
  return usage.map((hour) => ({ ...hour, projectId, gate: objectName(project) }));
}

const nameOf = ({ gate, hourMs, kind, model, keyId, serviceTier, batch, endUser }: ProjectUsage) =>
  JSON.stringify([gate, hourMs, kind, model, keyId, serviceTier, batch, endUser]);

function matches(row: ProjectUsage, { apiKeyIds, userIds, models, batch }: UsageQuery): boolean {
  return (
    (userIds === null || (row.endUser !== null && userIds.includes(row.endUser))) &&
    (apiKeyIds === null || apiKeyIds.includes(row.keyId)) &&
    (models === null || models.includes(row.model)) &&
    (batch === null || batch === row.batch)
  );
}

type Part = Pick<UsageResult, "requests" | "inputTokens" | "cachedTokens" | "outputTokens"> & {
  readonly row: ProjectUsage;
};

/** What of an hour falls into a bucket: all of it, or one of its minutes. */
function partOf(row: ProjectUsage, bucketMs: number, width: number): Part[] {
  if (width >= HOUR_MS) {
    const { requests, inputTokens, cachedTokens, outputTokens } = row;
    const inside = row.hourMs >= bucketMs && row.hourMs < bucketMs + width;
    return inside ? [{ row, requests, inputTokens, cachedTokens, outputTokens }] : [];
  }
  if (bucketMs - (bucketMs % HOUR_MS) !== row.hourMs) return [];
  const counts = row.minutes[String((bucketMs - row.hourMs) / MINUTE_MS)];
  if (!counts) return [];
  const [requests, inputTokens, cachedTokens, outputTokens] = counts;
  return [{ row, requests, inputTokens, cachedTokens, outputTokens }];
}

function grouped(parts: readonly Part[], groupBy: readonly Dimension[]): UsageResult[] {
  const groups = new Map<string, UsageResult>();
  for (const part of parts) {
    const dimensions = dimensionsOf(part.row, groupBy);
    const name = JSON.stringify(dimensions);
    const group = groups.get(name) ?? { dimensions, requests: 0, inputTokens: 0, cachedTokens: 0, outputTokens: 0 };
    group.requests += part.requests;
    group.inputTokens += part.inputTokens;
    group.cachedTokens += part.cachedTokens;
    group.outputTokens += part.outputTokens;
    groups.set(name, group);
  }
  return [...groups.values()];
}

function dimensionsOf(row: ProjectUsage, groupBy: readonly Dimension[]): UsageResult["dimensions"] {
  const by = <T>(dimension: Dimension, value: T) => (groupBy.includes(dimension) ? value : null);
  return {
    project_id: by("project_id", row.projectId),
    user_id: by("user_id", row.endUser), // keys belong to service accounts here; users are those of end-user tokens
    api_key_id: by("api_key_id", row.keyId),
    model: by("model", row.model),
    batch: by("batch", row.batch),
    service_tier: by("service_tier", row.serviceTier),
  };
}
