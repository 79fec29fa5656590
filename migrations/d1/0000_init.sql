CREATE TABLE `api_key` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`service_account_id` text,
	`name` text NOT NULL,
	`redacted_value` text NOT NULL,
	`scopes` text NOT NULL,
	`expires_at` integer,
	`last_used_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`),
	FOREIGN KEY (`tenant_id`,`service_account_id`) REFERENCES `service_account`(`tenant_id`,`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `api_key_by_creation` ON `api_key` (`tenant_id`,`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `audit_log` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`effective_at` integer NOT NULL,
	`type` text NOT NULL,
	`project_id` text,
	`actor_key_id` text,
	`resource_id` text,
	`details` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `audit_log_by_time` ON `audit_log` (`tenant_id`,`effective_at`,`id`);--> statement-breakpoint
CREATE TABLE `journal_segment` (
	`tenant_id` text NOT NULL,
	`gate` text NOT NULL,
	`first_seq` integer NOT NULL,
	`last_seq` integer NOT NULL,
	`object_key` text NOT NULL,
	`size_bytes` integer NOT NULL,
	`from` integer NOT NULL,
	`to` integer NOT NULL,
	`last_hash` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `gate`, `first_seq`)
);
--> statement-breakpoint
CREATE TABLE `project` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`name` text NOT NULL,
	`region` text NOT NULL,
	`residency` text NOT NULL,
	`external_key_id` text,
	`status` text NOT NULL,
	`archived_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `project_by_creation` ON `project` (`tenant_id`,`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `service_account` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`name` text NOT NULL,
	`role` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `service_account_by_creation` ON `service_account` (`tenant_id`,`created_at`,`id`);--> statement-breakpoint
CREATE TABLE `usage_rollup` (
	`tenant_id` text NOT NULL,
	`project_id` text NOT NULL,
	`hour` integer NOT NULL,
	`gate` text NOT NULL,
	`kind` text NOT NULL,
	`model` text NOT NULL,
	`key_id` text NOT NULL,
	`service_tier` text NOT NULL,
	`batch` integer NOT NULL,
	`requests` integer NOT NULL,
	`input_tokens` integer NOT NULL,
	`cached_tokens` integer NOT NULL,
	`output_tokens` integer NOT NULL,
	`price_microdollars` integer NOT NULL,
	`cost_microdollars` integer NOT NULL,
	`minutes` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `hour`, `project_id`, `gate`, `kind`, `model`, `key_id`, `service_tier`, `batch`)
);
--> statement-breakpoint
CREATE INDEX `usage_rollup_by_project` ON `usage_rollup` (`tenant_id`,`project_id`,`hour`);