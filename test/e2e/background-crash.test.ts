import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateAdminKey } from "../../scripts/keys.mjs";
import { type Killable, startKillable } from "../crash";
import { upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { clientOf, Operator, type TestTenant } from "../operator";

const folder = mkdtempSync(join(tmpdir(), "tenantry-background-"));
const adminKey = generateAdminKey();
let mock: MockUpstream;
let platform: Killable;
let tenant: TestTenant;
const start = () =>
  startKillable({
    bundle: "production",
    persistTo: folder,
    adminKey,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "crash", models: [upstreamModel("mock")] } },
  });

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 1_000, tokenMs: 20 });
  platform = await start();
  tenant = await new Operator(platform.url, adminKey).createTenant();
});
afterAll(async () => {
  await platform.kill();
  await mock.stop();
  rmSync(folder, { recursive: true, force: true });
});

describe("a response in the background, when the process is killed in its middle", () => {
  it("is told to have failed, is not paid for twice, and does not hold up the next", async () => {
    const { responses } = tenant.client;
    const { id } = await responses.create({ model: "mock", input: "x", background: true });
    await expect.poll(() => mock.counters.inFlight, { timeout: 10_000 }).toBe(1);
    await platform.kill();
    const calls = mock.counters.calls;
    platform = await start();
    const again = clientOf(platform.url, { apiKey: tenant.key });
    await expect.poll(async () => (await again.responses.retrieve(id)).status, { timeout: 20_000 }).toBe("failed");
    expect((await again.responses.retrieve(id)).error?.message).toMatch(/interrupted/);
    expect(mock.counters.calls).toBe(calls);
    mock.script({ text: "fine" });
    const next = await again.responses.create({ model: "mock", input: "x", background: true });
    const statusOf = async () => (await again.responses.retrieve(next.id)).status;
    await expect.poll(statusOf, { timeout: 20_000 }).toBe("completed");
  }, 60_000);
});
