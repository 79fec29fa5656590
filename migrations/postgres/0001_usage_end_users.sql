ALTER TABLE "usage_rollup" DROP CONSTRAINT "usage_rollup_tenant_id_hour_project_id_gate_kind_model_key_id_service_tier_batch_pk";--> statement-breakpoint
ALTER TABLE "usage_rollup" ADD COLUMN "end_user" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "usage_rollup" ADD COLUMN "estimates" jsonb;--> statement-breakpoint
ALTER TABLE "usage_rollup" ADD CONSTRAINT "usage_rollup_tenant_id_hour_project_id_gate_kind_model_key_id_service_tier_batch_end_user_pk" PRIMARY KEY("tenant_id","hour","project_id","gate","kind","model","key_id","service_tier","batch","end_user");
