import { z } from "zod";
import { ApiError } from "../errors";
import { MAX_TTL_SECONDS } from "../tenancy/end-user-tokens";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";

const Origin = z
  .string()
  .max(256)
  .refine((text) => URL.canParse(text) && new URL(text).origin === text, {
    error: "an origin such as https://app.example.com is accepted, without a path",
  });
const Body = z.strictObject({
  subject: z.string().min(1).max(128),
  ttl_seconds: z.int().min(1).max(MAX_TTL_SECONDS).default(900),
  models: z.array(z.string().min(1).max(256)).min(1).max(50).nullish(),
  origins: z.array(Origin).min(1).max(20).nullish(),
  requests_per_minute: z.int().min(1).max(1_000_000).nullish(),
  // Fixed by name already; refused until something enforces them.
  tokens_per_day: z.unknown().optional(),
  microdollars_per_day: z.unknown().optional(),
});

/** Mints a token for one end user; the tenant's server calls this, never the end user. */
export const postEndUserToken: Handler = async (c) => {
  const body = parse(Body, await readJson(c.req.raw));
  for (const param of ["tokens_per_day", "microdollars_per_day"] as const) {
    if (body[param] != null)
      throw new ApiError("unsupported_parameter", `'${param}' is not enforced yet, so it is refused.`, { param });
  }
  const { tenant, services } = c.var;
  if (tenant.actor.type !== "api_key") throw new TypeError("only a tenant's key has the account scope");
  for (const [index, model] of (body.models ?? []).entries()) {
    if (services.pipeline.catalogue.find(model)) continue;
    throw new ApiError("invalid_value", `The model '${model}' does not exist.`, { param: `models[${index}]` });
  }
  const claims = {
    tenantId: tenant.tenantId,
    keyId: tenant.actor.keyId,
    subject: body.subject,
    models: body.models ?? null,
    origins: body.origins ?? null,
    requestsPerMinute: body.requests_per_minute ?? null,
  };
  const nowSeconds = Math.floor(Date.now() / 1000);
  const value = await services.tokens.mint(claims, body.ttl_seconds, nowSeconds);
  return c.json({
    object: "tenantry.end_user_token",
    value,
    subject: body.subject,
    created_at: nowSeconds,
    expires_at: nowSeconds + body.ttl_seconds,
    models: claims.models,
    origins: claims.origins,
    requests_per_minute: claims.requestsPerMinute,
  });
};
