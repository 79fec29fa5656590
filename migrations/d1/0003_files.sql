CREATE TABLE `file` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`end_user` text NOT NULL,
	`filename` text NOT NULL,
	`purpose` text NOT NULL,
	`bytes` integer NOT NULL,
	`sha256` text NOT NULL,
	`sealed_key` text NOT NULL,
	`expires_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `file_by_creation` ON `file` (`tenant_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `file_by_expiry` ON `file` (`tenant_id`,`expires_at`);