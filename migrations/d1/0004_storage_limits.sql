CREATE TABLE `storage_use` (
	`tenant_id` text NOT NULL,
	`kind` text NOT NULL,
	`end_user` text NOT NULL,
	`objects` integer NOT NULL,
	`bytes` integer NOT NULL,
	`is_within` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `kind`, `end_user`),
	CONSTRAINT "storage_within_quota" CHECK("storage_use"."is_within" = 1)
);
--> statement-breakpoint
ALTER TABLE `artifact` ADD `bytes` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `artifact` ADD `expires_at` integer;--> statement-breakpoint
ALTER TABLE `artifact` ADD `change` text;--> statement-breakpoint
CREATE INDEX `artifact_by_expiry` ON `artifact` (`tenant_id`,`expires_at`) WHERE "artifact"."expires_at" is not null;--> statement-breakpoint
CREATE INDEX `artifact_by_deletion` ON `artifact` (`tenant_id`,`deleted_at`) WHERE "artifact"."deleted_at" is not null;--> statement-breakpoint
ALTER TABLE `file` ADD `state` text DEFAULT 'ready' NOT NULL;--> statement-breakpoint
ALTER TABLE `file` ADD `sweep_at` integer;--> statement-breakpoint
ALTER TABLE `file` ADD `change` text;--> statement-breakpoint
CREATE INDEX `file_by_sweep` ON `file` (`tenant_id`,`sweep_at`) WHERE "file"."sweep_at" is not null;--> statement-breakpoint
CREATE INDEX `file_by_deletion` ON `file` (`tenant_id`,`deleted_at`) WHERE "file"."deleted_at" is not null;