import { planOf, withPlan } from "../src/core/plans";
import { modelLimits, type PolicySnapshot } from "../src/core/policy";
import { type Change, type Decided, withoutUndefined } from "./tenant-facts";
import type { ChangeCommand } from "./tenant-gate.messages";

type CommandOf<T extends ChangeCommand["type"]> = Extract<ChangeCommand, { type: T }>;
export type LimitCommand = CommandOf<
  "suspend_tenant" | "resume_tenant" | "set_plan" | "set_monthly_spend" | "set_limits" | "set_model_limits"
>;

/** Decides a change of what a tenant may use. What was used so far is not touched by any of them. */
export function changeLimits(policy: PolicySnapshot, command: LimitCommand): Decided {
  switch (command.type) {
    case "suspend_tenant":
      return updated(policy, { status: "suspended" }, { status: "suspended" });
    case "resume_tenant":
      return updated(policy, { status: "active" }, { status: "active" });
    case "set_plan":
      return updated(policy, withPlan(policy, command.plan), { plan: command.plan });
    case "set_monthly_spend":
      return changeMonthlySpend(policy, command.microdollars);
    case "set_limits":
      return changeRules(policy, command);
    case "set_model_limits":
      return changeModelLimits(policy, command);
  }
}

function updated(policy: PolicySnapshot, changes: Partial<PolicySnapshot>, requested: object): Change {
  const details = { changes_requested: requested };
  return {
    policy: { ...policy, ...changes, version: policy.version + 1 },
    event: { type: "project.updated", resourceId: policy.tenantId, details },
  };
}

function changeMonthlySpend(policy: PolicySnapshot, monthlySpend: number | null): Decided {
  if (monthlySpend === null && policy.limits.monthlySpend === null) return { refused: "not_found" };
  const limits = { ...policy.limits, monthlySpend };
  return updated(policy, { limits }, { spend_limit: monthlySpend });
}

function changeRules(policy: PolicySnapshot, { inFlight, queueLength, rules }: CommandOf<"set_limits">): Decided {
  const plan = planOf(policy);
  const overrides: Record<string, number> = { ...policy.limits.overrides };
  for (const [name, value] of Object.entries(withoutUndefined({ inFlight, queueLength }))) {
    if (value === null) delete overrides[name];
    else overrides[name] = value;
  }
  const own = { inFlight: plan.inFlight, queueLength: plan.queueLength, ...overrides };
  const limits = { ...policy.limits, ...own, overrides, ...withoutUndefined({ rules }) };
  return updated(
    policy,
    { limits },
    withoutUndefined({ in_flight: inFlight, queue_length: queueLength, limits: rules }),
  );
}

function changeModelLimits(policy: PolicySnapshot, command: CommandOf<"set_model_limits">): Change {
  const { model, requestsPerMinute, tokensPerMinute } = command;
  const limits = { ...modelLimits(policy, model), ...withoutUndefined({ requestsPerMinute, tokensPerMinute }) };
  return {
    policy: {
      ...policy,
      version: policy.version + 1,
      limits: { ...policy.limits, models: { ...policy.limits.models, [model]: limits } },
    },
    event: {
      type: "rate_limit.updated",
      resourceId: `rl-${model}`,
      details: {
        changes_requested: {
          max_requests_per_1_minute: limits.requestsPerMinute,
          max_tokens_per_1_minute: limits.tokensPerMinute,
        },
      },
    },
  };
}
