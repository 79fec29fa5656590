import postgres from "postgres";
import { describe, expect, it } from "vitest";
import type { Database } from "../../../src/data/database";
import { reportingNoValues } from "../../../src/data/database-errors";
import { postgresDialect, sqliteDialect } from "../../../src/data/dialect";
import { TenantData } from "../../../src/data/tenant-data";
import { ApiError } from "../../../src/errors";
import { mint, type TenantHome } from "../../../src/tenancy/context";

const SECRET = "what a tenant wrote";
const tenant = mint(
  { tenantId: "proj_a", region: "global", isolation: "pool" } as unknown as TenantHome,
  { type: "job", job: "test" } as never,
  ["data"],
);

const failing = (error: unknown): Database => ({
  read: () => Promise.reject(error),
  write: () => Promise.reject(error),
});

const postgresError = () => {
  const error = new postgres.PostgresError(`invalid input syntax for type bigint: "${SECRET}"`);
  return Object.assign(error, {
    code: "22P02",
    detail: `Key (id)=(${SECRET}) already exists.`,
    parameters: [SECRET],
    constraint_name: "artifact_pkey",
  });
};

describe.each([
  { name: "postgres", dialect: postgresDialect, error: postgresError(), says: /22P02.*artifact_pkey/ },
  {
    name: "d1",
    dialect: sqliteDialect,
    error: new Error(`D1_TYPE_ERROR: Type 'object' not supported for value '${SECRET}\n'`),
    says: /Type 'object' not supported/,
  },
  { name: "sqlite", dialect: sqliteDialect, error: new Error("UNIQUE constraint failed: artifact.id"), says: /UNIQUE/ },
])("a statement that $name refuses", ({ dialect, error, says }) => {
  it("is reported without any value, whichever way it was asked", async () => {
    const data = new TenantData(tenant, failing(error), dialect);
    const { artifact } = data.tables;
    const row = { id: SECRET } as never;
    const ways: (() => Promise<unknown>)[] = [
      () => data.list(artifact, { limit: 1 }),
      () => data.listWith(artifact, data.tables.apiKey, data.anyOf(artifact.id, [SECRET]), { limit: 1 }),
      () => data.first(artifact, data.anyOf(artifact.id, [SECRET])),
      () => data.count(artifact, data.anyOf(artifact.id, [SECRET])),
      () => data.total(artifact, artifact.createdAtMs, data.anyOf(artifact.id, [SECRET])),
      () => data.names(artifact, artifact.id, 1, data.anyOf(artifact.id, [SECRET])),
      () => data.withDeleted().count(artifact, data.anyOf(artifact.id, [SECRET])),
      () => data.batch([data.insert(artifact, row)]),
    ];
    for (const ask of ways) {
      const thrown = await ask().then(
        () => undefined,
        (reason: unknown) => reason as Error,
      );
      expect(thrown?.message).toMatch(says);
      const all = [thrown?.message, thrown?.stack, JSON.stringify(thrown), String(thrown?.cause)].join("\n");
      expect(all).not.toContain(SECRET);
    }
  });
});

describe("a database that does not answer", () => {
  it("is told as such through the query builder as well", async () => {
    const data = new TenantData(tenant, failing(new ApiError("storage_unavailable", "later")), postgresDialect);
    await expect(data.count(data.tables.artifact)).rejects.toMatchObject({ code: "storage_unavailable" });
  });
});

describe("a text with a NUL", () => {
  it("reaches no database, as a value to find or to write", async () => {
    const asked: unknown[] = [];
    const database = reportingNoValues({
      read: async (statement) => {
        asked.push(statement);
        return [];
      },
      write: async (statements) => {
        asked.push(statements);
        return [];
      },
    });
    const statement = { sql: "select ?", params: [1, "a\0b"] };
    await expect(database.read(statement)).rejects.toMatchObject({ code: "invalid_value" });
    await expect(database.write([{ sql: "select ?", params: ["fine"] }, statement])).rejects.toMatchObject({
      code: "invalid_value",
    });
    expect(asked).toEqual([]);
  });
});
