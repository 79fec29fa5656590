import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { startPlatform, upstreamModel } from "../test/isolates.ts";
import { MockUpstream } from "../test/mock-upstream.ts";
import { createTenant, send } from "./operator.ts";

/**
 * What more upstreams bring: a model served by one, then by four that take 50 requests a second each (five at once,
 * 100 ms a request), under a load of four times what one takes, in one run; then one of the four leaves in the middle
 * of the load, and nothing may be lost. Writes bench/results/upstreams.json.
 */
const SLEEP_MS = 100;
const AT_ONCE = 5;
const ISOLATES = 4;
/** Four upstreams' slots, and as many callers again who wait: some always do. */
const CALLERS = 4 * AT_ONCE * 2;
const SECONDS = 10;
const SCALES_BY = 3.5;

const mocks = await Promise.all([0, 1, 2, 3].map(() => MockUpstream.start({ firstByteMs: SLEEP_MS, tokens: 2 })));
const models = [upstreamModel("mock", { max_in_flight: AT_ONCE })];
const vars = { MODEL_CATALOGUE: { version: "bench", models } };
const platform = await startPlatform({ bundle: "production", isolates: ISOLATES, vars });
const { key } = await createTenant(platform, "mock");
const endpoints = `${platform.url}/v1/tenantry/models/mock/endpoints`;
const joins = async ({ url }: MockUpstream) =>
  (await send<{ id: string }>(endpoints, platform.adminKey, { url, max_in_flight: AT_ONCE })).id;
const leaves = (id: string) => send(`${endpoints}/${id}`, platform.adminKey, undefined, "DELETE");

interface Load {
  readonly upstreams: string;
  readonly replies: number;
  readonly lost: number;
  readonly perSecond: number;
  readonly callsOfEach: readonly number[];
}

/** Callers that ask again as soon as they are answered. */
async function load(upstreams: string, seconds: number, half: () => Promise<unknown> = async () => {}): Promise<Load> {
  const before = mocks.map(({ counters }) => counters.calls);
  const [startMs, statuses] = [performance.now(), [] as number[]];
  const endMs = startMs + seconds * 1000;
  const body = JSON.stringify({ model: "mock", messages: [{ role: "user", content: "hi" }], max_completion_tokens: 2 });
  const caller = async (_: unknown, index: number) => {
    const url = `${platform.urls[index % ISOLATES]}/v1/chat/completions`;
    while (performance.now() < endMs) {
      const reply = await fetch(url, { method: "POST", headers: { authorization: `Bearer ${key}` }, body });
      await reply.arrayBuffer();
      statuses.push(reply.status);
    }
  };
  const change = new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / 2)).then(half);
  await Promise.all([...Array.from({ length: CALLERS }, caller), change]);
  const perSecond = statuses.length / ((performance.now() - startMs) / 1000);
  const lost = statuses.filter((status) => status !== 200).length;
  const callsOfEach = mocks.map(({ counters }, index) => counters.calls - (before[index] ?? 0));
  process.stderr.write(`${upstreams}: ${perSecond.toFixed(0)}/s\n`);
  return { upstreams, replies: statuses.length, lost, perSecond, callsOfEach };
}

const [first, ...others] = mocks as [MockUpstream, ...MockUpstream[]];
await joins(first);
await load("warm", 1);
const one = await load("1", SECONDS);
const ids = await Promise.all(others.map(joins));
const four = await load("4", SECONDS);
let atLeaving = 0;
const leaver = others[0] as MockUpstream;
const leaving = await load("4, then 3", SECONDS, async () => {
  await leaves(ids[0] ?? "");
  atLeaving = leaver.counters.calls;
});
const afterwards = leaver.counters.calls - atLeaving;

const ratio = four.perSecond / one.perSecond;
const rows = [one, four, leaving].map(
  ({ upstreams, replies, lost, perSecond, callsOfEach }) =>
    `| ${upstreams} | ${replies} | ${lost} | ${perSecond.toFixed(1)} | ${(perSecond / one.perSecond).toFixed(2)} | ${callsOfEach.join(", ")} |`,
);
console.log(
  ["| upstreams | replies | lost | replies/s | ratio | calls of each |", "|---|---|---|---|---|---|", ...rows].join(
    "\n",
  ),
);
const folder = join(import.meta.dirname, "results");
mkdirSync(folder, { recursive: true });
const machine = { cores: cpus().length, processor: cpus()[0]?.model ?? "", node: process.version };
const raw = { name: "upstreams", machine, sleepMs: SLEEP_MS, atOnce: AT_ONCE, callers: CALLERS, ratio };
writeFileSync(
  join(folder, "upstreams.json"),
  `${JSON.stringify({ ...raw, callsAfterLeaving: afterwards, loads: [one, four, leaving] }, null, 1)}\n`,
);
const complaints = [
  ratio < SCALES_BY && `four upstreams bring ${ratio.toFixed(2)} times as much as one, not ${SCALES_BY}`,
  one.lost + four.lost + leaving.lost > 0 && "requests were lost",
  afterwards > 0 && `the one that left got ${afterwards} more calls`,
].filter((complaint) => complaint !== false);
for (const complaint of complaints) console.error(complaint);
process.exitCode = complaints.length > 0 ? 1 : 0;
await platform.stop();
await Promise.all(mocks.map((mock) => mock.stop()));
