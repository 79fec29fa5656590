import type { TenantDatabaseRpc } from "../../durable-objects/tenant-database.messages";
import type { Database } from "./database";

/** A tenant's own database, in a Durable Object. */
export function objectDatabase(object: TenantDatabaseRpc): Database {
  return {
    read: (statement) => object.read(statement),
    write: (statements) => object.write(statements),
  };
}
