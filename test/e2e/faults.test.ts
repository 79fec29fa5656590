import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { buildCounted } from "../operations/measure";
import type { Fault } from "../operations/operations";
import { Operator, type TestTenant } from "../operator";

/** A hold lives this long, and a call half of it: the other half is for its settlement. */
const DEADLINE_MS = 12_000;
const CAP = 40;
let platform: Platform;
let operator: Operator;
let mock: MockUpstream;
let tenant: TestTenant;

beforeAll(async () => {
  buildCounted();
  mock = await MockUpstream.start({ tokens: 5 });
  const models = ["mock", "hangs", "slow"].map((name) => upstreamModel(name));
  platform = await startPlatform({
    bundle: "operations",
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models }, REQUEST_DEADLINE_MS: DEADLINE_MS },
  });
  mock.script({ hang: true }, "hangs");
  mock.script({ tokens: 200, tokenMs: 20 }, "slow");
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});
beforeEach(async () => {
  tenant = await operator.createTenant();
});

const inject = (...faults: Fault[]) =>
  fetch(`${platform.url}/faults`, { method: "POST", body: JSON.stringify(faults) });
const ask = (more: object = {}, signal?: AbortSignal) =>
  fetch(`${platform.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({
      model: "mock",
      messages: [{ role: "user", content: "hi" }],
      max_completion_tokens: CAP,
      ...more,
    }),
    ...(signal ? { signal } : {}),
  });
interface Decision {
  readonly request_id: string;
  readonly outcome: string;
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number };
}
async function decisions(): Promise<readonly Decision[]> {
  const page = (await tenant.client.get("/tenantry/decisions")) as { data: readonly Decision[] };
  return page.data;
}
const errorCode = async (reply: Response) => ((await reply.json()) as { error: { code: string } }).error.code;
async function held(): Promise<number> {
  const reply = await fetch(`${platform.url}/v1/tenantry/limits`, {
    headers: { authorization: `Bearer ${tenant.key}` },
  });
  const { limits } = (await reply.json()) as { limits: { held: number }[] };
  return limits.reduce((sum, limit) => sum + limit.held, 0);
}

describe("a gate that cannot be reached", () => {
  it("admits nobody: 503, and the model is not asked", async () => {
    const before = mock.counters.calls;
    await inject(
      { of: "TENANT_GATE.bind", where: "request", times: 9 },
      { of: "TENANT_GATE.admit", where: "request", times: 9 },
    );
    const reply = await ask();
    expect([reply.status, await errorCode(reply)]).toEqual([503, "admission_unavailable"]);
    expect(reply.headers.get("retry-after")).toBe("1");
    expect(mock.counters.calls).toBe(before);
    await inject();
    expect((await ask()).status).toBe(200);
  });

  it("answers late: the call is admitted once, whichever answer was lost", async () => {
    await inject({ of: "TENANT_GATE.bind", where: "reply", times: 1 });
    expect((await ask()).status).toBe(200);
    await inject({ of: "TENANT_GATE.admit", where: "reply", times: 1 });
    expect((await ask()).status).toBe(200);
    await inject({ of: "TENANT_GATE.finish", where: "reply", times: 2 });
    expect((await (await ask({ stream: true })).text()).includes("[DONE]")).toBe(true);
    const ids = (await decisions()).map(({ request_id }) => request_id);
    expect([ids.length, new Set(ids).size]).toEqual([3, 3]);
    await expect.poll(held).toBe(0);
  });

  it("takes no settlement: the reply does not end as if it were recorded, and the call is booked at its worst case", async () => {
    await ask().then((reply) => reply.text()); // the key is known from here on
    await inject({ of: "TENANT_GATE.finish", where: "request", times: 1_000 });
    const [plain, stream] = await Promise.all([ask(), ask({ stream: true }).then((reply) => reply.text())]);
    await inject();
    expect([plain.status, await errorCode(plain)]).toEqual([503, "settlement_unavailable"]);
    expect(stream).toContain('"settlement_unavailable"');
    expect(stream).not.toContain("[DONE]");
    const outcomes = async () => (await decisions()).map(({ outcome }) => outcome).sort();
    await expect.poll(outcomes, { timeout: 2 * DEADLINE_MS }).toEqual(["completed", "unreconciled", "unreconciled"]);
    const worst = (await decisions()).filter(({ outcome }) => outcome === "unreconciled");
    const [first, second] = worst.map(({ usage }) => usage.prompt_tokens + usage.completion_tokens);
    expect(first).toBeGreaterThan(CAP);
    expect(second).toBe(first);
    await expect.poll(held).toBe(0);
  });
});

describe("a model that does not answer", () => {
  it("is given up at the deadline, and the call is settled then", async () => {
    const reply = await ask({ model: "hangs" });
    expect([reply.status, await errorCode(reply)]).toEqual([504, "model_timeout"]);
    expect((await decisions())[0]).toMatchObject({ outcome: "deadline", usage: { completion_tokens: 0 } });
    await expect.poll(held).toBe(0);
  });
});

describe("a client that goes away", () => {
  it("in the middle of a stream: the bill is the prompt and what was made until the model stopped", async () => {
    const abort = new AbortController();
    const before = mock.counters.completionTokens;
    const reply = await ask({ model: "slow", stream: true, max_completion_tokens: 200 }, abort.signal);
    const reader = reply.body?.getReader();
    for (let chunks = 0; chunks < 5; chunks++) await reader?.read();
    abort.abort();
    await mock.until(({ inFlight }) => inFlight === 0);
    await expect.poll(async () => (await decisions())[0]?.outcome).toBe("cancelled");
    const { usage } = (await decisions())[0] as Decision;
    const made = mock.counters.completionTokens - before;
    expect(usage.prompt_tokens).toBeGreaterThan(0);
    expect(usage.completion_tokens).toBeGreaterThan(0);
    expect(usage.completion_tokens).toBeLessThanOrEqual(made);
    expect(made).toBeLessThan(200);
    await expect.poll(held).toBe(0);
  });
});
