import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateAdminKey } from "../../scripts/keys.mjs";
import { startKillable } from "../crash";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

/** A call may run for half of it; what is reserved used to be held for all of it, wait and run together. */
const DEADLINE_MS = 4_000;
/** Two of them fit before a call that waits, and one into its own run. */
const RUN_MS = 1_700;
const TOKENS = 4;
const WAIT_SECONDS = 5;

let platform: Platform;
let operator: Operator;
let mock: MockUpstream;
const varsOf = (url: string) => ({
  UPSTREAM_URL: url,
  MODEL_CATALOGUE: { version: "1", models: [upstreamModel("scarce", { max_in_flight: 1 })] },
  REQUEST_DEADLINE_MS: DEADLINE_MS,
  LEASE_MAX: 16,
});

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: TOKENS });
  platform = await startPlatform({ bundle: "production", vars: varsOf(mock.url) });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  await mock.stop();
});

const limits = { requestsPerMinute: 100_000, tokensPerMinute: 100_000_000, model: "scarce" };

async function call(url: string, { key }: Pick<TestTenant, "key">, waitSeconds = WAIT_SECONDS) {
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "x-stainless-timeout": String(waitSeconds) },
    body: JSON.stringify({ model: "scarce", messages: [{ role: "user", content: "hi" }], max_completion_tokens: 8 }),
  });
  const { usage, error } = (await reply.json()) as {
    usage?: { total_tokens: number };
    error?: { code: string };
  };
  const remaining = reply.headers.get("x-ratelimit-remaining-tokens");
  return { status: reply.status, code: error?.code ?? null, tokens: usage?.total_tokens ?? null, remaining };
}

async function outcomes(url: string, { key }: Pick<TestTenant, "key">): Promise<string[]> {
  const reply = await fetch(`${url}/v1/tenantry/decisions?limit=100`, { headers: { authorization: `Bearer ${key}` } });
  const { data } = (await reply.json()) as { data: { request_id: string; outcome: string }[] };
  expect(new Set(data.map(({ request_id }) => request_id)).size).toBe(data.length);
  return data.map(({ outcome }) => outcome);
}

describe("a call that waits for a slot of a scarce model longer than its deadline leaves beside its run", () => {
  it("is settled once, with its true usage", async () => {
    mock.script({ tokens: TOKENS, firstByteMs: RUN_MS });
    const tenants: TestTenant[] = [];
    for (let made = 0; made < 3; made++) tenants.push(await operator.createTenant(limits));
    const replies = await Promise.all(tenants.map((tenant) => call(platform.url, tenant)));
    expect(replies).toMatchObject(replies.map(() => ({ status: 200, code: null })));
    for (const [index, tenant] of tenants.entries()) {
      expect(await outcomes(platform.url, tenant)).toEqual(["completed"]);
      const { requests, outputTokens } = await operator.usage(tenant.projectId);
      expect({ requests, outputTokens }).toEqual({ requests: 1, outputTokens: TOKENS });
      expect(replies[index]?.tokens).toBeGreaterThan(TOKENS);
    }
  });

  it("is settled once, with its true usage, where it draws on a lease", async () => {
    mock.script({ tokens: TOKENS });
    const tenant = await operator.createTenant(limits);
    for (let made = 0; made < 6; made++) expect(await call(platform.url, tenant)).toMatchObject({ status: 200 });
    mock.script({ tokens: TOKENS, firstByteMs: RUN_MS });
    const replies = await Promise.all([1, 2, 3].map(() => call(platform.url, tenant)));
    expect(replies).toMatchObject(replies.map(() => ({ status: 200, code: null })));
    // The state of the limits is the gate's last word; a call on a lease repeats it.
    expect(new Set(replies.map(({ remaining }) => remaining)).size).toBeLessThan(replies.length);
    expect(await outcomes(platform.url, tenant)).toEqual(Array.from({ length: 9 }, () => "completed"));
    const { requests, outputTokens } = await operator.usage(tenant.projectId);
    expect({ requests, outputTokens }).toEqual({ requests: 9, outputTokens: 9 * TOKENS });
  });
});

describe("a platform that dies while a call waits for its slot", () => {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-scarce-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("books its worst case later, and that of the call that ran", async () => {
    const adminKey = generateAdminKey();
    const vars = { ...varsOf(mock.url), LEASE_MAX: 1 }; // a lease that dies as well is booked beside its calls
    const start = () => startKillable({ bundle: "production", persistTo: folder, adminKey, vars });
    let killable = await start();
    const tenant = await new Operator(killable.url, adminKey).createTenant(limits);
    mock.script({ hang: true });
    const before = mock.counters.calls;
    const calls = [1, 2].map(() => call(killable.url, tenant, 1).catch(() => undefined));
    await mock.until(({ calls: seen }) => seen > before);
    await killable.kill();
    await Promise.all(calls);
    killable = await start();
    try {
      await expect
        .poll(() => outcomes(killable.url, tenant), { timeout: 20_000, interval: 250 })
        .toEqual(["unreconciled", "unreconciled"]);
    } finally {
      await killable.kill();
    }
  }, 60_000);
});
