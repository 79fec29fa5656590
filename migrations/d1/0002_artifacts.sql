CREATE TABLE `artifact` (
	`tenant_id` text NOT NULL,
	`id` text NOT NULL,
	`kind` text NOT NULL,
	`end_user` text NOT NULL,
	`model` text NOT NULL,
	`root_id` text NOT NULL,
	`metadata` text NOT NULL,
	`input` text NOT NULL,
	`output` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`deleted_at` integer,
	PRIMARY KEY(`tenant_id`, `id`)
);
--> statement-breakpoint
CREATE INDEX `artifact_by_creation` ON `artifact` (`tenant_id`,`kind`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `artifact_by_root` ON `artifact` (`tenant_id`,`root_id`,`created_at`);