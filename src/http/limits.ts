import { z } from "zod";
import { PLAN_NAMES } from "../core/plans";
import { changeLimits, changePlan, type LimitState, type LimitsReply, readLimits } from "../tenancy/limits";
import { enterProject } from "../tenancy/projects";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

const Count = z.int().min(0).max(100_000).nullish();
const Rule = z.strictObject({
  scope: z.enum(["project", "api_key", "end_user"]),
  subject: z.string().min(1).max(200).nullish(),
  metric: z.enum(["requests", "tokens", "spend"]),
  window: z.enum(["minute", "day", "month"]),
  time_zone: z.string().min(1).max(64).nullish(),
  /** Requests, tokens, or micro-dollars. */
  limit: z.int().min(0).max(1e15),
  mode: z.enum(["hard", "shadow", "alert"]).default("hard"),
});
const Body = z.strictObject({ in_flight: Count, queue_length: Count, limits: z.array(Rule).max(50).optional() });
const PlanBody = z.strictObject({ plan: z.enum(PLAN_NAMES) });

const modelsOf = (c: AppContext) => c.var.services.pipeline.catalogue.models.map(({ name }) => name);

/** What a tenant sees of its own limits. */
export const getLimits: Handler = async (c) =>
  c.json(limitsToWire(c.var.tenant.tenantId, await readLimits(c.var.services, c.var.tenant, modelsOf(c))));

/** The same for the operator. */
export const getProjectLimits: Handler = async (c) => {
  const tenant = await enterProject(c.var.services, c.var.tenant, projectId(c));
  return c.json(limitsToWire(tenant.tenantId, await readLimits(c.var.services, tenant, modelsOf(c))));
};

export const postProjectLimits: Handler = async (c) => {
  const body = parse(Body, await readJson(c.req.raw));
  const rules = body.limits?.map(({ subject, time_zone, ...rule }) => ({
    ...rule,
    subject: subject ?? null,
    // Months and days have a calendar; where none is named, UTC's.
    timeZone: time_zone ?? (rule.metric === "spend" ? "UTC" : null),
  }));
  const changes = { inFlight: body.in_flight, queueLength: body.queue_length, rules };
  const { services, tenant } = c.var;
  return c.json(limitsToWire(projectId(c), await changeLimits(services, tenant, projectId(c), changes, modelsOf(c))));
};

export const postPlan: Handler = async (c) => {
  const { plan } = parse(PlanBody, await readJson(c.req.raw));
  await changePlan(c.var.services, c.var.tenant, projectId(c), plan);
  return c.json({ object: "tenantry.project.plan", project_id: projectId(c), plan });
};

const limitsToWire = (id: string, { policy, limits, inFlight }: LimitsReply) => ({
  object: "tenantry.project.limits" as const,
  project_id: id,
  plan: policy.plan,
  status: policy.status,
  in_flight: {
    limit: inFlight.limit,
    running: inFlight.running,
    waiting: inFlight.waiting,
    queue_length: policy.limits.queueLength,
  },
  limits: limits.map(limitToWire),
});

const limitToWire = (state: LimitState) => ({
  rule: state.name,
  scope: state.scope,
  subject: state.subject,
  model: state.model,
  window: state.period,
  unit: state.unit,
  mode: state.mode ?? "hard",
  limit: state.limit,
  settled: state.settled,
  held: state.held,
  remaining: state.remaining,
  reset_seconds: state.resetMs / 1000,
  ...(state.mode === "shadow" ? { would_refuse: state.wouldRefuse } : {}),
  ...(state.mode === "alert" ? { alerted: state.isAlerted } : {}),
});
