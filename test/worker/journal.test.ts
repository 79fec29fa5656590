import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import type { GatePorts } from "../../durable-objects/ports";
import { tenantGate } from "../../durable-objects/tenant-gate";
import type { TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import { gatePorts } from "../../src/services";
import { ALL, END, freshGate, REQUEST } from "./gate";

type Internals = { ctx: DurableObjectState };
type Stub = DurableObjectStub<undefined>;

const DAY_MS = 86_400_000;
const ctxOf = (instance: object) => (instance as Internals).ctx;
const sqlOf = (instance: object) => ctxOf(instance).storage.sql;
const inGate = <T>(stub: Stub, work: (sql: SqlStorage) => T) => runInDurableObject(stub, (gate) => work(sqlOf(gate)));

/** As if so many calls had been recorded at that time. */
async function seed(stub: Stub, rows: number, atMs: number): Promise<void> {
  await inGate(stub, (sql) => {
    const [row] = sql.exec<{ event: string; decision: string }>("select event, decision from journal").toArray();
    if (!row) throw new Error("a call must be recorded first");
    sql.exec("update journal set at_ms = ?", atMs);
    const at = (text: string) => JSON.stringify({ ...JSON.parse(text), atMs });
    sql.exec(
      `insert into journal (seq, id, at_ms, hash, event, decision)
       with recursive n (i) as (select 2 union all select i + 1 from n where i < ?)
       select i, 'seed-' || i, ?, printf('%064d', i), ?, ? from n`,
      ...[rows, atMs, at(row.event), at(row.decision)],
    );
  });
  await evictDurableObject(stub);
}

interface Rows {
  read: number;
  written: number;
}

/** Rows that the statements of `work` read and wrote. */
async function rowsOf(sql: SqlStorage, work: () => unknown): Promise<Rows> {
  const exec = sql.exec;
  const cursors: SqlStorageCursor<Record<string, SqlStorageValue>>[] = [];
  sql.exec = ((...args: Parameters<typeof exec>) => {
    const cursor = exec.apply(sql, args);
    cursors.push(cursor);
    return cursor;
  }) as typeof exec;
  try {
    await work();
  } finally {
    sql.exec = exec;
  }
  const sum = (of: (cursor: { rowsRead: number; rowsWritten: number }) => number) =>
    cursors.reduce((all, cursor) => all + of(cursor), 0);
  return { read: sum(({ rowsRead }) => rowsRead), written: sum(({ rowsWritten }) => rowsWritten) };
}

/** A second object on the same storage, as a later life of the gate would be. */
const secondLife = (instance: object, ports: Partial<GatePorts> = {}) => {
  const Gate = tenantGate((of) => ({ ...gatePorts(of), ...ports }));
  return new Gate(ctxOf(instance) as never, env as never);
};

const tailOf = (stub: Stub) =>
  inGate(stub, (sql) => sql.exec<{ n: number }>("select count(*) as n from journal").one().n);
const makeDue = async (stub: Stub) => {
  await inGate(stub, (sql) => void sql.exec("update due set due_at = 1"));
  await evictDurableObject(stub);
  await runDurableObjectAlarm(stub);
};

describe("what a call costs its gate", () => {
  const CALLS = 20;

  it("does not grow with the history: rows after 1, 10,000 and 100,000 calls, at start too", async () => {
    const costs: { calls: Rows; start: Rows }[] = [];
    for (const history of [1, 10_000 - CALLS / 2, 100_000 - CALLS / 2]) {
      const { admit, finish, stub } = await freshGate();
      await admit("first");
      await finish("first");
      if (history > 1) await seed(stub, history, Date.now());
      const start = await runInDurableObject(stub, (gate) => rowsOf(sqlOf(gate), () => secondLife(gate)));
      const calls = await runInDurableObject(stub, (gate) =>
        rowsOf(sqlOf(gate), async () => {
          const rpc = gate as unknown as TenantGateRpc;
          for (let call = 0; call < CALLS; call++) {
            const reply = await rpc.admit({ ...REQUEST, requestId: `r${call}` });
            expect(reply).toMatchObject({ admitted: true });
            await rpc.finish({ requestId: `r${call}`, end: END });
          }
          await (gate as unknown as { alarm(): Promise<void> }).alarm();
        }),
      );
      costs.push({ calls, start });
    }
    const [first, ...later] = costs;
    if (!first) throw new Error("nothing measured");
    expect(first.calls.read).toBeGreaterThan(0);
    expect(first.calls.read / CALLS).toBeLessThan(4);
    for (const { calls, start } of later) {
      expect(calls.read).toBeLessThanOrEqual(first.calls.read + 10); // a look whether the next segment is due
      expect(calls.written).toBeLessThanOrEqual(first.calls.written + 5);
      expect(start.read).toBeLessThanOrEqual(first.start.read + 2);
    }
    const [shorter, longer] = later;
    expect(longer?.calls.read).toBeLessThanOrEqual((shorter?.calls.read ?? 0) + 10);
  }, 60_000);

  it("is as much for sealing, whatever waits to be sealed", async () => {
    const perRow: number[] = [];
    for (const history of [20_000, 40_000]) {
      const { admit, finish, stub } = await freshGate();
      await admit("first");
      await finish("first");
      await seed(stub, history, Date.now() - 3_600_000);
      const { read, written } = await runInDurableObject(stub, async (gate) => {
        sqlOf(gate).exec("update due set due_at = 1");
        const later = secondLife(gate);
        return rowsOf(sqlOf(gate), () => later.alarm());
      });
      const sealed = history - (await tailOf(stub));
      expect(sealed).toBeGreaterThan(history - 10_000);
      perRow.push(read / sealed, written / sealed);
    }
    for (const rows of perRow) expect(rows).toBeLessThan(4.5);
  }, 60_000);
});

describe("a burst", () => {
  it("is sealed until nothing is due, though an earlier version left it without a promise", async () => {
    const { admit, finish, stub, gate, tenantId } = await freshGate();
    await admit("first");
    await finish("first");
    await seed(stub, 25_000, Date.now() - DAY_MS - 60_000);
    await inGate(stub, (sql) => {
      sql.exec("delete from due");
    });
    await evictDurableObject(stub);
    await gate.policy(); // wakes it, and its alarm may go off by itself before the test asks for it
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(stub);
        expect(await tailOf(stub)).toBe(0);
      },
      { timeout: 30_000, interval: 100 },
    );
    const listed = await env.ARTIFACTS.list({ prefix: `global/${tenantId}/journal/` });
    expect(listed.objects.length).toBeGreaterThanOrEqual(3);
    expect(await gate.journalSums(0, Date.now() + DAY_MS)).toMatchObject({ events: 25_000 });
    await admit("after");
    expect(await finish("after")).toMatchObject({ settled: true, receipt: expect.stringMatching(/^25001\./) });
  }, 60_000);

  it("stays in the gate while object storage does not take it", async () => {
    const { admit, finish, stub, gate } = await freshGate();
    await admit("r1");
    await finish("r1");
    await inGate(stub, (sql) => {
      sql.exec("update journal set at_ms = at_ms - ?", 2 * DAY_MS);
      sql.exec("update due set due_at = 1");
    });
    await runInDurableObject(stub, async (instance) => {
      const segments = { put: async () => Promise.reject(new Error("R2 is away")), get: async () => new Uint8Array() };
      await secondLife(instance, { segments }).alarm();
    });
    expect(await tailOf(stub)).toBe(1);
    await makeDue(stub);
    expect(await tailOf(stub)).toBe(0);
    expect((await gate.decisions(ALL)).rows.map(({ decision }) => decision.id)).toEqual(["r1"]);
  });
});

