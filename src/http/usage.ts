import { z } from "zod";
import { ApiError } from "../errors";
import { BUCKET_MS, type UsageKind, type UsageQuery, type UsageResult, usageReport } from "../metering/usage-report";
import type { AppContext, Handler } from "./handler";
import { seconds } from "./lists";
import { parseQuery } from "./parse";

/** Buckets of a page: default and maximum, as the contract's description gives them. */
const PAGE = { "1m": [60, 1440], "1h": [24, 168], "1d": [7, 31] } as const;

const Ids = z.array(z.string().min(1).max(200)).min(1).max(100).optional();
const Query = z.strictObject({
  start_time: z.coerce.number().int().min(0).max(1e11),
  end_time: z.coerce.number().int().min(0).max(1e11).optional(),
  bucket_width: z.enum(["1m", "1h", "1d"]).default("1d"),
  project_ids: Ids,
  user_ids: Ids,
  api_key_ids: Ids,
  models: Ids,
  batch: z.stringbool().optional(),
  group_by: z.array(z.enum(["project_id", "user_id", "api_key_id", "model", "batch", "service_tier"])).optional(),
  limit: z.coerce.number().int().min(1).optional(),
  page: z
    .string()
    .regex(/^page_\d{1,11}$/, "pass the next_page of an earlier reply")
    .optional(),
});
const EmbeddingsQuery = Query.omit({ batch: true }).extend({
  group_by: z.array(z.enum(["project_id", "user_id", "api_key_id", "model"])).optional(),
});

export const getCompletionsUsage: Handler = (c) => report(c, "completions", parseQuery(Query, c.req.url));
export const getModerationsUsage: Handler = (c) => report(c, "moderations", parseQuery(EmbeddingsQuery, c.req.url));
export const getEmbeddingsUsage: Handler = (c) => report(c, "embeddings", parseQuery(EmbeddingsQuery, c.req.url));

async function report(c: AppContext, kind: UsageKind, asked: z.output<typeof Query>): Promise<Response> {
  const width = BUCKET_MS[asked.bucket_width];
  const [defaultLimit, maxLimit] = PAGE[asked.bucket_width];
  const limit = asked.limit ?? defaultLimit;
  if (limit > maxLimit) {
    throw new ApiError("invalid_value", `'limit' is at most ${maxLimit} for buckets of ${asked.bucket_width}.`, {
      param: "limit",
    });
  }
  const startMs = (asked.page ? Number(asked.page.slice("page_".length)) : asked.start_time) * 1000;
  const fromMs = startMs - (startMs % width);
  const endMs = asked.end_time === undefined ? Date.now() : asked.end_time * 1000;
  if (endMs <= asked.start_time * 1000) {
    throw new ApiError("invalid_value", "'end_time' must be after 'start_time'.", { param: "end_time" });
  }
  const toMs = Math.min(endMs, fromMs + limit * width);
  const hasMore = endMs > toMs;
  const query: UsageQuery = {
    kind,
    fromMs,
    toMs,
    width: asked.bucket_width,
    projectIds: asked.project_ids ?? null,
    apiKeyIds: asked.api_key_ids ?? null,
    userIds: asked.user_ids ?? null,
    models: asked.models?.map((name) => c.var.services.pipeline.catalogue.find(name)?.name ?? name) ?? null,
    batch: asked.batch ?? null,
    groupBy: asked.group_by ?? [],
  };
  const buckets = await usageReport(c.var.services, c.var.tenant, query);
  const data = buckets.map((bucket) => ({
    object: "bucket" as const,
    start_time: seconds(bucket.fromMs),
    end_time: seconds(bucket.toMs),
    results: bucket.results.map((result) => resultToWire(kind, result)),
  }));
  const next = hasMore ? `page_${seconds(toMs)}` : null;
  return c.json({ object: "page", data, has_more: hasMore, next_page: next });
}

function resultToWire(kind: UsageKind, { dimensions, ...counts }: UsageResult) {
  const { project_id, user_id, api_key_id, model, batch, service_tier } = dimensions;
  const shared = {
    input_tokens: counts.inputTokens,
    num_model_requests: counts.requests,
    project_id,
    user_id,
    api_key_id,
    model,
  };
  if (kind === "moderations") return { object: "organization.usage.moderations.result" as const, ...shared };
  if (kind === "embeddings") return { object: "organization.usage.embeddings.result" as const, ...shared };
  return {
    object: "organization.usage.completions.result" as const,
    ...shared,
    output_tokens: counts.outputTokens,
    input_cached_tokens: counts.cachedTokens,
    batch,
    service_tier,
  };
}
