import { isNotNull, sql } from "drizzle-orm";
import { check, foreignKey, index, integer, primaryKey, sqliteTable, text } from "drizzle-orm/sqlite-core";
import type { Estimates } from "../core/reconciliation";

/**
 * The system of record. Every table leads with tenant_id, in its primary key and in every index, and carries
 * deleted_at. Times are Unix milliseconds.
 *
 * The gate of a tenant is the authority for keys, accounts, status and limits; these tables are the copies that
 * lists are read from. What belongs to the operator (projects, the administrative log, the organization-wide
 * ledger) belongs to the reserved tenant `platform`, so no read ever has to leave its tenant.
 */
const owner = { tenantId: text("tenant_id").notNull() };
const lifetime = {
  createdAtMs: integer("created_at").notNull(),
  updatedAtMs: integer("updated_at").notNull(),
  deletedAtMs: integer("deleted_at"),
};

/** A tenant as the operator sees it; owned by `platform`. */
export const project = sqliteTable(
  "project",
  {
    ...owner,
    id: text("id").notNull(),
    name: text("name").notNull(),
    region: text("region").notNull(),
    residency: text("residency").notNull(),
    externalKeyId: text("external_key_id"),
    status: text("status").notNull(),
    archivedAtMs: integer("archived_at"),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("project_by_creation").on(t.tenantId, t.createdAtMs, t.id),
  ],
);

export const serviceAccount = sqliteTable(
  "service_account",
  {
    ...owner,
    id: text("id").notNull(),
    name: text("name").notNull(),
    role: text("role").notNull(),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("service_account_by_creation").on(t.tenantId, t.createdAtMs, t.id),
  ],
);

/** Keys of tenants, and of the operator under `platform`. Never the key, nor its hash: only what may be shown. */
export const apiKey = sqliteTable(
  "api_key",
  {
    ...owner,
    id: text("id").notNull(),
    /** Null for admin keys. */
    serviceAccountId: text("service_account_id"),
    name: text("name").notNull(),
    redactedValue: text("redacted_value").notNull(),
    scopes: text("scopes", { mode: "json" }).$type<string[]>().notNull(),
    expiresAtMs: integer("expires_at"),
    lastUsedAtMs: integer("last_used_at"),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("api_key_by_creation").on(t.tenantId, t.createdAtMs, t.id),
    foreignKey({
      columns: [t.tenantId, t.serviceAccountId],
      foreignColumns: [serviceAccount.tenantId, serviceAccount.id],
    }),
  ],
);

/** Administrative events, append-only; owned by `platform`, about one project or the organization. */
export const auditLog = sqliteTable(
  "audit_log",
  {
    ...owner,
    id: text("id").notNull(),
    effectiveAtMs: integer("effective_at").notNull(),
    type: text("type").notNull(),
    projectId: text("project_id"),
    actorKeyId: text("actor_key_id"),
    resourceId: text("resource_id"),
    details: text("details", { mode: "json" }).$type<Record<string, unknown>>().notNull(),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("audit_log_by_time").on(t.tenantId, t.effectiveAtMs, t.id),
  ],
);

/**
 * Usage by hour, one row for each combination that occurred; owned by `platform`. Rows are absolute values of one
 * gate, so writing one twice changes nothing.
 */
export const usageRollup = sqliteTable(
  "usage_rollup",
  {
    ...owner,
    projectId: text("project_id").notNull(),
    hourMs: integer("hour").notNull(),
    /** Name of the gate that counted. */
    gate: text("gate").notNull(),
    kind: text("kind").notNull(),
    model: text("model").notNull(),
    keyId: text("key_id").notNull(),
    serviceTier: text("service_tier").notNull(),
    batch: integer("batch", { mode: "boolean" }).notNull(),
    /** Empty for calls with a key alone. */
    endUser: text("end_user").notNull().default(""),
    requests: integer("requests").notNull(),
    inputTokens: integer("input_tokens").notNull(),
    cachedTokens: integer("cached_tokens").notNull(),
    outputTokens: integer("output_tokens").notNull(),
    priceMicrodollars: integer("price_microdollars").notNull(),
    costMicrodollars: integer("cost_microdollars").notNull(),
    /** Minute of the hour → [requests, input, cached, output tokens]. */
    minutes: text("minutes", { mode: "json" }).$type<MinuteCounts>().notNull(),
    /** Null in hours of earlier versions. */
    estimates: text("estimates", { mode: "json" }).$type<Estimates>(),
    ...lifetime,
  },
  (t) => [
    primaryKey({
      columns: [t.tenantId, t.hourMs, t.projectId, t.gate, t.kind, t.model, t.keyId, t.serviceTier, t.batch, t.endUser],
    }),
    index("usage_rollup_by_project").on(t.tenantId, t.projectId, t.hourMs),
  ],
);
export type MinuteCounts = Record<string, [requests: number, input: number, cached: number, output: number]>;

