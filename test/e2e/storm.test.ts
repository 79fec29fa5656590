import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateAdminKey } from "../../scripts/keys.mjs";
import { type Killable, startKillable } from "../crash";
import { upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";
import { type Answer, explained, type PlannedCall, perform, plannedCalls, type TokenUsage } from "../storm/calls";

/** The long form crosses several windows of a minute, and the machine dies in three of its storms. */
const LONG = { isolates: 16, storms: 8, calls: 1_250, everyMs: 20_000, kills: [1, 3, 6] };
const SHORT = { isolates: 4, storms: 2, calls: 200, everyMs: 0, kills: [0] };
const { isolates, storms, calls, everyMs, kills } = process.env.PROVE ? LONG : SHORT;
const LANES = 32;
/** Longer than any wait for what is held where nobody died: what only its deadline frees was not freed. */
const DEADLINE_MS = process.env.PROVE ? 5_000 : 8_000;
/** A busy machine's alarms come late. */
const SLACK_MS = process.env.PROVE ? 0 : 4_000;
const MINUTE_MS = 60_000;
/** Between a draw by the isolate's clock and its arrival at the upstream by the upstream's. */
const TRAVEL_MS = 1_000;
const PRICES = {
  price_version: "storm-1",
  cost_version: "storm-1",
  models: { mock: { price: { input: 10, output: 100 }, cost: { input: 4, output: 40 } } },
};
/** A tenant for each kind of rule, and one that none can reach. */
const PER_MINUTE = process.env.PROVE ? 300 : 40;
const TENANTS = [
  { name: "requests", requestsPerMinute: PER_MINUTE, tokensPerMinute: 100_000_000 },
  { name: "tokens", requestsPerMinute: 1_000_000, tokensPerMinute: PER_MINUTE * 100 },
  { name: "money", requestsPerMinute: 1_000_000, tokensPerMinute: 100_000_000, cents: PER_MINUTE / 20 },
  { name: "free", requestsPerMinute: 1_000_000, tokensPerMinute: 100_000_000 },
] as const;

const folder = mkdtempSync(join(tmpdir(), "tenantry-storm-"));
const adminKey = generateAdminKey();
const tenants: TestTenant[] = [];
let mock: MockUpstream;
let platform: Killable;
let operator: Operator;
/** The tenant's client on the platform that runs now; each start has ports of its own. */
const clientOf = ({ client }: TestTenant) => client.withOptions({ baseURL: `${platform.url}/v1` });

const start = async () => {
  platform = await startKillable({
    bundle: "production",
    isolates,
    persistTo: folder,
    adminKey,
    vars: {
      UPSTREAM_URL: mock.url,
      MODEL_CATALOGUE: { version: "storm", models: [upstreamModel("mock")] },
      PRICES,
      LEASE_MAX: 16,
      REQUEST_DEADLINE_MS: DEADLINE_MS,
    },
  });
  operator = new Operator(platform.url, adminKey);
};
const admin = (method: string, path: string, body: object) =>
  fetch(`${platform.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${adminKey}` },
    body: JSON.stringify(body),
  });

beforeAll(async () => {
  mock = await MockUpstream.start({ tokens: 30, tokenMs: 1 });
  await start();
  for (const limits of TENANTS) {
    const tenant = await operator.createTenant({ ...limits, model: "mock" });
    // Out of reach, and over a day: what it says was taken is all that was.
    const perDay = { scope: "project", metric: "tokens", window: "day", limit: 1_000_000_000, mode: "hard" };
    const changed = { in_flight: 1_000, limits: [perDay] };
    expect((await admin("POST", `/v1/tenantry/projects/${tenant.projectId}/limits`, changed)).status).toBe(200);
    if ("cents" in limits) {
      const budget = { threshold_amount: limits.cents, currency: "USD", interval: "month" };
      await admin("POST", `/v1/organization/projects/${tenant.projectId}/spend_limit`, budget);
    }
    tenants.push(tenant);
  }
});
afterAll(async () => {
  await platform.kill();
  await mock.stop();
  rmSync(folder, { recursive: true, force: true });
});

const at = <T>(list: readonly T[], index: number): T => list[index] as T;

/** Callers wait for it: they would only see closed ports. */
let restarted: Promise<void> | undefined;

