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
  /** Uploaded files. */
  readonly files: StorageQuota;
  /** Stored completions and responses, those that are made in the background from the moment they are asked for. */
  readonly artifacts: StorageQuota;
  readonly background: BackgroundQuota;
}

/** What a tenant may store of one kind, and how much of that each of its end users may. */
export interface StorageQuota extends StorageLimit {
  readonly endUser: StorageLimit;
}
export interface StorageLimit {
  readonly count: number;
  readonly bytes: number;
}
/** Responses in the background that are not over yet, of the tenant and of each of its end users. */
export interface BackgroundQuota {
  readonly runs: number;
  readonly bytes: number;
  readonly endUserRuns: number;
}
const MEBIBYTE = 1024 ** 2;
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
    files: { count: 100, bytes: GIBIBYTE, endUser: { count: 20, bytes: 100 * MEBIBYTE } },
    artifacts: { count: 10_000, bytes: GIBIBYTE, endUser: { count: 1_000, bytes: 100 * MEBIBYTE } },
    background: { runs: 32, bytes: 8 * MEBIBYTE, endUserRuns: 4 },
  },
  standard: {
    inFlight: 32,
    queueLength: 256,
    modelDefaults: { requestsPerMinute: 600, tokensPerMinute: 400_000 },
    weight: 4,
    tiers: ["priority", "default", "flex"],
    files: { count: 10_000, bytes: 100 * GIBIBYTE, endUser: { count: 500, bytes: 5 * GIBIBYTE } },
    artifacts: { count: 1_000_000, bytes: 4 * GIBIBYTE, endUser: { count: 20_000, bytes: 200 * MEBIBYTE } },
    background: { runs: 256, bytes: 32 * MEBIBYTE, endUserRuns: 16 },
  },
  premium: {
    inFlight: 256,
    queueLength: 2_048,
    modelDefaults: { requestsPerMinute: 6_000, tokensPerMinute: 4_000_000 },
    weight: 16,
    tiers: ["priority", "default", "flex"],
    files: { count: 100_000, bytes: 1_000 * GIBIBYTE, endUser: { count: 1_000, bytes: 10 * GIBIBYTE } },
    artifacts: { count: 5_000_000, bytes: 8 * GIBIBYTE, endUser: { count: 50_000, bytes: 400 * MEBIBYTE } },
    background: { runs: 1_024, bytes: 64 * MEBIBYTE, endUserRuns: 64 },
  },
} as const satisfies Record<string, Plan>;

export type PlanName = keyof typeof PLANS;
export const PLAN_NAMES = Object.keys(PLANS) as [PlanName, ...PlanName[]];
export const DEFAULT_PLAN = "standard";

/** The plan of a policy; one that a later version knows and this one does not is the default. */
export const planOf = ({ plan }: Pick<PolicySnapshot, "plan">): Plan =>
  Object.hasOwn(PLANS, plan) ? PLANS[plan as PlanName] : PLANS[DEFAULT_PLAN];

/** What may be stored of a kind. */
export const storageQuotaOf = (policy: Pick<PolicySnapshot, "plan">, kind: "artifact" | "file"): StorageQuota =>
  kind === "file" ? planOf(policy).files : planOf(policy).artifacts;

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
