import { z } from "zod";
import { type DecisionRow, listDecisions } from "../audit/decisions";
import { ApiError } from "../errors";
import type { Handler } from "./handler";
import { listToWire } from "./lists";
import { parseQuery } from "./parse";

const Query = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  order: z.enum(["asc", "desc"]).default("desc"),
  after: z
    .string()
    .regex(/^dec_\d{1,15}$/, "pass the last_id of an earlier reply")
    .optional(),
  start_time: z.coerce.number().int().min(0).optional(),
  end_time: z.coerce.number().int().min(0).optional(),
  model: z.string().min(1).max(256).optional(),
  api_key_id: z.string().min(1).max(200).optional(),
});

export const getDecisions: Handler = async (c) => {
  const asked = parseQuery(Query, c.req.url);
  const { services, tenant } = c.var;
  if (asked.start_time !== undefined && asked.end_time !== undefined && asked.end_time <= asked.start_time) {
    throw new ApiError("invalid_value", "'end_time' must be after 'start_time'.", { param: "end_time" });
  }
  const query = {
    limit: asked.limit,
    order: asked.order,
    afterSeq: asked.after === undefined ? null : Number(asked.after.slice("dec_".length)),
    fromMs: asked.start_time === undefined ? null : asked.start_time * 1000,
    toMs: asked.end_time === undefined ? null : asked.end_time * 1000,
    model: asked.model === undefined ? null : (services.pipeline.catalogue.find(asked.model)?.name ?? asked.model),
    keyId: asked.api_key_id ?? null,
  };
  const page = await listDecisions(services, tenant, query);
  const wire = listToWire(page, decisionToWire);
  return c.json(page.hasMore && page.lastSeq !== null ? { ...wire, last_id: `dec_${page.lastSeq}` } : wire);
};

/** Provider and provider model are the operator's business and stay out. */
const decisionToWire = ({ seq, hash, decision }: DecisionRow) => ({
  id: `dec_${seq}`,
  object: "tenantry.decision" as const,
  hash,
  request_id: decision.id,
  created_at: decision.atMs / 1000,
  kind: decision.kind,
  outcome: decision.outcome,
  rule: decision.rule,
  count: decision.count,
  route: decision.route,
  api_key_id: decision.keyId,
  end_user: decision.endUser,
  region: decision.region,
  policy_version: decision.policyVersion,
  model: decision.model,
  adapter_digest: decision.adapterDigest,
  prompt_version: decision.promptVersion,
  features_read: decision.featuresRead,
  guard: decision.guardVerdict && {
    policy_version: decision.guardVerdict.policyVersion,
    rules: decision.guardVerdict.rules,
  },
  stream: decision.stream,
  usage: { prompt_tokens: decision.promptTokens, completion_tokens: decision.completionTokens },
  queued_ms: decision.queuedMs,
  first_token_ms: decision.firstTokenMs,
  total_ms: decision.totalMs,
});