/** Callers in lanes, each with one call at a time; told of every answer. */
async function storm(planned: readonly PlannedCall[], onAnswer: (answered: number) => void): Promise<Answer[]> {
  const answers: Answer[] = [];
  const waiting = [...planned];
  const lane = async () => {
    for (let call = waiting.pop(); call; call = waiting.pop()) {
      await restarted;
      if (call.fate.type === "provider_fails") mock.once(call.fate.script);
      answers.push(await perform(call, at(platform.urls, call.isolate), at(tenants, call.tenant).key));
      onAnswer(answers.length);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return answers;
}

/** What any rule of any tenant holds. */
async function held(): Promise<{ held: number; running: number }> {
  const states = await Promise.all(
    tenants.map(async (tenant) => {
      const reply = await clientOf(tenant).get("/tenantry/limits");
      return reply as { in_flight: { running: number }; limits: { held: number }[] };
    }),
  );
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  return {
    held: sum(states.flatMap(({ limits }) => limits.map((each) => each.held))),
    running: sum(states.map(({ in_flight }) => in_flight.running)),
  };
}

interface Decision {
  readonly request_id: string;
  readonly kind: string;
  readonly outcome: string;
  readonly usage: TokenUsage;
}

async function decisionsOf(tenant: TestTenant): Promise<Decision[]> {
  const found: Decision[] = [];
  for (let after = ""; ; ) {
    const page = (await clientOf(tenant).get(`/tenantry/decisions?limit=100${after}`)) as {
      data: Decision[];
      has_more: boolean;
      last_id: string;
    };
    found.push(...page.data);
    if (!page.has_more) return found;
    after = `&after=${page.last_id}`;
  }
}

const recordedOf = async (tenant: TestTenant) =>
  (await decisionsOf(tenant)).filter(({ kind }) => kind === "model_call");
const tokensOf = ({ usage }: Pick<Decision, "usage">) => usage.prompt_tokens + usage.completion_tokens;
/** Calls that nobody reported: booked at their worst case. */
const unreconciled = async () =>
  (await Promise.all(tenants.map(recordedOf))).flat().filter(({ outcome }) => outcome === "unreconciled").length;

/** The most calls of a tenant that reached the upstream in any span of so many ms. */
function mostWithin(tenant: number, spanMs: number): number {
  const times = mock.requests
    .filter(({ body }) => String(body.messages?.[0]?.content).startsWith(`tenant-${tenant} `))
    .map(({ atMs }) => atMs);
  let [most, first] = [0, 0];
  for (const [index, time] of times.entries()) {
    while (time - at(times, first) >= spanMs) first++;
    most = Math.max(most, index - first + 1);
  }
  return most;
}

describe(`${storms * calls} calls of four tenants over ${isolates} isolates, with callers that leave, providers that fail, machines that die`, () => {
  const answers: Answer[] = [];

  it("leave nothing held: within two seconds of the last one's end, or a deadline after the machine's death", {
    timeout: 600_000,
  }, async () => {
    const planned = plannedCalls(TENANTS.length, isolates, storms * calls, 20_261_124);
    let lost = 0;
    for (let round = 0; round < storms; round++) {
      const startedMs = Date.now();
      let death: Promise<number> | undefined;
      restarted = undefined;
      const part = planned.slice(round * calls, (round + 1) * calls);
      const ended = await storm(part, (answered) => {
        if (kills.includes(round) && answered > calls / 2) {
          death ??= platform.kill().then(() => Date.now());
          restarted ??= death.then(start);
        }
      });
      answers.push(...ended);
      const lostBefore = death ? undefined : lost;
      const sinceDeathMs = death ? Date.now() - (await death) : Number.POSITIVE_INFINITY;
      const timeout = SLACK_MS + Math.max(2_000, DEADLINE_MS + 1_000 - sinceDeathMs);
      await expect.poll(held, { interval: 50, timeout }).toEqual({ held: 0, running: 0 });
      lost = await unreconciled();
      // Where no machine died, every call was reported by whoever ran it: nothing is left to be booked at its worst.
      if (lostBefore !== undefined) expect(lost).toBe(lostBefore);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, startedMs + everyMs - Date.now())));
    }
  });

  it("end in ways that exist, each of them often", () => {
    const ends = Map.groupBy(answers, ({ status }) => status);
    expect(answers).toHaveLength(storms * calls);
    expect([...ends.keys()].filter((status) => ![200, 429, 502, null].includes(status))).toEqual([]);
    for (const status of [200, 429, 502, null]) {
      expect(ends.get(status)?.length, `calls that ended with ${status}`).toBeGreaterThan(answers.length / 200);
    }
  });

  it("are refused only where what was settled and held left no room for them", () => {
    const refused = answers.filter(({ error }) => error); // those that stayed to read it
    const said = refused.map(explained);
    expect(said.filter(({ wanted, limit }) => wanted <= limit)).toEqual([]);
    const rules = new Set(said.map(({ rule }) => rule));
    expect([...rules].sort()).toEqual(["monthly_spend", "requests_per_minute", "tokens_per_minute"]);
    expect(refused.filter(({ call }) => at(TENANTS, call.tenant).name === "free")).toEqual([]);
    // The limits that they were told are those that the operator set.
    const limits = new Set(said.map(({ rule, limit }) => `${rule} ${limit}`));
    expect([...limits].sort()).toEqual([
      `monthly_spend ${PER_MINUTE * 500}`,
      `requests_per_minute ${PER_MINUTE}`,
      `tokens_per_minute ${PER_MINUTE * 100}`,
    ]);
  });

  it("reach the provider at most as often as the limit says, in every minute by the provider's clock", () => {
    const most = mostWithin(0, MINUTE_MS - TRAVEL_MS);
    expect(most).toBeLessThanOrEqual(PER_MINUTE);
    expect(most).toBeGreaterThan(PER_MINUTE / 2); // the limit was what bounded them
  });

  it("spend at most the budget", async () => {
    const states = (await clientOf(at(tenants, 2)).get("/tenantry/limits")) as {
      limits: { rule: string; settled: number; limit: number }[];
    };
    const spend = states.limits.find(({ rule }) => rule === "monthly_spend");
    expect(spend?.settled).toBeGreaterThan(0);
    expect(spend?.settled).toBeLessThanOrEqual(spend?.limit ?? 0);
  });

  it("are each recorded and billed once, those whose reply arrived whole among them, by what it said", async () => {
    for (const [index, tenant] of tenants.entries()) {
      const recorded = await recordedOf(tenant);
      const byId = new Map(recorded.map((decision) => [decision.request_id, decision]));
      expect(byId.size).toBe(recorded.length);
      const usage = await operator.usage(tenant.projectId);
      expect(usage.requests).toBe(byId.size);
      expect(usage.inputTokens + usage.outputTokens).toBe(recorded.reduce((sum, each) => sum + tokensOf(each), 0));
      const whole = answers.filter(({ call, isWhole }) => call.tenant === index && isWhole);
      expect(whole.filter(({ requestId }) => byId.get(requestId ?? "")?.outcome !== "completed")).toEqual([]);
      const told = whole.flatMap(({ requestId, usage }) => (usage ? [{ requestId, usage }] : []));
      expect(told.length).toBeGreaterThan(0);
      for (const { requestId, usage } of told) {
        const { prompt_tokens, completion_tokens } = usage;
        expect(byId.get(requestId ?? "")?.usage).toEqual({ prompt_tokens, completion_tokens });
      }
    }
  });

  it("count against their limits exactly what was recorded of them, in tokens and in money", async () => {
    for (const tenant of tenants) {
      const { limits } = (await clientOf(tenant).get("/tenantry/limits")) as {
        limits: { rule: string; settled: number }[];
      };
      const settled = (name: string) => limits.find(({ rule }) => rule === name)?.settled;
      const recorded = (await recordedOf(tenant)).reduce((sum, decision) => sum + tokensOf(decision), 0);
      expect(settled("project_tokens_per_day")).toBe(recorded);
      const spent = settled("monthly_spend");
      if (spent === undefined) continue;
      const start = Math.floor(Date.now() / 1_000) - 86_400;
      const costs = await operator.client.admin.organization.usage.costs({
        ...{ start_time: start, project_ids: [tenant.projectId] },
      });
      const results = costs.data.flatMap(({ results }) => results) as { amount?: { value?: number } }[];
      const dollars = results.reduce((sum, { amount }) => sum + Number(amount?.value ?? 0), 0);
      expect(Math.round(dollars * 1_000_000)).toBe(spent);
    }
  });
});
