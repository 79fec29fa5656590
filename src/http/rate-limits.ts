import { z } from "zod";
import { ApiError } from "../errors";
import { enterProject, unknownCursor } from "../tenancy/projects";
import { listRateLimits, modifyRateLimit, type RateLimit } from "../tenancy/rate-limits";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { listToWire, pageQuery } from "./lists";
import { parse, parseQuery } from "./parse";
import { projectId } from "./projects";

const count = z.int().min(0).max(1_000_000_000).optional();
const ModifyBody = z.strictObject({
  max_requests_per_1_minute: count,
  max_tokens_per_1_minute: count,
  max_images_per_1_minute: count,
  max_audio_megabytes_per_1_minute: count,
  max_requests_per_1_day: count,
  batch_1_day_max_input_tokens: count,
});
/** Limits of the contract for which nothing here can be counted. */
const UNSUPPORTED = [
  "max_images_per_1_minute",
  "max_audio_megabytes_per_1_minute",
  "max_requests_per_1_day",
  "batch_1_day_max_input_tokens",
] as const;
const ListQuery = pageQuery(100).extend({ before: z.string().min(1).max(200).optional() });

export const getRateLimits: Handler = async (c) => {
  const { limit, after, before } = parseQuery(ListQuery, c.req.url);
  const { services, tenant } = c.var;
  const all = await listRateLimits(
    services,
    await enterProject(services, tenant, projectId(c)),
    services.pipeline.catalogue,
  );
  const at = (id: string) => {
    const index = all.findIndex((known) => known.id === id);
    return index === -1 ? unknownCursor() : index;
  };
  const from = after === undefined ? 0 : at(after) + 1;
  const rest = all.slice(from, before === undefined ? undefined : at(before));
  return c.json(listToWire({ rows: rest.slice(0, limit), hasMore: rest.length > limit }, rateLimitToWire));
};

export const postRateLimit: Handler = async (c) => {
  const body = parse(ModifyBody, await readJson(c.req.raw));
  for (const param of UNSUPPORTED) {
    if (body[param] !== undefined) {
      throw new ApiError("unsupported_parameter", `'${param}' is not supported: nothing here is counted by it.`, {
        param,
      });
    }
  }
  const { services, tenant } = c.var;
  const project = await enterProject(services, tenant, projectId(c));
  const changes = {
    requestsPerMinute: body.max_requests_per_1_minute,
    tokensPerMinute: body.max_tokens_per_1_minute,
  };
  const id = c.req.param("rate_limit_id") ?? "";
  return c.json(rateLimitToWire(await modifyRateLimit(services, project, services.pipeline.catalogue, id, changes)));
};

const rateLimitToWire = (limit: RateLimit) => ({
  object: "project.rate_limit" as const,
  id: limit.id,
  model: limit.model,
  max_requests_per_1_minute: limit.requestsPerMinute,
  max_tokens_per_1_minute: limit.tokensPerMinute,
});
