import type { Database, Statement } from "./database";

/** The shared database of pooled tenants. */
export function d1Database(binding: D1Database): Database {
  const prepare = ({ sql, params }: Statement) => binding.prepare(sql).bind(...params);
  return {
    read: (statement) => prepare(statement).raw(),
    async write(statements) {
      const results = await binding.batch(statements.map(prepare));
      return results.map(({ meta }) => meta.changes);
    },
  };
}
