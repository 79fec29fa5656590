CREATE TABLE "api_key" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"service_account_id" text,
	"name" text NOT NULL,
	"redacted_value" text NOT NULL,
	"scopes" jsonb NOT NULL,
	"expires_at" bigint,
	"last_used_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "api_key_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "audit_log" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"effective_at" bigint NOT NULL,
	"type" text NOT NULL,
	"project_id" text,
	"actor_key_id" text,
	"resource_id" text,
	"details" jsonb NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "audit_log_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "journal_segment" (
	"tenant_id" text NOT NULL,
	"gate" text NOT NULL,
	"first_seq" bigint NOT NULL,
	"last_seq" bigint NOT NULL,
	"object_key" text NOT NULL,
	"size_bytes" bigint NOT NULL,
	"from" bigint NOT NULL,
	"to" bigint NOT NULL,
	"last_hash" text NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "journal_segment_tenant_id_gate_first_seq_pk" PRIMARY KEY("tenant_id","gate","first_seq")
);
--> statement-breakpoint
CREATE TABLE "project" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"name" text NOT NULL,
	"region" text NOT NULL,
	"residency" text NOT NULL,
	"external_key_id" text,
	"status" text NOT NULL,
	"archived_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "project_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "service_account" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"name" text NOT NULL,
	"role" text NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "service_account_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "usage_rollup" (
	"tenant_id" text NOT NULL,
	"project_id" text NOT NULL,
	"hour" bigint NOT NULL,
	"gate" text NOT NULL,
	"kind" text NOT NULL,
	"model" text NOT NULL,
	"key_id" text NOT NULL,
	"service_tier" text NOT NULL,
	"batch" boolean NOT NULL,
	"requests" bigint NOT NULL,
	"input_tokens" bigint NOT NULL,
	"cached_tokens" bigint NOT NULL,
	"output_tokens" bigint NOT NULL,
	"price_microdollars" bigint NOT NULL,
	"cost_microdollars" bigint NOT NULL,
	"minutes" jsonb NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "usage_rollup_tenant_id_hour_project_id_gate_kind_model_key_id_service_tier_batch_pk" PRIMARY KEY("tenant_id","hour","project_id","gate","kind","model","key_id","service_tier","batch")
);
--> statement-breakpoint
ALTER TABLE "api_key" ADD CONSTRAINT "api_key_tenant_id_service_account_id_service_account_tenant_id_id_fk" FOREIGN KEY ("tenant_id","service_account_id") REFERENCES "service_account"("tenant_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_key_by_creation" ON "api_key" USING btree ("tenant_id","created_at","id");--> statement-breakpoint
CREATE INDEX "audit_log_by_time" ON "audit_log" USING btree ("tenant_id","effective_at","id");--> statement-breakpoint
CREATE INDEX "project_by_creation" ON "project" USING btree ("tenant_id","created_at","id");--> statement-breakpoint
CREATE INDEX "service_account_by_creation" ON "service_account" USING btree ("tenant_id","created_at","id");--> statement-breakpoint
CREATE INDEX "usage_rollup_by_project" ON "usage_rollup" USING btree ("tenant_id","project_id","hour");