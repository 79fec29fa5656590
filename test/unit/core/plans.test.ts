import { describe, expect, it } from "vitest";
import {
  DEFAULT_PLAN,
  firstPolicy,
  PLAN_NAMES,
  PLANS,
  planOf,
  storageQuotaOf,
  withPlan,
} from "../../../src/core/plans";
import { DATA_RETENTIONS, keepsNothing, modelLimits, readPolicy } from "../../../src/core/policy";

const policy = firstPolicy("proj_1", "eu");

describe("the policy of a new tenant", () => {
  it("is that of the default plan, active, in the pool, and keeps what is deleted for 30 days", () => {
    expect(policy).toMatchObject({
      ...{ version: 1, tenantId: "proj_1", region: "eu", status: "active", plan: DEFAULT_PLAN, isolation: "pool" },
      ...{ retentionDays: 30, dataRetention: "organization_default", allowedModels: null },
    });
    const { inFlight, queueLength, modelDefaults } = PLANS[DEFAULT_PLAN];
    expect(policy.limits).toEqual({
      ...{ inFlight, queueLength, modelDefaults, models: {}, rules: [], monthlySpend: null, overrides: {} },
    });
  });
});

describe("another plan", () => {
  it.each(PLAN_NAMES)("%s brings its own numbers", (plan) => {
    const changed = withPlan(policy, plan);
    const { inFlight, queueLength, modelDefaults, files, artifacts } = PLANS[plan];
    expect(changed).toMatchObject({ plan, limits: { inFlight, queueLength, modelDefaults } });
    expect(planOf(changed)).toBe(PLANS[plan]);
    expect(storageQuotaOf(changed, "file")).toBe(files);
    expect(storageQuotaOf(changed, "artifact")).toBe(artifacts);
  });

  it("leaves what the operator set by hand: limits of models, rules, budget and overrides", () => {
    const own = {
      ...{ models: { m: { requestsPerMinute: 1, tokensPerMinute: 2 } }, monthlySpend: 5 },
      overrides: { inFlight: 7 },
    };
    const changed = withPlan({ ...policy, limits: { ...policy.limits, ...own } }, "premium");
    expect(changed.limits).toMatchObject({ ...own, inFlight: 7, queueLength: PLANS.premium.queueLength });
  });

  it("that this version does not know is the default plan", () => {
    for (const plan of ["of tomorrow", "toString", "__proto__"]) expect(planOf({ plan })).toBe(PLANS[DEFAULT_PLAN]);
  });

  it("that costs more never gives less", () => {
    const { free, standard, premium } = PLANS;
    for (const [less, more] of [
      [free, standard],
      [standard, premium],
    ] as const) {
      expect(more.inFlight).toBeGreaterThan(less.inFlight);
      expect(more.weight).toBeGreaterThan(less.weight);
      expect(more.files.bytes).toBeGreaterThan(less.files.bytes);
      expect(more.modelDefaults.tokensPerMinute).toBeGreaterThan(less.modelDefaults.tokensPerMinute);
    }
    expect(free.tiers).not.toContain("priority");
  });
});

describe("the limits of a model", () => {
  const limits = { ...policy.limits, models: { m: { requestsPerMinute: 1, tokensPerMinute: 2 } } };
  it("are its own where the operator set some, else the plan's, whatever the model is called", () => {
    expect(modelLimits({ ...policy, limits }, "m")).toEqual({ requestsPerMinute: 1, tokensPerMinute: 2 });
    for (const name of ["n", "constructor", "__proto__"]) {
      expect(modelLimits({ ...policy, limits }, name)).toEqual(policy.limits.modelDefaults);
    }
  });
});

describe("a stored policy", () => {
  it("of an earlier version has first values for what it did not know, and keeps what it says", () => {
    const { isolation: _, retentionDays: __, dataRetention: ___, ...older } = policy;
    const { rules: ____, monthlySpend: _____, overrides: ______, ...olderLimits } = older.limits;
    expect(readPolicy(JSON.stringify({ ...older, limits: olderLimits }))).toEqual(policy);
    const own = {
      ...policy,
      isolation: "silo" as const,
      retentionDays: 3,
      limits: { ...policy.limits, monthlySpend: 9 },
    };
    expect(readPolicy(JSON.stringify(own))).toEqual(own);
  });

  it("keeps nothing of what callers send exactly where the contract calls it zero data retention", () => {
    const keeping = DATA_RETENTIONS.filter((dataRetention) => keepsNothing({ ...policy, dataRetention }));
    expect(keeping).toEqual(["zero_data_retention", "enhanced_zero_data_retention"]);
  });
});
