import { type Platform, startPlatform, upstreamModel } from "../test/isolates.ts";
import { MockUpstream } from "../test/mock-upstream.ts";
import { measure, table } from "./harness.ts";
import { createTenant, send } from "./operator.ts";

/**
 * What a call costs on its way through the platform: the production bundle in workerd, through a direct socket, in
 * front of a mock upstream that answers at once. The controls are the same upstream without the platform, and the
 * platform without leases, where every call asks its tenant's gate before it may run.
 */
const mock = await MockUpstream.start({ tokens: 4 });
const MODEL_CATALOGUE = { version: "bench", models: [upstreamModel("mock")] };
const ask = { model: "mock", messages: [{ role: "user", content: "hello" }], max_tokens: 4 };

/** A platform, and a key of a tenant in it. */
async function start(leaseMax: number): Promise<{ platform: Platform; key: string }> {
  const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE, LEASE_MAX: leaseMax };
  const platform = await startPlatform({ bundle: "production", vars });
  return { platform, key: (await createTenant(platform, "mock")).key };
}

const calling = (base: string, key: string) => async () => void (await send(`${base}/chat/completions`, key, ask));
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
