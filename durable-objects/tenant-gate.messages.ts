import { z } from "zod";
import type { RuleState } from "../src/core/admission-book";
import { PLAN_NAMES } from "../src/core/plans";
import { DATA_RETENTIONS, ISOLATIONS, type PolicySnapshot } from "../src/core/policy";
import type { RateRefusal } from "../src/core/rate-windows";
import type { Estimates } from "../src/core/reconciliation";
import type { DecisionRecord } from "../src/core/records";
import { CALL_KINDS, type CallKind } from "../src/core/records";
import type { WrappedKey } from "./ports";
import type { RefusedChange } from "./tenant-facts";

/**
 * What goes over the wire between the Worker and a TenantGate, in both directions. Requests are parsed at the
 * gate's door; replies are data. Version 1.
 */
const Id = z.string().min(1).max(200);
const ServiceTier = z.enum(["priority", "default", "flex"]);
const Kind = z.enum(CALL_KINDS);
const Tokens = z.int().min(0).max(1_000_000_000);
const Milliseconds = z.int().min(0);
/** The longest deadline of a request, and the longest wait before it. */
const MAX_HOLD_MS = 3_600_000 + 700_000;

export const AdmitRequest = z.object({
  requestId: Id,
  kind: Kind,
  route: z.string().max(200),
  model: z.string().max(200),
  provider: z.string().max(100),
  providerModel: z.string().max(200),
  keyId: Id,
  endUser: z.object({ subject: Id, requestsPerMinute: z.int().min(0).nullable() }).nullable(),
  serviceTier: ServiceTier,
  stream: z.boolean(),
  /** Upper bound of the prompt. */
  promptTokens: Tokens,
  /** It is the prompt's bytes: where they find no room, the caller counts and asks again under the same id. */
  promptIsBytes: z.boolean().default(false),
  /** Cap per choice; `outputLowerable` when the caller named none. */
  outputTokens: Tokens,
  outputLowerable: z.boolean(),
  choices: z.int().min(1).max(128),
  /** How long the caller is willing to wait for a slot. */
  patienceMs: Milliseconds.max(600_000),
  /** After which an unsettled call is booked at its worst case. */
  holdMs: Milliseconds.max(MAX_HOLD_MS),
  /** Draws that the isolate would like beside this call, for more of the same. */
  wantedDraws: z.int().min(0).max(1_000).default(0),
});
export type AdmitRequest = z.input<typeof AdmitRequest>;

/** A call whose key the caller of the gate does not know yet. */
const OpeningCall = AdmitRequest.omit({ keyId: true });
export type OpeningCall = z.input<typeof OpeningCall>;

/**
 * Who knocks: a key by its hash, or the key that minted an end user's token. With the call that it wants to make, so
 * that a caller the isolate does not know is bound and admitted in one round trip.
 */
export const BindRequest = z.object({
  credential: z.union([z.object({ keyHash: z.string().length(64) }), z.object({ keyId: Id })]),
  knownPolicyVersion: z.int().nullable(),
  call: OpeningCall.nullable().default(null),
});
export type BindRequest = z.input<typeof BindRequest>;

export interface BoundKey {
  readonly id: string;
  /** Null for admin keys. */
  readonly serviceAccountId: string | null;
  readonly scopes: readonly string[];
}
/** `policy` is null when the version that the caller knows is the one in force. */
export type BindReply =
  | {
      readonly bound: true;
      readonly key: BoundKey;
      readonly policyVersion: number;
      readonly policy: PolicySnapshot | null;
      /** Of the call that came along; null without one, and for one that this key may not make. */
      readonly admission: AdmitReply | null;
    }
  | { readonly bound: false; readonly reason: "unknown_key" | "archived" | "suspended" };

/** A prepaid slice for calls of the same key, model and tier; see `src/core/gate-leases.ts`. */
export interface GrantedLease {
  readonly id: string;
  readonly draws: number;
  readonly tokens: number;
  readonly microdollars: number;
  /** Of a token, to count a call's worst case; null while nothing is priced. */
  readonly price: { readonly input: number; readonly output: number } | null;
}

/** State of one rule that a request meets, as headers and refusals show it. */
export type RateState = RuleState;
export type Refusal = RateRefusal;

