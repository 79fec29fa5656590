import init from "../../migrations/d1/0000_init.sql";
import usageEndUsers from "../../migrations/d1/0001_usage_end_users.sql";
import artifacts from "../../migrations/d1/0002_artifacts.sql";
import files from "../../migrations/d1/0003_files.sql";
import storageLimits from "../../migrations/d1/0004_storage_limits.sql";

/** Every migration of the shared SQLite schema, in order: D1 has them at deploy time, a tenant's own database at its
 * first call. A test compares the list with the folder. */
export const MIGRATIONS = [
  { name: "0000_init.sql", sql: init },
  { name: "0001_usage_end_users.sql", sql: usageEndUsers },
  { name: "0002_artifacts.sql", sql: artifacts },
  { name: "0003_files.sql", sql: files },
  { name: "0004_storage_limits.sql", sql: storageLimits },
] as const;