/** Manifest of a tenant's sealed journal segments in object storage. */
export const journalSegment = sqliteTable(
  "journal_segment",
  {
    ...owner,
    gate: text("gate").notNull(),
    firstSeq: integer("first_seq").notNull(),
    lastSeq: integer("last_seq").notNull(),
    objectKey: text("object_key").notNull(),
    sizeBytes: integer("size_bytes").notNull(),
    fromMs: integer("from").notNull(),
    toMs: integer("to").notNull(),
    lastHash: text("last_hash").notNull(),
    ...lifetime,
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.gate, t.firstSeq] })],
);

/** What a model made and a caller asked to keep: chat completions and responses, whole. */
export const artifact = sqliteTable(
  "artifact",
  {
    ...owner,
    id: text("id").notNull(),
    kind: text("kind").$type<"chat.completion" | "response">().notNull(),
    /** Whose it is beside the tenant; empty where the tenant's own server asked. */
    endUser: text("end_user").notNull(),
    model: text("model").notNull(),
    /** The first response of the conversation that it belongs to; itself, where it begins one. */
    rootId: text("root_id").notNull(),
    metadata: text("metadata", { mode: "json" }).$type<Readonly<Record<string, string>>>().notNull(),
    input: text("input", { mode: "json" }).$type<unknown>().notNull(),
    output: text("output", { mode: "json" }).$type<unknown>().notNull(),
    /** What it takes of its owner's room; 0 in rows of versions that did not count. */
    bytes: integer("bytes").notNull().default(0),
    /** From then on nobody finds it; null in rows of versions that kept everything. */
    expiresAtMs: integer("expires_at"),
    /** The latest change that gave room back, so that each row's room is given back once. */
    change: text("change"),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("artifact_by_creation").on(t.tenantId, t.kind, t.createdAtMs, t.id),
    index("artifact_by_root").on(t.tenantId, t.rootId, t.createdAtMs),
    index("artifact_by_expiry").on(t.tenantId, t.expiresAtMs).where(isNotNull(t.expiresAtMs)),
    index("artifact_by_deletion").on(t.tenantId, t.deletedAtMs).where(isNotNull(t.deletedAtMs)),
  ],
);

/** Uploaded files; their bytes lie sealed in object storage. */
export const file = sqliteTable(
  "file",
  {
    ...owner,
    id: text("id").notNull(),
    /** Whose it is beside the tenant; empty where the tenant's own server uploaded it. */
    endUser: text("end_user").notNull(),
    filename: text("filename").notNull(),
    purpose: text("purpose").notNull(),
    bytes: integer("bytes").notNull(),
    sha256: text("sha256").notNull(),
    /** The file's own key, sealed with the tenant's, base64. */
    sealedKey: text("sealed_key").notNull(),
    expiresAtMs: integer("expires_at"),
    /**
     * Every state but `ready` comes with deleted_at, so that only ready files are found. A row is there before its
     * bytes (`uploading`) and until they are gone (`removing`): nothing lies in object storage without a row.
     */
    state: text("state").$type<"uploading" | "ready" | "removing" | "removed">().notNull().default("ready"),
    /** When maintenance looks at it: an upload that nobody finished, or bytes that could not be removed. */
    sweepAtMs: integer("sweep_at"),
    /** The latest change of its state, so that each row's room is given back once. */
    change: text("change"),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("file_by_creation").on(t.tenantId, t.createdAtMs, t.id),
    index("file_by_expiry").on(t.tenantId, t.expiresAtMs),
    index("file_by_sweep").on(t.tenantId, t.sweepAtMs).where(isNotNull(t.sweepAtMs)),
    index("file_by_deletion").on(t.tenantId, t.deletedAtMs).where(isNotNull(t.deletedAtMs)),
  ],
);

/**
 * How much a tenant stores, and each of its end users: one counter per kind and owner, changed in the transaction
 * that changes what it counts. A change that would pass the limit breaks the check, and with it the transaction.
 */
export const storageUse = sqliteTable(
  "storage_use",
  {
    ...owner,
    kind: text("kind").$type<StoredKind>().notNull(),
    /** Empty for the whole tenant, its end users included. */
    endUser: text("end_user").notNull(),
    objects: integer("objects").notNull(),
    bytes: integer("bytes").notNull(),
    /** 1, or the change is refused. */
    isWithin: integer("is_within").notNull(),
    ...lifetime,
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.kind, t.endUser] }),
    check("storage_within_quota", sql`${t.isWithin} = 1`),
  ],
);
export type StoredKind = "artifact" | "file";
