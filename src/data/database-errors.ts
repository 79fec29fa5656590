import { DrizzleQueryError } from "drizzle-orm";
import postgres from "postgres";
import { ApiError } from "../errors";
import type { Database, Statement } from "./database";

/**
 * Why a database did not run a statement, with none of the values that went along: they are a tenant's content, and
 * errors end in logs. Names of tables, columns and constraints may stay.
 */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
}

/** A database whose errors name no values, and that takes no text with a NUL: Postgres has no place for one. */
export function reportingNoValues(database: Database): Database {
  return {
    async read(statement) {
      assertStorable([statement]);
      return database.read(statement).catch(rethrow);
    },
    async write(statements) {
      assertStorable(statements);
      return database.write(statements).catch(rethrow);
    },
  };
}

/** What a query of the builder failed of. The builder's own error would quote every parameter. */
export async function unwrapped<T>(query: PromiseLike<T>): Promise<T> {
  try {
    return await query;
  } catch (error) {
    throw error instanceof DrizzleQueryError ? error.cause : error;
  }
}

function assertStorable(statements: readonly Statement[]): void {
  const isOdd = (value: unknown) => typeof value === "string" && value.includes("\0");
  if (!statements.some(({ params }) => params.some(isOdd))) return;
  throw new ApiError("invalid_value", "A text in this request has a NUL character, which cannot be stored or found.");
}

function rethrow(error: unknown): never {
  if (error instanceof ApiError || error instanceof DatabaseError) throw error;
  if (error instanceof postgres.PostgresError) {
    const { code, table_name, constraint_name } = error;
    const where = [table_name, constraint_name].filter((name) => name !== undefined).join(", ");
    throw new DatabaseError(`Postgres refused a statement: SQLSTATE ${code}${where && ` (${where})`}`);
  }
  // SQLite's messages name tables and columns; D1's own say which value they cannot bind.
  const message = error instanceof Error ? error.message.replace(/ for value .*/s, "") : typeof error;
  throw new DatabaseError(message);
}
