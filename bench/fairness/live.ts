import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { type Platform, startPlatform } from "../../test/isolates.ts";
import { type BenchTenant, createTenant } from "../operator.ts";
import { type Arrival, arrivalsOf, type Scenario } from "./traces.ts";

/**
 * How the embedded model is shared, live: the on-off and the 1:2 scenario of traces.json on the whole platform, with
 * rates in the same proportion to what the model can do on this machine. The control is the same platform, where all
 * calls are made with one key of one tenant: inside a key the order is first come, first served.
 * Writes bench/results/fairness-live.json.
 */
const MODEL = "tiny-support-lm";
/** The model computes in one thread: of two calls at once each takes nearly twice as long. */
const SLOTS = 1;
/**
 * Long prompts and short replies: reading is the model's work alone, while each token that is written costs the
 * platform as much as the model, and the model has to be what is scarce.
 */
const OUTPUT_TOKENS = 8;
/** Nobody waits longer than 30 s here, so an overload of 1.5 times has to end before that. */
const ON_OFF = { seconds: 48, onSeconds: 8, offSeconds: 8 };
const OVERLOAD_SECONDS = 16;
const CALIBRATION_SECONDS = 5;
/** About 440 tokens, and no two begin alike, so that nothing of them is known before. */
const promptOf = (number: number) =>
  `${number}: ${"My order has not arrived yet, and nobody answers my letters. What should I do now? ".repeat(14)}`;
let prompts = 0;

interface Call {
  readonly tenant: string;
  readonly atMs: number;
  readonly status: number;
  /** After the arrival; null where there was none. */
  readonly firstTokenMs: number | null;
  readonly endMs: number;
  readonly tokens: number;
}

async function call({ url }: Platform, key: string, startMs: number, tenant: string): Promise<Call> {
  const atMs = performance.now() - startMs;
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({
      ...{ model: MODEL, stream: true, max_completion_tokens: OUTPUT_TOKENS, seed: 1 },
      messages: [{ role: "user", content: promptOf(prompts++) }],
    }),
  });
  let [firstTokenMs, tokens]: [number | null, number] = [null, 0];
  if (reply.status === 200 && reply.body) {
    for await (const text of reply.body.pipeThrough(new TextDecoderStream())) {
      const made = text.split('"content":"').length - 1;
      if (made > 0) firstTokenMs ??= performance.now() - startMs - atMs;
      tokens += made;
    }
  } else await reply.arrayBuffer();
  return { tenant, atMs, status: reply.status, firstTokenMs, endMs: performance.now() - startMs, tokens };
}

/** Calls at their times, whatever becomes of those before them. */
async function play(name: string, arrivals: readonly Arrival[], keyOf: (arrival: Arrival) => string): Promise<Call[]> {
  process.stderr.write(`${name}: ${arrivals.length} calls …\n`);
  const startMs = performance.now();
  return Promise.all(
    arrivals.map(async (arrival) => {
      await new Promise((resolve) => setTimeout(resolve, arrival.atMs));
      return call(platform, keyOf(arrival), startMs, arrival.tenant);
    }),
  );
}

/** Calls a second that the platform answers when its model is never without work. */
async function calibrate(key: string): Promise<number> {
  const startMs = performance.now();
  let done = 0;
  const caller = async () => {
    while (performance.now() - startMs < CALIBRATION_SECONDS * 1000) {
      const { status } = await call(platform, key, startMs, "calibration");
      if (status !== 200) throw new Error(`the calibration was answered with ${status}`);
      done++;
    }
  };
  await Promise.all(Array.from({ length: SLOTS * 3 }, caller));
  return done / ((performance.now() - startMs) / 1000);
}

const { server, scenarios } = JSON.parse(readFileSync(join(import.meta.dirname, "traces.json"), "utf8")) as {
  readonly server: { readonly slots: number; readonly stepMs: number; readonly prefillMsPerToken: number };
  readonly scenarios: readonly Scenario[];
};
/** The scenario with its rates in proportion to a live capacity, in requests a second. */
function scaled(name: string, capacity: number, seconds: number, phases: object = {}): Arrival[] {
  const scenario = scenarios.find((each) => each.name === name);
  if (!scenario) throw new Error(`traces.json has no scenario '${name}'`);
  const clients = (scenario.clients ?? []).map((client) => {
    const simulated = (server.slots * 1000) / (client.input * server.prefillMsPerToken + client.output * server.stepMs);
    return { ...client, rate: (client.rate * capacity) / simulated, ...(client.onSeconds ? phases : {}) };
  });
  return arrivalsOf({ ...scenario, seconds, clients });
}

