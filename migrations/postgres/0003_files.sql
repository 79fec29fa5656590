CREATE TABLE "file" (
	"tenant_id" text NOT NULL,
	"id" text NOT NULL,
	"end_user" text NOT NULL,
	"filename" text NOT NULL,
	"purpose" text NOT NULL,
	"bytes" bigint NOT NULL,
	"sha256" text NOT NULL,
	"sealed_key" text NOT NULL,
	"expires_at" bigint,
	"created_at" bigint NOT NULL,
	"updated_at" bigint NOT NULL,
	"deleted_at" bigint,
	CONSTRAINT "file_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE INDEX "file_by_creation" ON "file" USING btree ("tenant_id","created_at","id");--> statement-breakpoint
CREATE INDEX "file_by_expiry" ON "file" USING btree ("tenant_id","expires_at");