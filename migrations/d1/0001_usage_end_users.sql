CREATE TABLE `__new_usage_rollup` (
	`tenant_id` text NOT NULL,
	`project_id` text NOT NULL,
	`hour` integer NOT NULL,
	`gate` text NOT NULL,
	`kind` text NOT NULL,
	`model` text NOT NULL,
	`key_id` text NOT NULL,
	`service_tier` text NOT NULL,
	`batch` integer NOT NULL,
	`end_user` text DEFAULT '' NOT NULL,
	`requests` integer NOT NULL,
	`input_tokens` integer NOT NULL,
	`cached_tokens` integer NOT NULL,
	`output_tokens` integer NOT NULL,
	`price_microdollars` integer NOT NULL,
	`cost_microdollars` integer NOT NULL,
	`minutes` text NOT NULL,
	`estimates` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `hour`, `project_id`, `gate`, `kind`, `model`, `key_id`, `service_tier`, `batch`, `end_user`)
);
--> statement-breakpoint
INSERT INTO `__new_usage_rollup`("tenant_id", "project_id", "hour", "gate", "kind", "model", "key_id", "service_tier", "batch", "end_user", "requests", "input_tokens", "cached_tokens", "output_tokens", "price_microdollars", "cost_microdollars", "minutes", "estimates", "created_at", "updated_at", "deleted_at") SELECT "tenant_id", "project_id", "hour", "gate", "kind", "model", "key_id", "service_tier", "batch", '', "requests", "input_tokens", "cached_tokens", "output_tokens", "price_microdollars", "cost_microdollars", "minutes", NULL, "created_at", "updated_at", "deleted_at" FROM `usage_rollup`;--> statement-breakpoint
DROP TABLE `usage_rollup`;--> statement-breakpoint
ALTER TABLE `__new_usage_rollup` RENAME TO `usage_rollup`;--> statement-breakpoint
CREATE INDEX `usage_rollup_by_project` ON `usage_rollup` (`tenant_id`,`project_id`,`hour`);