import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateAdminKey } from "../../scripts/keys.mjs";
import { type Killable, startKillable } from "../crash";
import { upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const folder = mkdtempSync(join(tmpdir(), "tenantry-crash-"));
const adminKey = generateAdminKey();
let mock: MockUpstream;
let platform: Killable;
const start = () =>
  startKillable({
    bundle: "production",
    isolates: 2,
    persistTo: folder,
    adminKey,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "crash", models: [upstreamModel("mock")] } },
  });

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 12, tokenMs: 15 });
  platform = await start();
});
afterAll(async () => {
  await platform.kill();
  await mock.stop();
  rmSync(folder, { recursive: true, force: true });
});

interface Reply {
  readonly requestId: string;
  readonly isWhole: boolean;
}

/** One streamed call; whole when its `[DONE]` arrived. */
async function call(tenant: TestTenant, index: number): Promise<Reply | undefined> {
  const body = JSON.stringify({ model: "mock", stream: true, messages: [{ role: "user", content: "count" }] });
  const headers = { authorization: `Bearer ${tenant.key}` };
  let requestId = "";
  let text = "";
  try {
    const reply = await fetch(`${platform.urls[index % 2]}/v1/chat/completions`, { method: "POST", headers, body });
    requestId = reply.headers.get("x-request-id") ?? "";
    if (reply.status !== 200 || !reply.body) return undefined;
    for await (const chunk of reply.body.pipeThrough(new TextDecoderStream())) text += chunk;
  } catch {
    // The connection died with the platform.
  }
  return { requestId, isWhole: text.includes("data: [DONE]") };
}

async function decisions(operator: Operator, tenant: TestTenant): Promise<{ request_id: string; outcome: string }[]> {
  const client = operator.client.withOptions({ baseURL: `${platform.url}/v1`, apiKey: tenant.key });
  const page = (await client.get("/tenantry/decisions?limit=100")) as {
    data: { request_id: string; outcome: string }[];
  };
  return page.data;
}

describe("SIGKILL of the whole process group in the middle of 100 requests", () => {
  it("loses and doubles no usage event of a reply that a client received in full", async () => {
    let operator = new Operator(platform.url, adminKey);
    const tenant = await operator.createTenant({ model: "mock" });
    // In waves, so that at the kill some are done, some stream, some wait.
    const calls = Array.from({ length: 100 }, (_, index) => call(tenant, index));
    await expect.poll(() => mock.counters.completionTokens, { interval: 5, timeout: 20_000 }).toBeGreaterThan(500);
    await platform.kill();
    const replies = (await Promise.all(calls)).filter((reply) => reply !== undefined);
    const whole = replies.filter((reply) => reply.isWhole).map((reply) => reply.requestId);
    expect(whole.length).toBeGreaterThan(0); // the kill came late enough
    expect(whole.length).toBeLessThan(100); // and early enough

    platform = await start();
    operator = new Operator(platform.url, adminKey);
    const recorded = await decisions(operator, tenant);
    const ids = recorded.map((decision) => decision.request_id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(whole.filter((id) => !ids.includes(id))).toEqual([]);
    expect((await operator.usage(tenant.projectId)).requests).toBe(ids.length);
  });
});