/** A rule of the tenant and where it stands. */
export interface LimitState extends RuleState {
  /** Null for rules that are not of one model. */
  readonly model: string | null;
  readonly scope: "project" | "model" | "api_key" | "end_user";
  readonly subject: string | null;
  readonly period: string;
}
export interface LimitsReply {
  readonly policy: PolicySnapshot;
  readonly limits: readonly LimitState[];
  readonly inFlight: { readonly limit: number; readonly running: number; readonly waiting: number };
}
export type AdmitReply =
  | {
      readonly admitted: true;
      readonly outputTokens: number;
      readonly queuedMs: number;
      readonly rates: readonly RateState[];
      readonly policyVersion: number;
      readonly lease: GrantedLease | null;
    }
  | { readonly admitted: false; readonly refusal: Refusal; readonly rates: readonly RateState[] }
  /**
   * `price_unknown`: a budget is in force and nobody knows what the model costs. `request_ended`: this id was admitted
   * or refused before and is over, or its caller has left.
   */
  | {
      readonly admitted: false;
      readonly reason:
        | "unknown_key"
        | "archived"
        | "suspended"
        | "price_unknown"
        | "tier_not_in_plan"
        | "request_ended";
    };

/** How a call ended; `release` is a call that never reached the model: nothing is recorded, its tokens go back. */
export const FinishRequest = z.object({
  requestId: Id,
  /** Of a call that drew on a lease: what the gate does not know of it yet. */
  draw: z
    .object({
      leaseId: Id,
      kind: Kind,
      route: z.string().max(200),
      stream: z.boolean(),
      promptTokens: Tokens,
      /** Cap times choices. */
      outputTokens: Tokens,
    })
    .nullable()
    .default(null),
  end: z
    .object({
      outcome: z.enum(["completed", "cancelled", "provider_error", "deadline"]),
      promptTokens: Tokens,
      cachedTokens: Tokens,
      completionTokens: Tokens,
      estimated: z.boolean(),
      /** The provider reported what cannot be true. */
      usageRejected: z.boolean().default(false),
      adapterDigest: z.string().max(64).nullable(),
      promptVersion: z.string().max(200).nullable(),
      firstTokenMs: Milliseconds.nullable(),
      totalMs: Milliseconds.nullable(),
    })
    .nullable(),
});
export type FinishRequest = z.input<typeof FinishRequest>;

/** An isolate draws no more on a lease; these of its calls it has not heard the end of. */
export const ReturnRequest = z.object({
  leaseId: Id,
  running: z.array(z.object({ requestId: Id, tokens: Tokens, microdollars: z.int().min(0) })).max(1_000),
});
export type ReturnRequest = z.infer<typeof ReturnRequest>;

/** `receipt` names the decision record in the tenant's hash chain; null for a release. */
export type FinishReply =
  | { readonly settled: true; readonly receipt: string | null }
  /** Nobody holds this id: it expired and is already booked as unreconciled, or it never was. */
  | { readonly settled: false };

export const JournalQuery = z.object({
  limit: z.int().min(1).max(100),
  order: z.enum(["asc", "desc"]),
  /** Sequence number to go on from, exclusive. */
  afterSeq: z.int().nullable(),
  fromMs: z.int().nullable(),
  toMs: z.int().nullable(),
  model: z.string().nullable(),
  keyId: z.string().nullable(),
});
export type JournalQuery = z.infer<typeof JournalQuery>;
export interface JournalRow {
  readonly seq: number;
  readonly hash: string;
  readonly decision: DecisionRecord;
}
export interface JournalPage {
  readonly rows: readonly JournalRow[];
  readonly hasMore: boolean;
  /** The last row that was looked at: where the next page goes on, even when a filter left this one empty. */
  readonly lastSeq: number | null;
}

/** Usage of one hour and one combination; absolute values. */
export interface HourlyUsage {
  readonly hourMs: number;
  readonly kind: CallKind;
  readonly model: string;
  readonly keyId: string;
  readonly serviceTier: string;
  readonly batch: boolean;
  /** Null for calls with a key alone, and in hours of earlier versions. */
  readonly endUser: string | null;
  readonly requests: number;
  readonly inputTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly priceMicrodollars: number;
  readonly costMicrodollars: number;
  /** Minute of the hour → [requests, input, cached, output]. */
  readonly minutes: Readonly<Record<string, readonly [number, number, number, number]>>;
  readonly estimates: Estimates;
}

/** What a gate's journal says of some hours: events are what is billed, each once. */
export interface JournalSums {
  readonly events: number;
  readonly priceMicrodollars: number;
  readonly costMicrodollars: number;
}

export const LimitRuleSchema = z.object({
  scope: z.enum(["project", "api_key", "end_user"]),
  subject: Id.nullable(),
  metric: z.enum(["requests", "tokens", "spend"]),
  window: z.enum(["minute", "day", "month"]),
  timeZone: z.string().max(64).nullable(),
  limit: z.int().min(0),
  mode: z.enum(["hard", "shadow", "alert"]),
});

