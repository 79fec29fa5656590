import { isNotNull, sql } from "drizzle-orm";
import { bigint, boolean, check, foreignKey, index, jsonb, pgTable, primaryKey, text } from "drizzle-orm/pg-core";
import type { Estimates } from "../core/reconciliation";
import type { MinuteCounts, StoredKind } from "./schema";

/**
 * The same tables as `schema.ts` for Postgres; a test compares them column by column. No table names a schema: the
 * search path decides whether it is the pool's or one tenant's own. Row level security is not written here:
 * `migrations/postgres/row-security.sql` puts it on every table there is.
 */
const owner = () => ({ tenantId: text("tenant_id").notNull() });
const milliseconds = (name: string) => bigint(name, { mode: "number" });
const count = (name: string) => bigint(name, { mode: "number" });
const lifetime = () => ({
  createdAtMs: milliseconds("created_at").notNull(),
  updatedAtMs: milliseconds("updated_at").notNull(),
  deletedAtMs: milliseconds("deleted_at"),
});

export const project = pgTable(
  "project",
  {
    ...owner(),
    id: text("id").notNull(),
    name: text("name").notNull(),
    region: text("region").notNull(),
    residency: text("residency").notNull(),
    externalKeyId: text("external_key_id"),
    status: text("status").notNull(),
    archivedAtMs: milliseconds("archived_at"),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("project_by_creation").on(t.tenantId, t.createdAtMs, t.id),
  ],
);

export const serviceAccount = pgTable(
  "service_account",
  {
    ...owner(),
    id: text("id").notNull(),
    name: text("name").notNull(),
    role: text("role").notNull(),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("service_account_by_creation").on(t.tenantId, t.createdAtMs, t.id),
  ],
);

export const apiKey = pgTable(
  "api_key",
  {
    ...owner(),
    id: text("id").notNull(),
    serviceAccountId: text("service_account_id"),
    name: text("name").notNull(),
    redactedValue: text("redacted_value").notNull(),
    scopes: jsonb("scopes").$type<string[]>().notNull(),
    expiresAtMs: milliseconds("expires_at"),
    lastUsedAtMs: milliseconds("last_used_at"),
    ...lifetime(),
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

export const auditLog = pgTable(
  "audit_log",
  {
    ...owner(),
    id: text("id").notNull(),
    effectiveAtMs: milliseconds("effective_at").notNull(),
    type: text("type").notNull(),
    projectId: text("project_id"),
    actorKeyId: text("actor_key_id"),
    resourceId: text("resource_id"),
    details: jsonb("details").$type<Record<string, unknown>>().notNull(),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("audit_log_by_time").on(t.tenantId, t.effectiveAtMs, t.id),
  ],
);

export const usageRollup = pgTable(
  "usage_rollup",
  {
    ...owner(),
    projectId: text("project_id").notNull(),
    hourMs: milliseconds("hour").notNull(),
    gate: text("gate").notNull(),
    kind: text("kind").notNull(),
    model: text("model").notNull(),
    keyId: text("key_id").notNull(),
    serviceTier: text("service_tier").notNull(),
    batch: boolean("batch").notNull(),
    endUser: text("end_user").notNull().default(""),
    requests: count("requests").notNull(),
    inputTokens: count("input_tokens").notNull(),
    cachedTokens: count("cached_tokens").notNull(),
    outputTokens: count("output_tokens").notNull(),
    priceMicrodollars: count("price_microdollars").notNull(),
    costMicrodollars: count("cost_microdollars").notNull(),
    minutes: jsonb("minutes").$type<MinuteCounts>().notNull(),
    estimates: jsonb("estimates").$type<Estimates>(),
    ...lifetime(),
  },
  (t) => [
    primaryKey({
      columns: [t.tenantId, t.hourMs, t.projectId, t.gate, t.kind, t.model, t.keyId, t.serviceTier, t.batch, t.endUser],
    }),
    index("usage_rollup_by_project").on(t.tenantId, t.projectId, t.hourMs),
  ],
);

export const journalSegment = pgTable(
  "journal_segment",
  {
    ...owner(),
    gate: text("gate").notNull(),
    firstSeq: count("first_seq").notNull(),
    lastSeq: count("last_seq").notNull(),
    objectKey: text("object_key").notNull(),
    sizeBytes: count("size_bytes").notNull(),
    fromMs: milliseconds("from").notNull(),
    toMs: milliseconds("to").notNull(),
    lastHash: text("last_hash").notNull(),
    ...lifetime(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.gate, t.firstSeq] })],
);

export const artifact = pgTable(
  "artifact",
  {
    ...owner(),
    id: text("id").notNull(),
    kind: text("kind").$type<"chat.completion" | "response">().notNull(),
    endUser: text("end_user").notNull(),
    model: text("model").notNull(),
    rootId: text("root_id").notNull(),
    metadata: jsonb("metadata").$type<Readonly<Record<string, string>>>().notNull(),
    input: jsonb("input").$type<unknown>().notNull(),
    output: jsonb("output").$type<unknown>().notNull(),
    bytes: count("bytes").notNull().default(0),
    expiresAtMs: milliseconds("expires_at"),
    change: text("change"),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("artifact_by_creation").on(t.tenantId, t.kind, t.createdAtMs, t.id),
    index("artifact_by_root").on(t.tenantId, t.rootId, t.createdAtMs),
    index("artifact_by_expiry").on(t.tenantId, t.expiresAtMs).where(isNotNull(t.expiresAtMs)),
    index("artifact_by_deletion").on(t.tenantId, t.deletedAtMs).where(isNotNull(t.deletedAtMs)),
  ],
);

export const file = pgTable(
  "file",
  {
    ...owner(),
    id: text("id").notNull(),
    endUser: text("end_user").notNull(),
    filename: text("filename").notNull(),
    purpose: text("purpose").notNull(),
    bytes: count("bytes").notNull(),
    sha256: text("sha256").notNull(),
    sealedKey: text("sealed_key").notNull(),
    expiresAtMs: milliseconds("expires_at"),
    state: text("state").$type<"uploading" | "ready" | "removing" | "removed">().notNull().default("ready"),
    sweepAtMs: milliseconds("sweep_at"),
    change: text("change"),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.id] }),
    index("file_by_creation").on(t.tenantId, t.createdAtMs, t.id),
    index("file_by_expiry").on(t.tenantId, t.expiresAtMs),
    index("file_by_sweep").on(t.tenantId, t.sweepAtMs).where(isNotNull(t.sweepAtMs)),
    index("file_by_deletion").on(t.tenantId, t.deletedAtMs).where(isNotNull(t.deletedAtMs)),
  ],
);

export const storageUse = pgTable(
  "storage_use",
  {
    ...owner(),
    kind: text("kind").$type<StoredKind>().notNull(),
    endUser: text("end_user").notNull(),
    objects: count("objects").notNull(),
    bytes: count("bytes").notNull(),
    isWithin: count("is_within").notNull(),
    ...lifetime(),
  },
  (t) => [
    primaryKey({ columns: [t.tenantId, t.kind, t.endUser] }),
    check("storage_within_quota", sql`${t.isWithin} = 1`),
  ],
);