const catalogue = {
  version: "bench",
  models: [
    {
      ...{ name: MODEL, task: "chat", owned_by: "tenantry", created: 1763856000, provider: "workers-ai" },
      ...{ provider_model: "@local/tiny-support-lm", context_tokens: 512, default_max_output_tokens: 128 },
      ...{ max_in_flight: SLOTS, capabilities: ["seed"], regions: ["global"] },
    },
  ],
};
const platform = await startPlatform({ bundle: "local", vars: { MODEL_CATALOGUE: catalogue } });
const [first, second] = [await createTenant(platform, MODEL), await createTenant(platform, MODEL)];
const keysOf = (of: Readonly<Record<string, BenchTenant>>) => (arrival: Arrival) => of[arrival.tenant]?.key ?? "";
await call(platform, first.key, performance.now(), "warm");
await calibrate(first.key); // warm
const capacity = await calibrate(first.key);
process.stderr.write(`capacity: ${capacity.toFixed(1)} calls/s\n`);

const onOff = scaled("on-off", capacity, ON_OFF.seconds, ON_OFF);
const separate = keysOf({ quiet: first, flood: second });
const quiet = onOff.filter(({ tenant }) => tenant === "quiet");
const runs = {
  alone: await play("quiet alone", quiet, separate),
  fair: await play("on-off, fair share", onOff, separate),
  fcfs: await play("on-off, first come first served", onOff, () => first.key),
  overload: await play(
    "1:2 overload, fair share",
    scaled("1:2 overload", capacity, OVERLOAD_SECONDS),
    keysOf({ one: first, two: second }),
  ),
};

const quantile = (values: readonly number[], share: number) =>
  [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? Number.NaN;
const waits = (calls: readonly Call[], tenant: string) =>
  calls.flatMap((each) => (each.tenant === tenant && each.firstTokenMs !== null ? [each.firstTokenMs] : []));
const p95 = (calls: readonly Call[], tenant: string) => quantile(waits(calls, tenant), 0.95);
const refusedOf = (calls: readonly Call[]) => calls.filter(({ status }) => status !== 200).length;
const throughput = (calls: readonly Call[]) =>
  calls.reduce((sum, { tokens }) => sum + tokens, 0) / (Math.max(...calls.map(({ endMs }) => endMs)) / 1000);
/** Tokens of `one` in all tokens that ended while both had calls waiting: until the arrivals end. */
const whileBoth = runs.overload.filter(({ endMs }) => endMs > 2_000 && endMs <= OVERLOAD_SECONDS * 1000);
const tokensOf = (tenant: string) =>
  whileBoth.filter((each) => each.tenant === tenant).reduce((sum, { tokens }) => sum + tokens, 0);
const share = tokensOf("one") / (tokensOf("one") + tokensOf("two"));

console.log("| run | quiet's p50, p95 to the first token, ms | refused | tokens/s |\n|---|---|---|---|");
for (const [name, calls] of Object.entries(runs)) {
  const times = waits(calls, name === "overload" ? "one" : "quiet");
  const shown = [0.5, 0.95].map((at) => quantile(times, at).toFixed(0)).join(", ");
  console.log(`| ${name} | ${shown} | ${refusedOf(calls)} | ${throughput(calls).toFixed(0)} |`);
}
const [alone, fair, fcfs] = [p95(runs.alone, "quiet"), p95(runs.fair, "quiet"), p95(runs.fcfs, "quiet")];
console.log(
  `quiet beside the flood: ${(fair / alone).toFixed(2)} × alone, 1/${(fcfs / fair).toFixed(0)} of first come`,
);
console.log(`1:2 overload: ${(100 * share).toFixed(1)} % of the tokens go to the one that asks for less`);

const out = join(import.meta.dirname, "..", "results");
mkdirSync(out, { recursive: true });
const machine = { cores: cpus().length, processor: cpus()[0]?.model ?? "", node: process.version };
const facts = { name: "fairness-live", machine, slots: SLOTS, outputTokens: OUTPUT_TOKENS, capacity };
const results = { p95FirstTokenMs: { alone, fair, fcfs }, shareInOverload: share };
/** A line for each call; times are whole ms. */
const rowOf = ({ tenant, atMs, status, firstTokenMs, endMs, tokens }: Call) =>
  JSON.stringify([
    tenant,
    Math.round(atMs),
    status,
    firstTokenMs && Math.round(firstTokenMs),
    Math.round(endMs),
    tokens,
  ]);
const rows = Object.entries(runs).map(([name, calls]) => `"${name}": [\n${calls.map(rowOf).join(",\n")}\n]`);
const columns = ["tenant", "atMs", "status", "firstTokenMs", "endMs", "tokens"];
const head = JSON.stringify({ ...facts, ...results, columns }).slice(0, -1);
writeFileSync(join(out, "fairness-live.json"), `${head},\n${rows.join(",\n")}}\n`);
const complaints = [
  fair > 3 * alone && `the flood makes the quiet tenant wait ${(fair / alone).toFixed(1)} times as long, not 3`,
  fair > fcfs / 5 && `first come, first served makes it wait ${(fcfs / fair).toFixed(1)} times as long only`,
  Math.abs(share - 0.5) > 0.05 &&
    `the overload is split ${(100 * share).toFixed(1)} to ${(100 * (1 - share)).toFixed(1)}`,
].filter((complaint) => complaint !== false);
for (const complaint of complaints) console.error(complaint);
process.exitCode = complaints.length > 0 ? 1 : 0;
await platform.stop();
