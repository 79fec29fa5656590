import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { createHash } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import { chainHash, GENESIS } from "../../src/core/hash-chain";
import { ALL, freshGate } from "./gate";

type DurableObjectInternals = { ctx: DurableObjectState };

/** The object's memory goes, its storage stays: what an eviction, a deploy or a crash leaves. */
const forget = (stub: DurableObjectStub) => evictDurableObject(stub);

describe("admission at the gate", () => {
  it("gives a retried admission the same grant, and counts it once", async () => {
    const { admit } = await freshGate({ requestsPerMinute: 1 });
    expect(await admit("r1")).toMatchObject({ admitted: true, outputTokens: 20 });
    expect(await admit("r1")).toMatchObject({ admitted: true, outputTokens: 20 });
    expect(await admit("r2")).toMatchObject({
      admitted: false,
      refusal: { rule: "requests_per_minute", used: 1, limit: 1 },
    });
  });

  it("settles once, whoever asks again", async () => {
    const { admit, finish, gate } = await freshGate();
    await admit("r1");
    const first = await finish("r1");
    expect(first).toMatchObject({ settled: true, receipt: expect.stringMatching(/^1\.[0-9a-f]{16}$/) });
    expect(await finish("r1", { completionTokens: 9 })).toEqual(first);
    expect((await gate.decisions(ALL)).rows).toHaveLength(1);
    expect(await gate.unsyncedUsage()).toMatchObject([{ requests: 1, inputTokens: 5, outputTokens: 7 }]);
  });

  it("keeps holds, windows and the journal when its memory is gone", async () => {
    const { admit, finish, stub, gate } = await freshGate({ requestsPerMinute: 2 });
    await admit("r1");
    await admit("r2");
    await finish("r1");
    await forget(stub);
    expect(await admit("r3")).toMatchObject({ admitted: false, refusal: { rule: "requests_per_minute", used: 2 } });
    expect(await finish("r2")).toMatchObject({ settled: true, receipt: expect.stringMatching(/^2\./) });
    expect((await gate.decisions(ALL)).rows.map(({ decision }) => decision.id)).toEqual(["r1", "r2"]);
  });

  it("gives tokens back that were reserved and not used", async () => {
    const { admit, finish } = await freshGate({ tokensPerMinute: 40 });
    await admit("r1");
    expect(await admit("r2")).toMatchObject({ admitted: false, refusal: { rule: "tokens_per_minute", used: 30 } });
    await finish("r1"); // took 12 of its 30
    expect(await admit("r3", { outputTokens: 18 })).toMatchObject({ admitted: true });
  });

  it("lets a request wait for a slot, and forgets one whose caller has gone", async () => {
    const { admit, finish, gate } = await freshGate();
    const held = await Promise.all(Array.from({ length: 32 }, (_, index) => admit(`held-${index}`)));
    expect(held.every((reply) => reply.admitted)).toBe(true);
    const [gone, waiting] = [admit("gone"), admit("waiting")];
    await gate.leave("gone");
    expect((await gone).admitted).toBe(false);
    await finish("held-0");
    expect(await waiting).toMatchObject({ admitted: true });
    expect(await admit("hopeless", { patienceMs: 1 })).toMatchObject({
      admitted: false,
      refusal: { rule: "queue_timeout" },
    });
  });

  it("judges those who wait by the limits of now", async () => {
    const { admit, finish, change } = await freshGate({ requestsPerMinute: 40 });
    await Promise.all(Array.from({ length: 32 }, (_, index) => admit(`held-${index}`)));
    const waiting = admit("waiting");
    await change({ type: "set_model_limits", model: "m", requestsPerMinute: 32 });
    await finish("held-0");
    expect(await waiting).toMatchObject({ admitted: false, refusal: { rule: "requests_per_minute", limit: 32 } });
  });

  it("answers both calls of a caller that asked again while it waited, and counts one", async () => {
    const { admit, finish } = await freshGate({ requestsPerMinute: 34 });
    await Promise.all(Array.from({ length: 32 }, (_, index) => admit(`held-${index}`)));
    const [first, again] = [admit("twice"), admit("twice")];
    await finish("held-0");
    expect(await first).toMatchObject({ admitted: true });
    expect(await again).toMatchObject({ admitted: true });
    expect(await admit("next", { patienceMs: 0 })).toMatchObject({ refusal: { rule: "queue_timeout" } }); // room for one more request
  });

  it("takes up again the work that a crash cut off", async () => {
    const { admit, finish, stub, tenantId } = await freshGate();
    await admit("r1");
    await finish("r1");
    await runInDurableObject(stub, (instance) => {
      const { ctx } = instance as unknown as DurableObjectInternals;
      // As a crash leaves it: the rollup's own row is gone, what stands for it is not.
      ctx.storage.sql.exec("delete from due where kind = 'rollup'");
      ctx.storage.sql.exec("insert or replace into due (kind, id, due_at, attempt) values ('resume', 'rollup', 1, 0)");
    });
    await forget(stub);
    await runDurableObjectAlarm(stub);
    const row = await env.DB.prepare("select requests from usage_rollup where project_id = ?").bind(tenantId).first();
    expect(row).toEqual({ requests: 1 });
  });

  it("refuses a request whose key was revoked while it waited", async () => {
    const { admit, finish, change } = await freshGate();
    await Promise.all(Array.from({ length: 32 }, (_, index) => admit(`held-${index}`)));
    const waiting = admit("waiting");
    await change({ type: "delete_key", id: "key" });
    await finish("held-0");
    expect(await waiting).toEqual({ admitted: false, reason: "unknown_key" });
  });

  it("books a call that nobody settles at its worst case, once, even after a restart", async () => {
    const { admit, finish, stub, gate } = await freshGate();
    await admit("lost", { holdMs: 1 });
    await forget(stub);
    await runDurableObjectAlarm(stub); // on a busy machine it has gone off by itself
    await vi.waitFor(async () => expect((await gate.decisions(ALL)).rows).toHaveLength(1));
    const { rows } = await gate.decisions(ALL);
    expect(rows.map(({ decision }) => decision)).toMatchObject([
      { id: "lost", outcome: "unreconciled", promptTokens: 10, completionTokens: 20 },
    ]);
    expect(await finish("lost")).toEqual({ settled: false });
    expect((await gate.decisions(ALL)).rows).toHaveLength(1);
  });

  it("counts what its provider counts, and names as overrun what nobody pays for", async () => {
    const { admit, finish, stub } = await freshGate();
    await admit("r1");
    await finish("r1", { promptTokens: 15, completionTokens: 20 });
    const event = await runInDurableObject(stub, (instance) => {
      const { ctx } = instance as unknown as DurableObjectInternals;
      return JSON.parse(ctx.storage.sql.exec<{ event: string }>("select event from journal").one().event);
    });
    expect(event).toMatchObject({ promptTokens: 15, completionTokens: 20, overrunTokens: 5 });
  });
});

