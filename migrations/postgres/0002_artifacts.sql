CREATE TABLE "artifact" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"kind" text NOT NULL,
	"end_user" text NOT NULL,
	"model" text NOT NULL,
	"root_id" text NOT NULL,
	"metadata" jsonb NOT NULL,
	"input" jsonb NOT NULL,
	"output" jsonb NOT NULL,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "artifact_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE INDEX "artifact_by_creation" ON "artifact" USING btree ("tenant_id","kind","created_at","id");--> statement-breakpoint
CREATE INDEX "artifact_by_root" ON "artifact" USING btree ("tenant_id","root_id","created_at");