import { startPlatform, upstreamModel } from "../test/isolates.ts";
import { MockUpstream } from "../test/mock-upstream.ts";
import { measure, table } from "./harness.ts";

/**
 * What a call costs on its way through the platform: the production bundle in workerd, through a direct socket, in
 * front of a mock upstream that answers at once. The control is the same upstream without the platform.
 */
const mock = await MockUpstream.start({ tokens: 4 });
const catalogue = { version: "bench", models: [upstreamModel("mock")] };
const platform = await startPlatform({
  bundle: "production",
  vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: catalogue },
});

async function post(url: string, key: string, body: object): Promise<{ id: string; value: string }> {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const reply = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!reply.ok) throw new Error(`${url} answered ${reply.status}: ${await reply.text()}`);
  return (await reply.json()) as { id: string; value: string };
}

const projects = `${platform.url}/v1/organization/projects`;
const project = await post(projects, platform.adminKey, { name: "bench" });
const accounts = `${projects}/${project.id}/service_accounts`;
const account = await post(accounts, platform.adminKey, { name: "bench", create_service_account_only: true });
const key = await post(`${accounts}/${account.id}/api_keys`, platform.adminKey, { name: "bench" });
const limits = { max_requests_per_1_minute: 1_000_000_000, max_tokens_per_1_minute: 1_000_000_000 };
await post(`${projects}/${project.id}/rate_limits/rl-mock`, platform.adminKey, limits);

const ask = { model: "mock", messages: [{ role: "user", content: "hello" }], max_tokens: 4 };
const calling = (base: string) => async () => void (await post(`${base}/chat/completions`, key.value, ask));
const samples = await measure({
  name: "gateway",
  variants: [
    { name: "upstream alone (control)", call: calling(mock.url) },
    { name: "through the platform", call: calling(`${platform.url}/v1`) },
  ],
  rounds: 3,
  secondsPerRound: 3,
  connections: 16,
});
console.log(table(samples));
await platform.stop();
await mock.stop();