describe("who is bound", () => {
  it("is told the policy only when it does not know it yet", async () => {
    const { gate, keyHash, change } = await freshGate();
    const first = await gate.bind({ credential: { keyHash }, knownPolicyVersion: null });
    expect(first).toMatchObject({ bound: true, key: { id: "key" }, policy: { status: "active" } });
    const version = first.bound ? first.policyVersion : 0;
    expect(await gate.bind({ credential: { keyHash }, knownPolicyVersion: version })).toMatchObject({ policy: null });
    await change({ type: "archive_tenant" });
    expect(await gate.bind({ credential: { keyHash }, knownPolicyVersion: version })).toEqual({
      bound: false,
      reason: "archived",
    });
  });

  it("is nobody at a gate that was never made, whose storage stays empty of tenants", async () => {
    const gate = env.TENANT_GATE.getByName("global/proj_nobody");
    expect(await gate.bind({ credential: { keyHash: "0".repeat(64) }, knownPolicyVersion: null })).toEqual({
      bound: false,
      reason: "unknown_key",
    });
    expect(await gate.policy()).toBeNull();
  });

  it("is refused with a key past its expiry", async () => {
    const { gate, change } = await freshGate();
    const hash = "e".repeat(64);
    const key = { hash, redactedValue: "…", name: "k", serviceAccountId: "svc", scopes: ["data" as const] };
    await change({ type: "create_key", id: "old", ...key, expiresAtMs: Date.now() - 1 });
    expect(await gate.bind({ credential: { keyHash: hash }, knownPolicyVersion: null })).toMatchObject({
      bound: false,
    });
  });
});

