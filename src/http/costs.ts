import { z } from "zod";
import { ApiError } from "../errors";
import { type CostResult, costReport } from "../metering/usage-report";
import type { Handler } from "./handler";
import { seconds } from "./lists";
import { parseQuery } from "./parse";

const DAY_SECONDS = 86_400;
/** Days of a page, as the contract gives them. */
const MAX_DAYS = 180;
const Ids = z.array(z.string().min(1).max(200)).min(1).max(100).optional();
const Query = z.strictObject({
  start_time: z.coerce.number().int().min(0).max(1e11),
  end_time: z.coerce.number().int().min(0).max(1e11).optional(),
  bucket_width: z.literal("1d").default("1d"),
  project_ids: Ids,
  api_key_ids: Ids,
  group_by: z.array(z.enum(["project_id", "line_item", "api_key_id"])).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_DAYS).default(7),
  page: z
    .string()
    .regex(/^page_\d{1,11}$/, "pass the next_page of an earlier reply")
    .optional(),
});

/** What tenants pay, by day. One project's is exact, the organization's at most 60 s behind. */
export const getCosts: Handler = async (c) => {
  const asked = parseQuery(Query, c.req.url);
  const endSeconds = asked.end_time ?? seconds(Date.now());
  if (endSeconds <= asked.start_time) {
    throw new ApiError("invalid_value", "'end_time' must be after 'start_time'.", { param: "end_time" });
  }
  const start = asked.page ? Number(asked.page.slice("page_".length)) : asked.start_time;
  const fromSeconds = start - (start % DAY_SECONDS);
  const toSeconds = Math.min(endSeconds, fromSeconds + asked.limit * DAY_SECONDS);
  const buckets = await costReport(c.var.services, c.var.tenant, {
    fromMs: fromSeconds * 1000,
    toMs: toSeconds * 1000,
    projectIds: asked.project_ids ?? null,
    apiKeyIds: asked.api_key_ids ?? null,
    groupBy: asked.group_by ?? [],
  });
  const data = buckets.map(({ fromMs, toMs, results }) => ({
    object: "bucket" as const,
    start_time: seconds(fromMs),
    end_time: seconds(toMs),
    results: results.map(costToWire),
  }));
  const hasMore = endSeconds > toSeconds;
  return c.json({ object: "page", data, has_more: hasMore, next_page: hasMore ? `page_${toSeconds}` : null });
};

const costToWire = ({ projectId, apiKeyId, lineItem, priceMicrodollars }: CostResult) => ({
  object: "organization.costs.result" as const,
  amount: { value: priceMicrodollars / 1_000_000, currency: "usd" },
  line_item: lineItem,
  project_id: projectId,
  api_key_id: apiKeyId,
});