const Name = z.string().min(1).max(256);
/** A change of the tenant's own facts. Each commits at the gate together with its audit event and its copies. */
export const ChangeCommand = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("create_tenant"),
    name: Name,
    residency: z.string().max(64),
    externalKeyId: z.string().max(256).nullable(),
  }),
  z.object({
    type: z.literal("modify_tenant"),
    name: Name.optional(),
    externalKeyId: z.string().max(256).nullable().optional(),
  }),
  z.object({ type: z.literal("archive_tenant") }),
  z.object({ type: z.literal("restore_tenant") }),
  z.object({ type: z.literal("set_isolation"), isolation: z.enum(ISOLATIONS) }),
  z.object({
    type: z.literal("set_retention"),
    retentionDays: z.int().min(1).max(3_650).optional(),
    artifactDays: z.int().min(1).max(3_650).optional(),
  }),
  z.object({ type: z.literal("set_data_retention"), dataRetention: z.enum(DATA_RETENTIONS) }),
  z.object({ type: z.literal("suspend_tenant") }),
  z.object({ type: z.literal("resume_tenant") }),
  z.object({ type: z.literal("set_plan"), plan: z.enum(PLAN_NAMES) }),
  z.object({ type: z.literal("set_monthly_spend"), microdollars: z.int().min(1).nullable() }),
  z.object({
    type: z.literal("set_limits"),
    /** Null goes back to the plan's own number; undefined leaves it. */
    inFlight: z.int().min(0).max(100_000).nullable().optional(),
    queueLength: z.int().min(0).max(100_000).nullable().optional(),
    rules: z.array(LimitRuleSchema).max(50).optional(),
  }),
  z.object({ type: z.literal("create_service_account"), id: Id, name: Name }),
  z.object({
    type: z.literal("modify_service_account"),
    id: Id,
    name: Name.optional(),
    role: z.enum(["member", "owner"]).optional(),
  }),
  z.object({ type: z.literal("delete_service_account"), id: Id }),
  z.object({ type: z.literal("restore_service_account"), id: Id }),
  z.object({
    type: z.literal("create_key"),
    id: Id,
    hash: z.string().length(64),
    redactedValue: z.string().max(64),
    name: z.string().max(256),
    /** Null for admin keys, which exist only in the platform's gate. */
    serviceAccountId: Id.nullable(),
    scopes: z.array(z.enum(["data", "account", "admin"])).min(1),
    expiresAtMs: z.int().nullable(),
  }),
  z.object({ type: z.literal("delete_key"), id: Id }),
  z.object({ type: z.literal("restore_key"), id: Id }),
  z.object({
    type: z.literal("set_model_limits"),
    model: z.string().max(200),
    requestsPerMinute: z.int().min(0).max(1_000_000_000).optional(),
    tokensPerMinute: z.int().min(0).max(1_000_000_000_000).optional(),
  }),
]);
export type ChangeCommand = z.infer<typeof ChangeCommand>;

export const ChangeRequest = z.object({
  command: ChangeCommand,
  /** Key of the operator who asks; null for the platform's own bootstrap. */
  actorKeyId: Id.nullable(),
  /** Id of the audit event that this change leaves. */
  auditId: Id,
});
export type ChangeRequest = z.infer<typeof ChangeRequest>;

export type ChangeReply =
  | { readonly changed: true; readonly policy: PolicySnapshot; readonly nowMs: number }
  | { readonly changed: false; readonly reason: RefusedChange };

/** The methods of a TenantGate, as its callers see them. */
export interface TenantGateRpc {
  bind(request: BindRequest): Promise<BindReply>;
  admit(request: AdmitRequest): Promise<AdmitReply>;
  /**
   * The caller has gone, or has had no answer: nothing will run under this id. Whatever was reserved for it, its lease
   * included, is given back; an admission that comes later is refused.
   */
  leave(requestId: string): Promise<void>;
  finish(request: FinishRequest): Promise<FinishReply>;
  returnLease(request: ReturnRequest): Promise<void>;
  change(request: ChangeRequest): Promise<ChangeReply>;
  policy(): Promise<PolicySnapshot | null>;
  /** The tenant's data key, wrapped: worth nothing without the deployment's own. */
  dataKey(): Promise<WrappedKey | null>;
  /** Whether nothing of the tenant lies anywhere yet. */
  isEmpty(): Promise<boolean>;
  decisions(query: JournalQuery): Promise<JournalPage>;
  /** Every rule and where it stands, those of `models` included. */
  limits(models: readonly string[]): Promise<LimitsReply | null>;
  /** The journal's events between two times, added up; the ledger has all of them by then. */
  journalSums(fromMs: number, toMs: number): Promise<JournalSums>;
  /** Hours that the database may not have yet. */
  unsyncedUsage(): Promise<readonly HourlyUsage[]>;
  /** Rows of all of its tables that say something of the tenant. */
  countRows(): Promise<number>;
  /** Forgets everything, its data key included. For the end of a tenant alone. */
  erase(): Promise<void>;
}