describe("what the gate's alarm carries on", () => {
  it("brings usage into the ledger as absolute values, so that twice is once", async () => {
    const { admit, finish, stub, tenantId } = await freshGate();
    const rollups = async () =>
      (
        await env.DB.prepare(
          "select requests, output_tokens from usage_rollup where tenant_id = 'platform' and project_id = ?",
        )
          .bind(tenantId)
          .all()
      ).results;
    await admit("r1");
    await finish("r1");
    await makeDue(stub);
    expect(await rollups()).toEqual([{ requests: 1, output_tokens: 7 }]);
    await admit("r2");
    await finish("r2");
    await makeDue(stub);
    expect(await rollups()).toEqual([{ requests: 2, output_tokens: 14 }]);
  });

  it("seals old rows into an object that only this tenant's key opens, and still reads them in order", async () => {
    const { admit, finish, stub, gate, tenantId } = await freshGate();
    for (const id of ["old-1", "old-2", "old-3"]) {
      await admit(id);
      await finish(id);
    }
    await runInDurableObject(stub, (instance) => {
      const { ctx } = instance as unknown as DurableObjectInternals;
      ctx.storage.sql.exec("update journal set at_ms = at_ms - 90000000"); // older than a day
    });
    await makeDue(stub);
    await admit("new-1");
    await finish("new-1");
    const listed = await env.ARTIFACTS.list({ prefix: `global/${tenantId}/journal/` });
    expect(listed.objects).toHaveLength(1);
    const bytes = await (await env.ARTIFACTS.get(listed.objects[0]?.key ?? ""))?.bytes();
    expect(Buffer.from(bytes ?? []).includes("old-1")).toBe(false);
    expect(Buffer.from(bytes ?? []).subarray(1, 3)).not.toEqual(Buffer.from([0x1f, 0x8b])); // sealed, not just gzipped
    const manifest = await env.DB.prepare("select first_seq, last_seq from journal_segment where tenant_id = ?")
      .bind(tenantId)
      .all();
    expect(manifest.results).toEqual([{ first_seq: 1, last_seq: 3 }]);
    const ids = async (order: "asc" | "desc", afterSeq: number | null = null) =>
      (await gate.decisions({ ...ALL, order, afterSeq })).rows.map(({ decision }) => decision.id);
    expect(await ids("asc")).toEqual(["old-1", "old-2", "old-3", "new-1"]);
    expect(await ids("desc")).toEqual(["new-1", "old-3", "old-2", "old-1"]);
    expect(await ids("desc", 3)).toEqual(["old-2", "old-1"]);
    expect(await ids("asc", 2)).toEqual(["old-3", "new-1"]);
  });

  it("chains every record to the one before", async () => {
    const { admit, finish, stub } = await freshGate();
    for (const id of ["a", "b", "c"]) {
      await admit(id);
      await finish(id);
    }
    const rows = await runInDurableObject(stub, (instance) => {
      const { ctx } = instance as unknown as DurableObjectInternals;
      return ctx.storage.sql
        .exec<{ seq: number; hash: string; event: string; decision: string }>(
          "select seq, hash, event, decision from journal order by seq",
        )
        .toArray();
    });
    const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
    let previous = GENESIS;
    for (const { seq, hash, event, decision } of rows) {
      expect(hash).toBe(chainHash(previous, seq, { decision: JSON.parse(decision), event: JSON.parse(event) }, sha256));
      previous = hash;
    }
  });

  it("delivers copies that a database did not take at first", async () => {
    const { change, stub, tenantId } = await freshGate();
    await env.DB.prepare("alter table service_account rename to service_account_gone").run();
    expect(await change({ type: "create_service_account", id: "svc_late", name: "late" })).toMatchObject({
      changed: true,
    });
    await env.DB.prepare("alter table service_account_gone rename to service_account").run();
    await makeDue(stub);
    const row = await env.DB.prepare("select name from service_account where tenant_id = ? and id = 'svc_late'")
      .bind(tenantId)
      .first();
    expect(row).toEqual({ name: "late" });
  });
});

/** Brings the gate's calendar forward and runs its alarm. */
async function makeDue(stub: DurableObjectStub): Promise<void> {
  await runInDurableObject(stub, async (instance) => {
    const { ctx } = instance as unknown as DurableObjectInternals;
    ctx.storage.sql.exec("update due set due_at = 1");
  });
  await forget(stub);
  await runDurableObjectAlarm(stub);
}
