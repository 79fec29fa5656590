import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";

/** A dispatcher of its own for each test, with as many slots as the test says. */
function dispatcher(slots: number) {
  const stub = env.MODEL_DISPATCHER.getByName(`global/${crypto.randomUUID()}`);
  const acquire = (
    requestId: string,
    tenantId: string,
    more: { keyId?: string; weight?: number; patienceMs?: number } = {},
  ) =>
    stub.acquire({ requestId, tenantId, keyId: "key", weight: 1, inputTokens: 10, patienceMs: 60_000, slots, ...more });
  const release = (requestId: string, outputTokens = 10) => stub.release({ requestId, inputTokens: 10, outputTokens });
  return { stub, acquire, release };
}

/** Queues requests, then frees slots one after another. @returns the order in which those who waited were served */
async function serve(
  { acquire, release }: ReturnType<typeof dispatcher>,
  waiting: readonly (readonly [
    id: string,
    tenant: string,
    more?: Parameters<ReturnType<typeof dispatcher>["acquire"]>[2],
  ])[],
): Promise<string[]> {
  await acquire("holder", "somebody");
  const order: string[] = [];
  const served = waiting.map(async ([id, tenant, more]) => {
    const reply = await acquire(id, tenant, more);
    if (reply.acquired) order.push(id);
  });
  let last = "holder";
  while (order.length < waiting.length) {
    const before = order.length;
    await release(last);
    await expect.poll(() => order.length).toBeGreaterThan(before);
    last = order.at(-1) ?? "";
  }
  await Promise.all(served);
  return order;
}

describe("the dispatcher of a scarce model", () => {
  it("gives what is free at once, and makes the next one wait until something is freed", async () => {
    const model = dispatcher(2);
    expect(await model.acquire("a", "ada")).toEqual({
      ...{ acquired: true, queuedMs: 0, endpoint: null, sequences: 1 },
    });
    expect(await model.acquire("b", "bob")).toMatchObject({ acquired: true });
    const third = model.acquire("c", "cyd");
    await expect.poll(() => model.stub.metrics()).toMatchObject({ queueDepth: 1, inFlight: 2 });
    await model.release("a");
    expect(await third).toMatchObject({ acquired: true });
    expect(await model.stub.metrics()).toMatchObject({ queueDepth: 0, inFlight: 2 });
  });

  it("serves tenants in turns, however many requests one of them has waiting", async () => {
    const flood = Array.from({ length: 8 }, (_, index) => [`flood${index}`, "flood"] as const);
    const order = await serve(dispatcher(1), [...flood, ["quiet0", "quiet"], ["quiet1", "quiet"]]);
    expect(order.indexOf("quiet0")).toBeLessThanOrEqual(1);
    expect(order.indexOf("quiet1")).toBeLessThanOrEqual(3);
  });

  it("gives a tenant nothing for splitting into many keys", async () => {
    const many = Array.from({ length: 8 }, (_, index) => [`many${index}`, "many", { keyId: `key${index}` }] as const);
    const one = Array.from({ length: 4 }, (_, index) => [`one${index}`, "one"] as const);
    const order = await serve(dispatcher(1), [...many, ...one]);
    expect(order.slice(0, 8).filter((id) => id.startsWith("one"))).toHaveLength(4);
  });

  it("gives twice the service for twice the weight", async () => {
    const of = (tenant: string, weight: number) =>
      Array.from({ length: 9 }, (_, index) => [`${tenant}${index}`, tenant, { weight }] as const);
    const order = await serve(dispatcher(1), [...of("heavy", 2), ...of("light", 1)]);
    const heavy = order.slice(0, 9).filter((id) => id.startsWith("heavy")).length;
    expect(heavy).toBeGreaterThanOrEqual(5);
    expect(heavy).toBeLessThanOrEqual(7);
  });

  it("forgets a request whose caller has gone, and one whose patience has ended", async () => {
    const model = dispatcher(1);
    await model.acquire("a", "ada");
    const gone = model.acquire("gone", "bob");
    await expect.poll(async () => (await model.stub.metrics()).queueDepth).toBe(1);
    await model.stub.leave("gone");
    expect(await gone).toMatchObject({ acquired: false, reason: "left" });
    expect(await model.acquire("hasty", "bob", { patienceMs: 0 })).toMatchObject({
      acquired: false,
      reason: "queue_timeout",
    });
    expect(await model.acquire("soon", "bob", { patienceMs: 20 })).toMatchObject({
      acquired: false,
      reason: "queue_timeout",
    });
    await model.release("a");
    expect(await model.stub.metrics()).toMatchObject({ queueDepth: 0, inFlight: 0 });
  });

  it("gives a retried request the same slot, and takes a second end for none", async () => {
    const model = dispatcher(1);
    await model.acquire("a", "ada");
    await model.acquire("a", "ada");
    expect(await model.stub.metrics()).toMatchObject({ inFlight: 1 });
    await model.release("a");
    await model.release("a");
    expect(await model.stub.metrics()).toMatchObject({ inFlight: 0 });
  });

  it("remembers who was served, and who runs, when its memory is gone", async () => {
    const model = dispatcher(1);
    for (let calls = 0; calls < 5; calls++) {
      await model.acquire(`a${calls}`, "ada");
      await model.release(`a${calls}`, 100);
    }
    await model.acquire("running", "ada");
    await evictDurableObject(model.stub);
    expect(await model.stub.metrics()).toMatchObject({ inFlight: 1 });
    const [ada, bob] = [model.acquire("ada", "ada"), model.acquire("bob", "bob")];
    await expect.poll(async () => (await model.stub.metrics()).queueDepth).toBe(2);
    await model.release("running");
    expect(await bob).toMatchObject({ acquired: true });
    await model.release("bob");
    expect(await ada).toMatchObject({ acquired: true });
  });

  it("frees a slot of which nothing is heard any more", async () => {
    const model = dispatcher(1);
    await model.acquire("lost", "ada");
    await runInDurableObject(model.stub, (_, { storage: { sql } }) => {
      sql.exec("update slot set body = json_set(body, '$.deadlineMs', 1)");
    });
    await evictDurableObject(model.stub);
    expect(await model.acquire("next", "bob")).toMatchObject({ acquired: true });
    expect(await model.stub.metrics()).toMatchObject({ inFlight: 1 });
  });
});
