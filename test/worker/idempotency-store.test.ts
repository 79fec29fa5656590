import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { type IdempotencyPorts, idempotencyStore } from "../../durable-objects/idempotency-store";
import { idempotencyPorts } from "../../src/services";
import { freshGate } from "./gate";

const BODY = "b".repeat(64);
const reply = {
  status: 200,
  headers: [["content-type", "text/plain"]] as [string, string][],
  body: new Uint8Array([1, 2]),
};
const fresh = async () => {
  const { tenantId } = await freshGate();
  const stub = env.IDEMPOTENCY_STORE.getByName(`global/${tenantId}`);
  const key = "a".repeat(64);
  const claim = (requestId: string, more: object = {}) =>
    stub.claim({ key, body: BODY, requestId, patienceMs: 0, holdMs: 60_000, ...more });
  return { stub, key, claim };
};

/** What stands in the object's tables, as text. */
const dump = (stub: DurableObjectStub) =>
  runInDurableObject(stub, (_, { storage: { sql } }) =>
    JSON.stringify(
      sql
        .exec("select * from reply")
        .toArray()
        .map((row) => Object.values(row).map((value) => (value instanceof ArrayBuffer ? latin1(value) : value))),
    ),
  );
const latin1 = (bytes: ArrayBuffer) => new TextDecoder("latin1").decode(bytes);
const replyOf = (text: string) => ({ ...reply, body: new Uint8Array(new TextEncoder().encode(text)) });

describe("a kept reply", () => {
  it("lies sealed, headers and all, and opens for its own key alone", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    const canary = `canary-${crypto.randomUUID()}`;
    const kept = { ...replyOf(canary), headers: [["x-audit", `in ${canary}`]] as [string, string][] };
    await stub.keep({ key, requestId: "r1", content: null, reply: kept });
    expect(await dump(stub)).not.toContain("canary");
    expect(await dump(stub)).not.toContain("x-audit");
    expect(await claim("r2")).toEqual({ state: "kept", reply: kept, content: null });
    // Moved to another key by somebody who can write rows but has no data key.
    const other = "c".repeat(64);
    await runInDurableObject(stub, (_, { storage: { sql } }) => sql.exec("update reply set key = ?", other));
    const moved = stub.claim({ key: other, body: BODY, requestId: "r3", patienceMs: 0, holdMs: 60_000 });
    expect(await moved).toEqual({ state: "done", content: null });
  });

  it("of one tenant opens for no other", async () => {
    const [one, two] = [await fresh(), await fresh()];
    await one.claim("r1");
    await one.stub.keep({ key: one.key, requestId: "r1", content: null, reply: replyOf("of one") });
    const row = await runInDurableObject(one.stub, (_, { storage: { sql } }) => sql.exec("select * from reply").one());
    await two.claim("r1");
    await runInDurableObject(two.stub, (_, { storage: { sql } }) => {
      sql.exec("update reply set state = 'kept', status = 200, body = ?", row.body as ArrayBuffer);
    });
    expect(await two.claim("r2")).toEqual({ state: "done", content: null });
  });

  it("costs one question for the data key in the life of a tenant", async () => {
    const { stub, key } = await fresh();
    let asked = 0;
    const ports = (from: object): IdempotencyPorts => {
      const known = idempotencyPorts(from);
      const dataKeyOf: IdempotencyPorts["dataKeyOf"] = (tenant) => {
        asked++;
        return known.dataKeyOf(tenant);
      };
      return { ...known, dataKeyOf };
    };
    await runInDurableObject(stub, async (_, state) => {
      for (const round of ["1", "2", "3"]) {
        const store = new (idempotencyStore(ports))(state, env); // woken anew
        for (const name of ["a", "b"]) {
          const request = { key: key.slice(2) + name + round, requestId: `${name}${round}` };
          await store.claim({ ...request, body: BODY, patienceMs: 0, holdMs: 60_000 });
          await store.keep({ ...request, content: null, reply });
          const again = { ...request, requestId: "again", body: BODY, patienceMs: 0, holdMs: 60_000 };
          expect(await store.claim(again)).toMatchObject({ state: "kept" });
        }
      }
    });
    expect(asked).toBe(1);
  });

  it("that cannot be sealed, or no longer opened, is not kept, and what was done is remembered all the same", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    const broken = (from: object): IdempotencyPorts => ({
      ...idempotencyPorts(from),
      dataKeyOf: async () => Promise.reject(new Error("no gate")),
    });
    await runInDurableObject(stub, async (_, state) => {
      await new (idempotencyStore(broken))(state, env).keep({ key, requestId: "r1", content: null, reply });
    });
    expect(await claim("r2")).toEqual({ state: "done", content: null });
    const nobody = env.IDEMPOTENCY_STORE.getByName(`global/proj_${crypto.randomUUID()}`);
    await nobody.claim({ key, body: BODY, requestId: "r1", patienceMs: 0, holdMs: 60_000 });
    await nobody.keep({ key, requestId: "r1", content: null, reply });
    const again = nobody.claim({ key, body: BODY, requestId: "r2", patienceMs: 0, holdMs: 60_000 });
    expect(await again).toEqual({ state: "done", content: null });
  });

  it("of an earlier version, in plain text, is forgotten when its object wakes; that it was done is not", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    await runInDurableObject(stub, (_, { storage: { sql } }) => {
      sql.exec(
        "update reply set state = 'kept', content = 'c', status = 200, headers = '[[\"a\",\"plain secret\"]]', body = ?",
        new TextEncoder().encode("plain secret").buffer,
      );
      sql.exec("drop table meta"); // as it was
    });
    await evictDurableObject(stub);
    expect(await claim("r2")).toEqual({ state: "done", content: "c" });
    expect(await dump(stub)).not.toContain("plain secret");
    const free = await fresh();
    await free.claim("r1");
    await free.stub.keep({ key: free.key, requestId: "r1", content: null, reply });
    await evictDurableObject(free.stub);
    expect(await free.claim("r2")).toMatchObject({ state: "kept" }); // once, and not at every start
    expect(key).toHaveLength(64);
  });
});

