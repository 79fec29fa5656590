import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";

const SLOTS = 3;
const TOKENS = 4;
let platform: Platform;
let operator: Operator;
let mocks: MockUpstream[];

beforeAll(async () => {
  mocks = await Promise.all([1, 2, 3].map(() => MockUpstream.start({ tokens: TOKENS, firstByteMs: 10 })));
  const models = [
    upstreamModel("scarce", { max_in_flight: SLOTS }),
    upstreamModel("spread", { max_in_flight: 1 }),
    upstreamModel("plenty"),
  ];
  const vars = { UPSTREAM_URL: mocks[0]?.url, MODEL_CATALOGUE: { version: "1", models } };
  platform = await startPlatform({ bundle: "production", isolates: 2, vars });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(async () => {
  await platform.stop();
  for (const mock of mocks) await mock.stop();
});
beforeEach(() => {
  for (const { counters } of mocks) counters.maxSequences = 0;
});

const limits = { requestsPerMinute: 100_000, tokensPerMinute: 100_000_000 };
interface Answer {
  readonly status: number;
  readonly choices: readonly number[];
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number } | undefined;
}
async function call(tenant: TestTenant, index: number, model: string, n: number, stream = false): Promise<Answer> {
  const reply = await fetch(`${platform.urls[index % 2]}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.key}` },
    body: JSON.stringify({
      ...{ model, n, max_completion_tokens: 8, messages: [{ role: "user", content: "hi" }], stream },
      ...(stream ? { stream_options: { include_usage: true } } : {}),
    }),
  });
  const text = await reply.text();
  interface Choice {
    readonly index: number;
    readonly finish_reason: string | null;
    readonly message?: { readonly content: string };
    readonly delta?: { readonly content?: string };
  }
  type Body = { choices?: Choice[]; usage?: Answer["usage"] };
  const bodies = stream
    ? [...text.matchAll(/^data: (\{.*\})$/gm)].map(([, json = ""]) => JSON.parse(json) as Body)
    : [JSON.parse(text) as Body];
  const ended = bodies.flatMap(({ choices = [] }) => choices.filter(({ finish_reason }) => finish_reason !== null));
  const texts = new Map<number, string>();
  for (const { index: choice, message, delta } of bodies.flatMap(({ choices = [] }) => choices)) {
    texts.set(choice, (texts.get(choice) ?? "") + (message?.content ?? delta?.content ?? ""));
  }
  if (reply.status === 200) {
    expect(new Set(texts.values()), "every choice says the same").toEqual(new Set(["one two three four"]));
  }
  const usage = bodies.map((body) => body.usage).findLast((each) => each);
  return { status: reply.status, choices: ended.map(({ index: choice }) => choice).sort((a, b) => a - b), usage };
}
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

describe("a call of several choices on a scarce model", () => {
  it.each([false, true])(
    "runs no more of them at once than there are slots, beside others, and answers all (stream: %s)",
    async (stream) => {
      const [mock] = mocks as [MockUpstream];
      const tenants: TestTenant[] = [];
      for (let made = 0; made < 2; made++) tenants.push(await operator.createTenant({ ...limits, model: "scarce" }));
      const sizes = [16, 1, 7, 2, 1, 3, 5, 1];
      const answers = await Promise.all(
        sizes.map((n, index) => call(tenants[index % 2] as TestTenant, index, "scarce", n, stream)),
      );
      expect(answers.map(({ status, choices }) => ({ status, choices }))).toEqual(
        sizes.map((n) => ({ status: 200, choices: upTo(n) })),
      );
      expect(answers.map(({ usage }) => usage?.completion_tokens)).toEqual(sizes.map((n) => n * TOKENS));
      expect(new Set(answers.map(({ usage }) => usage?.prompt_tokens)).size, "the prompt counts once").toBe(1);
      expect(mock.counters.maxSequences).toBe(SLOTS);
      expect(mock.counters.sequences).toBe(0);
      const used = await Promise.all(tenants.map(({ projectId }) => operator.usage(projectId)));
      const outputTokens = sizes.reduce((sum, n) => sum + n * TOKENS, 0);
      expect(used.reduce((sum, each) => sum + each.outputTokens, 0)).toBe(outputTokens);
    },
  );

  it("runs all of them at once where there is room, in one call of the model", async () => {
    const [mock] = mocks as [MockUpstream];
    const tenant = await operator.createTenant({ ...limits, model: "scarce" });
    const before = mock.counters.calls;
    expect(await call(tenant, 0, "scarce", SLOTS)).toMatchObject({ status: 200, choices: upTo(SLOTS) });
    expect(mock.counters.calls - before).toBe(1);
    expect(await call(tenant, 0, "plenty", 16)).toMatchObject({ status: 200, choices: upTo(16) });
    expect(mock.counters.calls - before).toBe(2);
  });

  it("keeps to the size of each endpoint", async () => {
    const admin = (url: string, max_in_flight: number) =>
      fetch(`${platform.url}/v1/tenantry/models/spread/endpoints`, {
        method: "POST",
        headers: { authorization: `Bearer ${platform.adminKey}` },
        body: JSON.stringify({ url, max_in_flight }),
      });
    const sizes = [2, 4];
    for (const [at, size] of sizes.entries()) expect((await admin(mocks[at + 1]?.url ?? "", size)).status).toBe(200);
    const tenant = await operator.createTenant({ ...limits, model: "spread" });
    const asked = [16, 3, 1, 2, 8, 1, 1, 5];
    const answers = await Promise.all(asked.map((n, index) => call(tenant, index, "spread", n)));
    expect(answers.map(({ choices }) => choices.length)).toEqual(asked);
    for (const [at, size] of sizes.entries()) {
      const { maxSequences, sequences } = (mocks[at + 1] as MockUpstream).counters;
      expect([maxSequences, sequences]).toEqual([size, 0]);
    }
  });
});
