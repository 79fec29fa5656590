import { FIRST_LIMITS, FIRST_VALUES, type ModelLimits, POLICY_SCHEMA_VERSION, type PolicySnapshot } from "./policy";
import type { ServiceTier } from "./records";

export interface Plan {
  /** Of the tenant. */
  readonly inFlight: number;
  readonly queueLength: number;
  /** Of each model. */
  readonly modelDefaults: ModelLimits;
  /** Share of a scarce model beside tenants of other plans. */
  readonly weight: number;
  /** What its requests may ask for as `service_tier`. */
  readonly tiers: readonly ServiceTier[];
  readonly files: FileQuota;
}

/** What a tenant's files may take up in all. */
export interface FileQuota {
  readonly count: number;
  readonly bytes: number;
}
const GIBIBYTE = 1024 ** 3;

/**
 * Plans as versioned configuration: what a tenant has until its operator changes it. Tokens are prompt and output
 * together.
 */
export const PLANS = {
  free: {
    inFlight: 4,
    queueLength: 32,
    modelDefaults: { requestsPerMinute: 60, tokensPerMinute: 40_000 },
    weight: 1,
    tiers: ["default", "flex"],
    files: { count: 100, bytes: GIBIBYTE },
  },
  standard: {
    inFlight: 32,
    queueLength: 256,
    modelDefaults: { requestsPerMinute: 600, tokensPerMinute: 400_000 },
    weight: 4,
    tiers: ["priority", "default", "flex"],
    files: { count: 10_000, bytes: 100 * GIBIBYTE },
  },
  premium: {
    inFlight: 256,
    queueLength: 2_048,
    modelDefaults: { requestsPerMinute: 6_000, tokensPerMinute: 4_000_000 },
    weight: 16,
    tiers: ["priority", "default", "flex"],
    files: { count: 100_000, bytes: 1_000 * GIBIBYTE },
  },
} as const satisfies Record<string, Plan>;

export type PlanName = keyof typeof PLANS;
export const PLAN_NAMES = Object.keys(PLANS) as [PlanName, ...PlanName[]];
export const DEFAULT_PLAN = "standard";

/** The plan of a policy; one that a later version knows and this one does not is the default. */
export const planOf = ({ plan }: Pick<PolicySnapshot, "plan">): Plan =>
  Object.hasOwn(PLANS, plan) ? PLANS[plan as PlanName] : PLANS[DEFAULT_PLAN];

export const filesOf = (policy: Pick<PolicySnapshot, "plan">): FileQuota => planOf(policy).files;

/** The same policy under another plan: what the operator set by hand stays. */
export function withPlan(policy: PolicySnapshot, plan: PlanName): PolicySnapshot {
  const { inFlight, queueLength, modelDefaults } = PLANS[plan];
  const limits = { ...policy.limits, inFlight, queueLength, modelDefaults, ...policy.limits.overrides };
  return { ...policy, plan, limits };
}

/** The policy that a new tenant starts with. */
export function firstPolicy(tenantId: string, region: string): PolicySnapshot {
  const { inFlight, queueLength, modelDefaults } = PLANS[DEFAULT_PLAN];
  return {
    v: POLICY_SCHEMA_VERSION,
    version: 1,
    tenantId,
    region,
    status: "active",
    plan: DEFAULT_PLAN,
    ...FIRST_VALUES,
    limits: { ...FIRST_LIMITS, inFlight, queueLength, models: {}, modelDefaults },
    allowedModels: null,
    contentLogging: "metadata",
    guardPolicy: { version: 1, action: "flag" },
    cacheEpoch: 0,
    priceVersion: null,
  };
}
