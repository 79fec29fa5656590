/**
 * The policy snapshot: everything the hot path must know of a tenant, owned by its TenantGate, copied by version.
 * Schema version 1; a reader of a later version must still read this one.
 */
export const POLICY_SCHEMA_VERSION = 1;

/** `purged`: archived for good; its data is being removed and nothing brings it back. */
export type TenantStatus = "active" | "suspended" | "archived" | "purged";

/** Rows among those of other tenants, in a schema of one's own, or in a database of one's own. */
export type Isolation = "pool" | "bridge" | "silo";
export const ISOLATIONS = ["pool", "bridge", "silo"] as const satisfies readonly Isolation[];

/** The contract's controls of what is kept of a project's content. */
export const DATA_RETENTIONS = [
  "organization_default",
  "none",
  "zero_data_retention",
  "modified_abuse_monitoring",
  "enhanced_zero_data_retention",
  "enhanced_modified_abuse_monitoring",
] as const;
export type DataRetention = (typeof DATA_RETENTIONS)[number];

/** Limits of one model for one tenant. Whole numbers ≥ 0; 0 refuses everything. */
export interface ModelLimits {
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
}

/** A limit of the operator's own beside those of the models. Counted per definition, so changing the number of one
 * keeps what was used of it. */
export interface LimitRule {
  /** Of the whole tenant, of one key, or of one end user. */
  readonly scope: "project" | "api_key" | "end_user";
  /** Which key or end user; null: each of them has this limit for itself. Always null for the project. */
  readonly subject: string | null;
  readonly metric: "requests" | "tokens" | "spend";
  /** Requests and tokens: any 60 s, any 24 h. Spend: the calendar day or month of `timeZone`. */
  readonly window: "minute" | "day" | "month";
  /** Null but for spend. */
  readonly timeZone: string | null;
  /** Whole requests, tokens or micro-dollars. */
  readonly limit: number;
  readonly mode: "hard" | "shadow" | "alert";
}

export interface PolicySnapshot {
  readonly v: typeof POLICY_SCHEMA_VERSION;
  /** Grows by one with every change. */
  readonly version: number;
  readonly tenantId: string;
  readonly region: string;
  readonly status: TenantStatus;
  readonly plan: string;
  readonly isolation: Isolation;
  /** How long deleted objects, and the tenant itself once archived, can be restored; then they are purged. */
  readonly retentionDays: number;
  /** Stored completions and responses are forgotten so many days after they were made. */
  readonly artifactDays: number;
  readonly dataRetention: DataRetention;
  readonly limits: {
    /** Model calls of the tenant that may run at once; more wait in the queue. */
    readonly inFlight: number;
    /** Requests that may wait at once; more are refused. */
    readonly queueLength: number;
    /** Limits of models that the operator changed, by public model name; others follow the plan. */
    readonly models: Readonly<Record<string, ModelLimits>>;
    readonly modelDefaults: ModelLimits;
    readonly rules: readonly LimitRule[];
    /** Hard, of the calendar month UTC, in micro-dollars; null for none. */
    readonly monthlySpend: number | null;
    /** What of the plan's own numbers the operator changed; a change of plan keeps them. */
    readonly overrides: { readonly inFlight?: number; readonly queueLength?: number };
  };
  /** Public model names the tenant may call; null means all. */
  readonly allowedModels: readonly string[] | null;
  /** What of the content is kept with a decision. */
  readonly contentLogging: "off" | "metadata" | "sealed";
  readonly guardPolicy: { readonly version: number; readonly action: "flag" | "sanitise" | "block" };
  /** Raised by one to forget every cached response. */
  readonly cacheEpoch: number;
  /** Version of the prices in force; null while nothing is priced. */
  readonly priceVersion: string | null;
}

/** A stored policy of any version up to this one; what an earlier one did not know has its first value. */
export function readPolicy(stored: string): PolicySnapshot {
  const policy = JSON.parse(stored) as PolicySnapshot;
  return { ...FIRST_VALUES, ...policy, limits: { ...FIRST_LIMITS, ...policy.limits } };
}
export const FIRST_VALUES = {
  isolation: "pool",
  retentionDays: 30,
  artifactDays: 30,
  dataRetention: "organization_default",
} as const satisfies Partial<PolicySnapshot>;
export const FIRST_LIMITS = {
  rules: [],
  monthlySpend: null,
  overrides: {},
} as const satisfies Partial<PolicySnapshot["limits"]>;

/** Whether nothing of what a caller sends or gets may be stored. */
export const keepsNothing = ({ dataRetention }: PolicySnapshot): boolean =>
  dataRetention === "zero_data_retention" || dataRetention === "enhanced_zero_data_retention";

/** The limits of `model` (public name) under `policy`. */
export function modelLimits(policy: PolicySnapshot, model: string): ModelLimits {
  return Object.hasOwn(policy.limits.models, model)
    ? (policy.limits.models[model] as ModelLimits)
    : policy.limits.modelDefaults;
}
