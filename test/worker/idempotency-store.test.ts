import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";

const BODY = "b".repeat(64);
const reply = {
  status: 200,
  headers: [["content-type", "text/plain"]] as [string, string][],
  body: new Uint8Array([1, 2]),
};
const fresh = () => {
  const stub = env.IDEMPOTENCY_STORE.getByName(`global/${crypto.randomUUID()}`);
  const key = "a".repeat(64);
  const claim = (requestId: string, more: object = {}) =>
    stub.claim({ key, body: BODY, requestId, patienceMs: 0, holdMs: 60_000, ...more });
  return { stub, key, claim };
};

describe("an idempotency key", () => {
  it("belongs to the first request, and its reply to all that come later", async () => {
    const { stub, key, claim } = fresh();
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
    const { stub, key, claim } = fresh();
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
    const { stub, key, claim } = fresh();
    await claim("r1");
    await stub.keep({ key, requestId: "r1", content: null, reply: null });
    expect(await claim("r2")).toEqual({ state: "done", content: null });
  });

  it("survives the object's memory, and is free again when its claim or its day is over", async () => {
    const { stub, key, claim } = fresh();
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
