import type { LimitsReply } from "../../durable-objects/tenant-gate.messages";
import { periodNamed } from "../core/periods";
import type { PlanName } from "../core/plans";
import type { LimitRule } from "../core/policy";
import { ApiError } from "../errors";
import type { TenantContext } from "./context";
import { askGate, changeTenant } from "./gates";
import type { TenancyPorts } from "./ports";
import { enterProject, type ProjectRow, projectNotFound, retrieveProject } from "./projects";

export type { LimitState, LimitsReply } from "../../durable-objects/tenant-gate.messages";

/** A tenant's own view of its limits, or the operator's inside of it. @param models public names to list */
export async function readLimits(
  ports: TenancyPorts,
  tenant: TenantContext,
  models: readonly string[],
): Promise<LimitsReply> {
  const reply = await askGate(() => ports.gate(tenant).limits(models), "storage_unavailable");
  if (!reply) throw projectNotFound(tenant.tenantId);
  return reply;
}

export interface LimitChanges {
  /** Null: the plan's own number again. */
  readonly inFlight?: number | null | undefined;
  readonly queueLength?: number | null | undefined;
  /** All of them; a rule that is left out is gone. */
  readonly rules?: readonly LimitRule[] | undefined;
}

/** @throws ApiError 400 that names the rule that makes no sense, or that exceeds its parent */
export async function changeLimits(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  changes: LimitChanges,
  models: readonly string[],
): Promise<LimitsReply> {
  for (const [index, rule] of (changes.rules ?? []).entries()) assertRule(rule, index, changes.rules ?? []);
  const tenant = await enterProject(ports, operator, id);
  const { inFlight, queueLength, rules } = changes;
  const command = { type: "set_limits", inFlight, queueLength, rules: rules && [...rules] } as const;
  await changeTenant(ports.gate(tenant), tenant, command);
  return readLimits(ports, tenant, models);
}

export async function changePlan(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  plan: PlanName,
): Promise<PlanName> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "set_plan", plan });
  return plan;
}

/** Refuses every call of a tenant within a second, or lets them through again; running calls end as they would. */
export async function setSuspended(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  suspended: boolean,
): Promise<ProjectRow> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: suspended ? "suspend_tenant" : "resume_tenant" });
  return retrieveProject(ports, operator, id);
}

/** The contract's hard limit of the calendar month, UTC. @returns null where there is none */
export async function readMonthlySpend(ports: TenancyPorts, operator: TenantContext, id: string) {
  const { policy, limits } = await readLimits(ports, await enterProject(ports, operator, id), []);
  const state = limits.find(({ name }) => name === "monthly_spend");
  return { microdollars: policy.limits.monthlySpend, isEnforcing: state !== undefined && state.remaining === 0 };
}

/** @param microdollars null takes the limit away; @throws ApiError 404 where there is none to take away */
export async function setMonthlySpend(
  ports: TenancyPorts,
  operator: TenantContext,
  id: string,
  microdollars: number | null,
): Promise<void> {
  const tenant = await enterProject(ports, operator, id);
  await changeTenant(ports.gate(tenant), tenant, { type: "set_monthly_spend", microdollars });
}

function assertRule(rule: LimitRule, index: number, all: readonly LimitRule[]): void {
  const wrong = (field: string, message: string) =>
    new ApiError("invalid_value", message, { param: `limits[${index}].${field}` });
  const { scope, subject, metric, window, timeZone, mode } = rule;
  if (scope === "project" && subject !== null) throw wrong("subject", "A limit of the project has no subject.");
  if (metric === "spend" && window === "minute") throw wrong("window", "Spend is limited per day or month.");
  if (metric !== "spend" && window === "month")
    throw wrong("window", "Requests and tokens are limited per minute or day.");
  if (metric !== "spend" && timeZone !== null)
    throw wrong("time_zone", "Only spend has a calendar, so only spend has a time zone.");
  if (timeZone !== null && !isTimeZone(timeZone))
    throw wrong("time_zone", `'${timeZone}' is no time zone of the IANA database.`);
  const isSame = (other: LimitRule) =>
    other.scope === scope &&
    other.subject === subject &&
    other.metric === metric &&
    other.window === window &&
    other.timeZone === timeZone &&
    other.mode === mode;
  if (all.findIndex(isSame) !== index) throw wrong("scope", "This limit stands in the list twice.");
  const parent = all.find((other) => isParent(other, rule));
  if (parent && mode === "hard" && rule.limit > parent.limit) {
    throw wrong(
      "limit",
      `A limit of one ${scope === "api_key" ? "key" : "end user"} cannot exceed the project's ${parent.limit}.`,
    );
  }
}

const isParent = (parent: LimitRule, { scope, metric, window, timeZone }: LimitRule): boolean =>
  scope !== "project" &&
  parent.scope === "project" &&
  parent.mode === "hard" &&
  parent.metric === metric &&
  parent.window === window &&
  parent.timeZone === timeZone;

function isTimeZone(name: string): boolean {
  try {
    periodNamed(`day@${name}`);
    return true;
  } catch {
    return false;
  }
}