describe("a list of decisions with a start time", () => {
  it("has the calls of its time though a refusal that came earlier was recorded after them", async () => {
    const { admit, finish, gate } = await freshGate({ requestsPerMinute: 1 });
    await admit("r1");
    await admit("refused");
    const refusedMs = Date.now();
    await expect.poll(() => Date.now()).toBeGreaterThan(refusedMs); // the clock of the object goes on
    await finish("r1");
    const all = async () => (await gate.decisions(ALL)).rows.map(({ decision }) => decision);
    await expect.poll(async () => (await all()).length, { timeout: 5_000 }).toBe(2);
    const [call, refusal] = await all();
    expect([call?.id, refusal?.id]).toEqual(["r1", "refused"]);
    expect(refusal?.atMs).toBeLessThan(call?.atMs ?? 0);
    for (const order of ["asc", "desc"] as const) {
      const page = await gate.decisions({ ...ALL, order, fromMs: call?.atMs ?? 0 });
      expect(page.rows.map(({ decision }) => decision.id)).toEqual(["r1"]);
      const before = await gate.decisions({ ...ALL, order, toMs: call?.atMs ?? 0 });
      expect(before.rows.map(({ decision }) => decision.id)).toEqual(["refused"]);
    }
  });
});

describe("usage", () => {
  const rollups = async (tenantId: string) => {
    const rows = await env.DB.prepare(
      "select end_user, requests from usage_rollup where project_id = ? order by end_user",
    )
      .bind(tenantId)
      .all();
    return rows.results;
  };

  it("of end users reaches the ledger in a row of each", async () => {
    const { admit, finish, change, stub, tenantId } = await freshGate();
    const key = { hash: "f".repeat(60) + tenantId.slice(-4), redactedValue: "…", name: "k", serviceAccountId: "svc" };
    await change({ type: "create_key", id: "account", ...key, scopes: ["data", "account"], expiresAtMs: null });
    for (const [id, subject] of Object.entries({ r1: "eve", r2: "max", r3: "eve" })) {
      const endUser = { subject, requestsPerMinute: null };
      expect(await admit(id, { keyId: "account", endUser })).toMatchObject({ admitted: true });
      await finish(id);
    }
    await admit("r4");
    await finish("r4");
    await makeDue(stub);
    expect(await rollups(tenantId)).toEqual([
      { end_user: "", requests: 1 },
      { end_user: "eve", requests: 2 },
      { end_user: "max", requests: 1 },
    ]);
  });

  it("is brought to the ledger though a crash cut off its rollup in the middle", async () => {
    const { admit, finish, stub, tenantId } = await freshGate();
    await admit("r1");
    await finish("r1");
    await inGate(stub, (sql) => void sql.exec("update due set due_at = 1 where kind = 'rollup'"));
    await runInDurableObject(stub, async (instance) => {
      const asked = Promise.withResolvers<void>();
      const write = () => {
        asked.resolve();
        return new Promise<void>(() => {});
      };
      const crashed = secondLife(instance, { ledger: { write } });
      void crashed.alarm();
      await asked.promise;
      await crashed.admit({ ...REQUEST, requestId: "r2" }); // commits what memory has
      const due = sqlOf(instance).exec<{ kind: string; id: string }>("select kind, id from due").toArray();
      expect(due).toContainEqual({ kind: "resume", id: "rollup" });
      expect(due.filter(({ kind }) => kind === "rollup")).toEqual([]);
    });
    await runInDurableObject(stub, (instance) => ctxOf(instance).abort("the machine is gone")).catch(() => {});
    expect(await rollups(tenantId)).toEqual([]);
    await makeDue(env.TENANT_GATE.getByName(`global/${tenantId}`));
    expect(await rollups(tenantId)).toEqual([{ end_user: "", requests: 1 }]);
  });

  it("and last uses are kept while the ledger does not answer, and sums are not told without it", async () => {
    const { admit, finish, stub, gate, tenantId } = await freshGate();
    const lastUsed = async () =>
      (await env.DB.prepare("select last_used_at from api_key where tenant_id = ?").bind(tenantId).first())
        ?.last_used_at;
    await admit("r1");
    await finish("r1");
    const atMs = (await gate.decisions(ALL)).rows[0]?.decision.atMs;
    await env.DB.prepare("alter table usage_rollup rename to usage_rollup_gone").run();
    const told = await runInDurableObject(stub, (instance) =>
      (instance as unknown as TenantGateRpc).journalSums(0, Date.now() + DAY_MS).catch(String),
    );
    expect(told).toContain("the ledger does not answer");
    await env.DB.prepare("alter table usage_rollup_gone rename to usage_rollup").run();
    expect(await lastUsed()).toBeNull();
    await makeDue(stub);
    expect(await rollups(tenantId)).toEqual([{ end_user: "", requests: 1 }]);
    expect(await lastUsed()).toBe(atMs);
    expect(await gate.journalSums(0, Date.now() + DAY_MS)).toMatchObject({ events: 1 });
  });
});
