import { z } from "zod";

/** What goes between the Worker and a TenantDatabase. Version 1. */
export const SqlStatement = z.object({
  sql: z.string().max(100_000),
  params: z.array(z.union([z.string(), z.number(), z.boolean(), z.null(), z.instanceof(Uint8Array)])).max(100),
});
export type SqlStatement = z.infer<typeof SqlStatement>;
export const SqlStatements = z.array(SqlStatement).max(1_000);

/** The methods of a TenantDatabase, as its callers see them. */
export interface TenantDatabaseRpc {
  /** The rows of one statement, each its values in the order of the columns. */
  read(statement: unknown): Promise<unknown[][]>;
  /** All of them in one transaction, or none. @returns the number of rows that each changed */
  write(statements: unknown): Promise<number[]>;
  /** Rows of all of its tables. */
  countRows(): Promise<number>;
  /** Forgets everything. For the end of a tenant alone. */
  erase(): Promise<void>;
}
