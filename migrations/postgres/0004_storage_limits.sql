CREATE TABLE "storage_use" (
	"tenant_id" text NOT NULL,
	"kind" text NOT NULL,
	"end_user" text NOT NULL,
	"objects" bigint NOT NULL,
	"bytes" bigint NOT NULL,
	"is_within" bigint NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "storage_use_tenant_id_kind_end_user_pk" PRIMARY KEY("tenant_id","kind","end_user"),
	CONSTRAINT "storage_within_quota" CHECK ("storage_use"."is_within" = 1)
);
--> statement-breakpoint
ALTER TABLE "artifact" ADD COLUMN "bytes" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "artifact" ADD COLUMN "expires_at" bigint;--> statement-breakpoint
ALTER TABLE "artifact" ADD COLUMN "change" text;--> statement-breakpoint
ALTER TABLE "file" ADD COLUMN "state" text DEFAULT 'ready' NOT NULL;--> statement-breakpoint
ALTER TABLE "file" ADD COLUMN "sweep_at" bigint;--> statement-breakpoint
ALTER TABLE "file" ADD COLUMN "change" text;--> statement-breakpoint
CREATE INDEX "artifact_by_expiry" ON "artifact" USING btree ("tenant_id","expires_at") WHERE "artifact"."expires_at" is not null;--> statement-breakpoint
CREATE INDEX "artifact_by_deletion" ON "artifact" USING btree ("tenant_id","deleted_at") WHERE "artifact"."deleted_at" is not null;--> statement-breakpoint
CREATE INDEX "file_by_sweep" ON "file" USING btree ("tenant_id","sweep_at") WHERE "file"."sweep_at" is not null;--> statement-breakpoint
CREATE INDEX "file_by_deletion" ON "file" USING btree ("tenant_id","deleted_at") WHERE "file"."deleted_at" is not null;