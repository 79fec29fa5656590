import { type Platform, startPlatform, upstreamModel } from "../test/isolates.ts";
import { MockUpstream } from "../test/mock-upstream.ts";
import { measure, table } from "./harness.ts";

/**
 * What a call costs on its way through the platform: the production bundle in workerd, through a direct socket, in
 * front of a mock upstream that answers at once. The controls are the same upstream without the platform, and the
 * platform without leases, where every call asks its tenant's gate before it may run.
 */
const mock = await MockUpstream.start({ tokens: 4 });
const MODEL_CATALOGUE = { version: "bench", models: [upstreamModel("mock")] };
const ask = { model: "mock", messages: [{ role: "user", content: "hello" }], max_tokens: 4 };

async function post(url: string, key: string, body: object): Promise<{ id: string; value: string }> {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const reply = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!reply.ok) throw new Error(`${url} answered ${reply.status}: ${await reply.text()}`);
  return (await reply.json()) as { id: string; value: string };
}

/** A platform, and a key of a tenant in it whose limits are out of reach. */
async function start(leaseMax: number): Promise<{ platform: Platform; key: string }> {
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE, LEASE_MAX: leaseMax };
  const platform = await startPlatform({ bundle: "production", vars });
  const projects = `${platform.url}/v1/organization/projects`;
  const project = await post(projects, platform.adminKey, { name: "bench" });
  const accounts = `${projects}/${project.id}/service_accounts`;
  const account = await post(accounts, platform.adminKey, { name: "bench", create_service_account_only: true });
  const { value: key } = await post(`${accounts}/${account.id}/api_keys`, platform.adminKey, { name: "bench" });
  const limits = { max_requests_per_1_minute: 1_000_000_000, max_tokens_per_1_minute: 1_000_000_000 };
  await post(`${projects}/${project.id}/rate_limits/rl-mock`, platform.adminKey, limits);
  const settings = `${platform.url}/v1/tenantry/projects/${project.id}/limits`;
  await post(settings, platform.adminKey, { in_flight: 10_000 });
  return { platform, key };
}

const calling = (base: string, key: string) => async () => void (await post(`${base}/chat/completions`, key, ask));
const [leased, asking] = [await start(16), await start(1)];
const samples = await measure({
  name: "gateway",
  variants: [
    { name: "upstream alone (control)", call: calling(mock.url, "none") },
    { name: "through the platform", call: calling(`${leased.platform.url}/v1`, leased.key) },
    { name: "the same without leases (control)", call: calling(`${asking.platform.url}/v1`, asking.key) },
  ],
  rounds: 3,
  secondsPerRound: 3,
  connections: 16,
});
console.log(table(samples));
await leased.platform.stop();
await asking.platform.stop();
await mock.stop();
