import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
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

  it("leaks no slot and no endpoint's room, in whatever order its callers' messages come, and however often", async () => {
    const ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const id = fc.constantFrom(...ids);
    const message = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ do: fc.constant("acquire" as const), id, sequences: fc.constantFrom(1, 2, 9) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant("release" as const),
          id,
          outcome: fc.constantFrom("ended" as const, "failed" as const),
        }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), id }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("progress" as const), id }) },
      {
        weight: 2,
        arbitrary: fc.record({
          ...{ do: fc.constant("failover" as const), id, outcome: fc.constantFrom("failed" as const, "busy" as const) },
          endpointId: fc.constantFrom("small", "large", undefined),
        }),
      },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 5, maxLength: 40 }), async (messages) => {
        const { stub } = dispatcher(1);
        await stub.addEndpoint({ id: "small", url: "http://small.example", maxInFlight: 2 });
        await stub.addEndpoint({ id: "large", url: "http://large.example", maxInFlight: 3 });
        const answers: Promise<unknown>[] = [];
        for (const each of messages) {
          if (each.do === "acquire") {
            const more = { keyId: "key", weight: 1, inputTokens: 10, patienceMs: 60_000, slots: 1 };
            const request = { requestId: each.id, tenantId: each.id, sequences: each.sequences, ...more };
            answers.push(stub.acquire(request));
          } else if (each.do === "release") {
            await stub.release({ requestId: each.id, inputTokens: 1, outputTokens: 1, outcome: each.outcome });
          } else if (each.do === "leave") await stub.leave(each.id);
          else if (each.do === "progress") await stub.progress(each.id, 1);
          else {
            const { endpointId, outcome } = each;
            const request = { requestId: each.id, outcome, restMs: 1 };
            await stub.failover(endpointId === undefined ? request : { ...request, endpointId });
          }
          const { inFlight } = await stub.metrics();
          const endpoints = await stub.listEndpoints();
          expect(inFlight).toBeLessThanOrEqual(5);
          for (const endpoint of endpoints) expect(endpoint.inFlight).toBeLessThanOrEqual(endpoint.maxInFlight);
          expect(endpoints.reduce((sum, endpoint) => sum + endpoint.inFlight, 0)).toBeLessThanOrEqual(inFlight);
        }
        for (const each of ids) await stub.leave(each);
        await Promise.all(answers); // everybody is answered
        const before = [await stub.metrics(), await stub.listEndpoints()];
        await evictDurableObject(stub);
        expect([await stub.metrics(), await stub.listEndpoints()]).toEqual(before);
        for (const each of ids) await stub.release({ requestId: each, inputTokens: 1, outputTokens: 1 });
        expect(await stub.metrics()).toEqual({ inFlight: 0, queueDepth: 0, oldestWaitMs: 0 });
        expect((await stub.listEndpoints()).map(({ inFlight }) => inFlight)).toEqual([0, 0]);
        const rows = await runInDurableObject(stub, (_, { storage: { sql } }) =>
          sql.exec("select id from slot union all select id from called").toArray(),
        );
        expect(rows).toEqual([]);
      }),
      { numRuns: 20, endOnFailure: true },
    );
  }, 60_000);

  it("answers a waiting call that is released, and gives an endpoint that joins to those who wait, as far as it reaches", async () => {
    const { stub, acquire } = dispatcher(1);
    await stub.addEndpoint({ id: "one", url: "http://one.example", maxInFlight: 1 });
    await acquire("a", "ada");
    const released = acquire("released", "bob");
    await expect.poll(async () => (await stub.metrics()).queueDepth).toBe(1);
    await stub.release({ requestId: "released", inputTokens: 0, outputTokens: 0 });
    expect(await released).toMatchObject({ acquired: false, reason: "left" });
    const wide = stub.acquire({
      ...{ requestId: "wide", tenantId: "bob", keyId: "key", weight: 1, inputTokens: 10 },
      ...{ patienceMs: 60_000, slots: 1, sequences: 9 },
    });
    await expect.poll(async () => (await stub.metrics()).queueDepth).toBe(1);
    const last = acquire("last", "cyd");
    await expect.poll(async () => (await stub.metrics()).queueDepth).toBe(2);
    await stub.addEndpoint({ id: "two", url: "http://two.example", maxInFlight: 3 });
    expect(await wide).toMatchObject({ sequences: 3, endpoint: { id: "two" } });
    expect(await stub.metrics()).toMatchObject({ inFlight: 4, queueDepth: 1 });
    await stub.leave("last");
    expect(await last).toMatchObject({ acquired: false });
  });

  it("moves a call once to another endpoint, however often it is told that one failed, and never one without a slot", async () => {
    const { stub, acquire, release } = dispatcher(1);
    for (const id of ["one", "two", "three"]) {
      await stub.addEndpoint({ id, url: `http://${id}.example`, maxInFlight: 1 });
    }
    const reply = await acquire("a", "ada");
    const failed = {
      requestId: "a",
      endpointId: (reply.acquired && reply.endpoint?.id) || "",
      outcome: "failed",
      restMs: 0,
    } as const;
    const next = await stub.failover(failed);
    expect(next).toMatchObject({ sequences: 1 });
    expect(await stub.failover(failed)).toEqual(next);
    await release("a");
    expect(await stub.failover({ ...failed, endpointId: next?.id ?? "" })).toBeNull();
    expect((await stub.listEndpoints()).map(({ inFlight }) => inFlight)).toEqual([0, 0, 0]);
    expect((await stub.listEndpoints()).map(({ failures }) => failures).sort()).toEqual([0, 0, 1]);
  });

  it("gives a call that moves to a smaller endpoint fewer slots, and the others to who waits", async () => {
    const { stub, acquire } = dispatcher(1);
    await stub.addEndpoint({ id: "large", url: "http://large.example", maxInFlight: 3 });
    await stub.addEndpoint({ id: "small", url: "http://small.example", maxInFlight: 1 });
    const wide = {
      tenantId: "ada",
      keyId: "key",
      weight: 1,
      inputTokens: 1,
      patienceMs: 60_000,
      slots: 1,
      sequences: 3,
    };
    expect(await stub.acquire({ requestId: "wide", ...wide })).toMatchObject({
      ...{ sequences: 3, endpoint: { id: "large", sequences: 3 } },
    });
    const failed = { requestId: "wide", endpointId: "large", outcome: "failed", restMs: 0 } as const;
    expect(await stub.failover(failed)).toMatchObject({ id: "small", sequences: 1 });
    expect(await stub.metrics()).toMatchObject({ inFlight: 1 });
    expect(await acquire("next", "bob")).toMatchObject({ endpoint: { id: "large" } });
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
