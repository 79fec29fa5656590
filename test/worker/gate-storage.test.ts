import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { ALL, freshGate } from "./gate";

const END_USERS = 66_000;
const RULES = ["requests", "tokens"].map((metric) => ({
  ...{ scope: "end_user" as const, subject: null, metric: metric as "requests" | "tokens", window: "minute" as const },
  ...{ timeZone: null, limit: 3, mode: "hard" as const },
}));

type Inside = { ctx: DurableObjectState };
/** Runs inside the object, past its methods. */
const inside = <T>(stub: DurableObjectStub, work: (sql: SqlStorage) => T) =>
  runInDurableObject(stub, (instance) => work((instance as unknown as Inside).ctx.storage.sql));

/** Every row that any statement of an object reads while the work runs. */
async function rowsRead(stub: DurableObjectStub, work: () => Promise<unknown>): Promise<number> {
  const prototype = await inside(stub, (sql) => Object.getPrototypeOf(sql) as SqlStorage);
  const { exec } = prototype;
  const cursors: SqlStorageCursor<Record<string, SqlStorageValue>>[] = [];
  prototype.exec = function counted(this: SqlStorage, query: string, ...bindings: unknown[]) {
    const cursor = exec.call(this, query, ...bindings);
    cursors.push(cursor);
    return cursor;
  } as SqlStorage["exec"];
  try {
    await work();
  } finally {
    prototype.exec = exec;
  }
  return cursors.reduce((sum, cursor) => sum + cursor.rowsRead, 0);
}

async function crowdedGate() {
  const gate = await freshGate();
  await gate.change({
    type: "set_limits",
    rules: RULES.map((rule) => ({ ...rule, limit: rule.metric === "tokens" ? 1_000 : 3 })),
  });
  await inside(gate.stub, (sql) => {
    const bucketMs = Date.now() - (Date.now() % 250);
    for (const metric of ["requests", "tokens"]) {
      sql.exec(
        `with recursive n(i) as (select 1 union all select i + 1 from n where i < ${END_USERS})
         insert into bucket (rule, bucket_ms, count)
         select '${metric}/minute/end_user/user-' || printf('%05d', i), ${bucketMs}, 2 from n`,
      );
    }
  });
  return gate;
}
const of = (subject: string) => ({ endUser: { subject, requestsPerMinute: null } });

describe("a gate with many end users", () => {
  it("reads a bounded number of rows at wake and for each call, and still counts each of them exactly", async () => {
    const { stub, admit, finish, gate } = await crowdedGate();
    await evictDurableObject(stub);
    const atWake = await rowsRead(stub, async () => {
      expect(await admit("r1", of("user-40000"))).toMatchObject({ admitted: true });
      expect(await admit("r2", of("user-40000"))).toMatchObject({
        admitted: false,
        refusal: { rule: "end_user_requests_per_minute", used: 3, limit: 3 },
      });
    });
    expect(atWake).toBeGreaterThan(2);
    expect(atWake).toBeLessThan(100);
    const perCall = await rowsRead(stub, async () => {
      await finish("r1");
      expect(await admit("r3", of("user-50000"))).toMatchObject({ admitted: true });
    });
    expect(perCall).toBeLessThan(30);
    const listing = await rowsRead(stub, async () => {
      const listed = (await gate.limits([]))?.limits.filter(({ scope }) => scope === "end_user") ?? [];
      expect(listed).toHaveLength(2 * 100);
      expect(listed.filter(({ subject }) => subject === "user-40000").map(({ used }) => used)).toEqual([3, 14]);
    });
    expect(listing).toBeLessThan(2_000);
  });

  it("removes step by step what counts no longer, whoever it was of", async () => {
    const { stub, admit, finish } = await freshGate();
    const stale = 200;
    await inside(stub, (sql) => {
      for (let at = 0; at < stale; at++)
        sql.exec("insert into bucket values (?, 1000, 1)", `requests/minute/end_user/u${at}`);
      sql.exec("insert into bucket values ('spend/month@UTC/end_user/u', ?, 1)", Date.now());
    });
    for (let made = 0; made < 120; made++) {
      await admit(`r${made}`);
      await finish(`r${made}`);
    }
    const left = await inside(stub, (sql) => [
      sql.exec<{ n: number }>("select count(*) as n from bucket where bucket_ms = 1000").one().n,
      sql.exec<{ n: number }>("select count(*) as n from bucket where rule like 'spend/%'").one().n,
    ]);
    expect(left).toEqual([0, 1]);
  });
});

describe("a record that the gate's storage does not take", () => {
  it("is parked and alarmed; the gate serves on, before and after it wakes", async () => {
    const { stub, gate, admit, finish } = await freshGate();
    for (const id of ["a", "bad", "b"]) await admit(id);
    await inside(stub, (sql) =>
      sql.exec(`create trigger refuse before insert on journal when new.id = 'bad'
                begin select raise(abort, 'not this one'); end`),
    );
    const replies = await Promise.all(["a", "bad", "b"].map((id) => finish(id)));
    expect(replies.every(({ settled }) => settled)).toBe(true);
    await evictDurableObject(stub);
    expect(await admit("bad")).toEqual({ admitted: false, reason: "request_ended" });
    expect(await admit("later")).toMatchObject({ admitted: true });
    const decided = (await gate.decisions(ALL)).rows.map(({ decision }) => [decision.id, decision.outcome]);
    expect(decided.sort()).toEqual([
      ["a", "completed"],
      ["b", "completed"],
      ["parked_bad", "alerted"],
    ]);
    const parked = await inside(stub, (sql) => sql.exec("select kind, name from parked").toArray());
    expect(parked).toEqual([{ kind: "journal", name: "bad" }]);
  });

  it("and lies in storage since before: the hold of a recorded call is dropped when the gate wakes, and stops nothing", async () => {
    const { stub, gate, admit, finish } = await freshGate();
    await admit("r", { holdMs: 60_000 });
    const { body } = await inside(stub, (sql) => sql.exec<{ body: string }>("select body from hold").one());
    await finish("r");
    const overdue = JSON.stringify({ ...JSON.parse(body), expiresAtMs: 1 });
    expect(body).toContain('"expiresAtMs"');
    await inside(stub, (sql) => sql.exec("insert into hold values ('r', ?)", overdue));
    await evictDurableObject(stub);
    for (let made = 0; made < 8; made++) expect(await admit(`later-${made}`)).toMatchObject({ admitted: true });
    expect(await admit("r")).toEqual({ admitted: false, reason: "request_ended" });
    const decided = (await gate.decisions(ALL)).rows.map(({ decision }) => [decision.id, decision.rule]);
    expect(decided).toEqual([
      ["r", null],
      ["r", "hold_of_recorded_call"],
    ]);
  });
});
