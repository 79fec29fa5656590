CREATE TABLE `directory_key` (
	`key_hash` text PRIMARY KEY NOT NULL,
	`tenant_id` text NOT NULL,
	`region` text NOT NULL,
	`status` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `directory_tenant` (
	`tenant_id` text PRIMARY KEY NOT NULL,
	`region` text NOT NULL,
	`status` text NOT NULL
);
