import { FIRST_VALUES, POLICY_SCHEMA_VERSION, type PolicySnapshot } from "./policy";

/**
 * Plans as versioned configuration: the limits a tenant has until its operator changes them. Tokens are prompt and
 * output together; the in-flight limit is per tenant, the others per model.
 */
export const PLANS = {
  standard: {
    inFlight: 32,
    queueLength: 256,
    modelDefaults: { requestsPerMinute: 600, tokensPerMinute: 400_000 },
  },
} as const;

export const DEFAULT_PLAN = "standard";

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
    limits: { inFlight, queueLength, models: {}, modelDefaults },
    allowedModels: null,
    contentLogging: "metadata",
    guardPolicy: { version: 1, action: "flag" },
    cacheEpoch: 0,
    priceVersion: null,
  };
}