describe("the replies of one tenant", () => {
  it("take no more than their bound: beyond it the oldest are forgotten first, and their keys are free again", async () => {
    const { stub } = await fresh();
    const maxBytes = 1_000;
    const small = (from: object): IdempotencyPorts => ({ ...idempotencyPorts(from), maxBytes });
    await runInDurableObject(stub, async (_, state) => {
      const keyOf = (at: number) => String(at).padStart(64, "0");
      const ask = (store: InstanceType<ReturnType<typeof idempotencyStore>>, at: number, requestId: string) =>
        store.claim({ key: keyOf(at), body: BODY, requestId, patienceMs: 0, holdMs: 60_000 });
      let store = new (idempotencyStore(small))(state, env);
      const states = async (upTo: number) => {
        const all: string[] = [];
        for (let at = 0; at < upTo; at++) {
          const answer = await ask(store, at, `look-${at}`);
          if (answer.state === "claimed") await store.release(keyOf(at), `look-${at}`);
          all.push(answer.state);
        }
        return all;
      };
      const keep = async (at: number, bytes: number) => {
        await ask(store, at, `r${at}`);
        const sized = { ...reply, body: new Uint8Array(bytes) };
        await store.keep({ key: keyOf(at), requestId: `r${at}`, content: null, reply: sized });
        // The clock of a test may stand still; which is older must not depend on it.
        state.storage.sql.exec("update reply set expires_at = expires_at - ? where key = ?", 1_000 - at, keyOf(at));
      };
      for (const at of [0, 1, 2]) await keep(at, 200);
      expect(await states(3)).toEqual(["kept", "kept", "kept"]);
      await keep(3, 300); // 900 bytes, and what sealing adds
      expect(await states(4)).toEqual(["claimed", "kept", "kept", "kept"]);
      store = new (idempotencyStore(small))(state, env); // woken anew, it knows what it holds
      await keep(4, 300);
      expect(await states(5)).toEqual(["claimed", "claimed", "kept", "kept", "kept"]);
      await keep(5, maxBytes); // larger than all: nothing is left of the others, nor of itself
      expect(await states(6)).toEqual(Array(6).fill("claimed"));
      await keep(6, 200); // and what was forgotten is counted no more
      await keep(7, 200);
      expect((await states(8)).slice(6)).toEqual(["kept", "kept"]);
      // Whoever is at work is not forgotten, however large the others are.
      await ask(store, 8, "r8");
      await keep(9, maxBytes);
      expect(await ask(store, 8, "other")).toEqual({ state: "running" });
    });
  });
});

describe("an idempotency key", () => {
  it("belongs to the first request, and its reply to all that come later", async () => {
    const { stub, key, claim } = await fresh();
    expect(await claim("r1")).toEqual({ state: "claimed" });
    expect(await claim("r1")).toEqual({ state: "claimed" }); // the same request, which did not hear the answer
    expect(await claim("r2")).toEqual({ state: "running" });
    await stub.keep({ key, requestId: "r2", content: null, reply }); // not its own
    expect(await claim("r2")).toEqual({ state: "running" });
    await stub.keep({ key, requestId: "r1", content: null, reply });
    await stub.keep({ key, requestId: "r1", content: null, reply: null }); // once
    expect(await claim("r2")).toEqual({ state: "kept", reply, content: null });
    expect(await claim("r3", { body: "c".repeat(64) })).toEqual({ state: "reused" });
  });

  it("lets those who wait know at once, and one of them work when the first came to nothing", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    const waiting = ["r2", "r3", "r4"].map((id) => claim(id, { patienceMs: 60_000 }));
    await stub.release(key, "r9"); // not its own
    await stub.release(key, "r1");
    const second = await Promise.race(waiting.map((each, at) => each.then((answer) => ({ at, answer }))));
    expect(second.answer).toEqual({ state: "claimed" });
    await stub.keep({ key, requestId: `r${second.at + 2}`, content: null, reply });
    const answers = await Promise.all(waiting);
    expect(answers.filter(({ state }) => state === "claimed")).toHaveLength(1);
    expect(answers.filter(({ state }) => state === "kept")).toHaveLength(2);
  });

  it("remembers what was done without a reply", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    await stub.keep({ key, requestId: "r1", content: null, reply: null });
    expect(await claim("r2")).toEqual({ state: "done", content: null });
  });

  it("survives the object's memory, and is free again when its claim or its day is over", async () => {
    const { stub, key, claim } = await fresh();
    await claim("r1");
    await evictDurableObject(stub);
    expect(await claim("r2")).toEqual({ state: "running" });
    await stub.keep({ key, requestId: "r1", content: null, reply });
    await evictDurableObject(stub);
    expect(await claim("r2")).toEqual({ state: "kept", reply, content: null });
    await runInDurableObject(stub, (_, state) => state.storage.sql.exec("update reply set expires_at = 1"));
    expect(await claim("r2")).toEqual({ state: "claimed" });
    await runInDurableObject(stub, (_, state) => state.storage.sql.exec("update reply set expires_at = 1"));
    expect(await runDurableObjectAlarm(stub)).toBe(true);
    expect(await stub.countRows()).toBe(0);
  });
});
