/** A statement with its parameters, as it goes to a database. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
}

/**
 * A database as one tenant reaches it; what it does to keep tenants apart is its own second wall behind the
 * statement guard. Only {@link TenantData} holds one.
 */
export interface Database {
  /** The rows of one statement, each its values in the order of the columns. */
  read(statement: Statement): Promise<unknown[][]>;
  /** All of them in one transaction, or none. @returns the number of rows that each changed */
  write(statements: readonly Statement[]): Promise<number[]>;
}
