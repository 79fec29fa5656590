import { describe, expect, it } from "vitest";
import { z } from "zod";
import * as backgroundRuns from "../../../durable-objects/background-runs.messages";
import * as idempotencyStore from "../../../durable-objects/idempotency-store.messages";
import * as modelDispatcher from "../../../durable-objects/model-dispatcher.messages";
import * as tenantDatabase from "../../../durable-objects/tenant-database.messages";
import * as tenantGate from "../../../durable-objects/tenant-gate.messages";

const schemas = Object.entries({
  ...backgroundRuns,
  ...idempotencyStore,
  ...modelDispatcher,
  ...tenantDatabase,
  ...tenantGate,
} as Record<string, unknown>).filter((entry): entry is [string, z.ZodType] => entry[1] instanceof z.ZodType);

/** During an update old objects run beside new Workers for minutes, and the reverse. */
describe("a message between a Worker and an object", () => {
  it.each(schemas)("%s may have fields of a later version, on every level", (_, schema) => {
    const written = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
    expect(JSON.stringify(written)).not.toContain('"additionalProperties":false');
  });

  it("is taken without what this version does not know", () => {
    const query = { order: "desc", afterSeq: null, fromMs: null, toMs: null, model: null, keyId: null, limit: 10 };
    expect(tenantGate.JournalQuery.parse({ ...query, ofTomorrow: { a: 1 } })).toEqual(query);
    const bind = { credential: { keyId: "key_1", ofTomorrow: 1 }, knownPolicyVersion: null, call: null };
    expect(tenantGate.BindRequest.parse(bind)).toEqual({ ...bind, credential: { keyId: "key_1" } });
    expect(schemas.length).toBeGreaterThan(15);
  });
});
