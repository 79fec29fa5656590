import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { clientOf, Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
beforeAll(async () => {
  platform = await startPlatform({ bundle: "local", isolates: 2 });
  operator = new Operator(platform.url, platform.adminKey);
});
afterAll(() => platform.stop());

const PROMPT =
  "I ordered a lamp two weeks ago and it has still not arrived, and nobody answers me. What can I do about that now?";

/** @returns what was said, and how much of the prompt was known already */
async function ask({ client }: TestTenant, headers: Record<string, string> = {}): Promise<[string, number]> {
  const reply = await client.chat.completions.create(
    {
      model: "tiny-support-lm",
      messages: [{ role: "user", content: PROMPT }],
      max_completion_tokens: 8,
      temperature: 0,
    },
    { headers },
  );
  return [reply.choices[0]?.message.content ?? "", reply.usage?.prompt_tokens_details?.cached_tokens ?? 0];
}

describe("what was computed of a prompt", () => {
  it("is shared between calls of one tenant, and never with another's, not even by a header that says so", async () => {
    const [acme, globex] = [await operator.createTenant(), await operator.createTenant()];
    const [said, known] = await ask(acme);
    expect(known).toBe(0);
    const again = await ask(acme);
    expect(again[0]).toBe(said);
    expect(again[1]).toBeGreaterThan(16);
    expect(await ask(globex)).toEqual([said, 0]);
    expect(await ask(globex)).toEqual(again);
    const stranger = await operator.createTenant();
    expect(await ask(stranger, { "x-session-affinity": "acme" })).toEqual([said, 0]);
  });

  it("belongs to the end user where there is one: not to another, and not to the tenant's own keys", async () => {
    const acme = await operator.createTenant();
    const endUser = async (subject: string): Promise<TestTenant> => {
      const { value } = await acme.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } });
      return { ...acme, client: clientOf(platform.url, { apiKey: value }) };
    };
    const [said, known] = await ask(await endUser("ann"));
    expect(known).toBe(0);
    expect((await ask(await endUser("ann")))[1]).toBeGreaterThan(16); // the control: her own, by another token
    expect(await ask(await endUser("ben"))).toEqual([said, 0]);
    expect(await ask(acme)).toEqual([said, 0]);
    expect(await ask(await endUser("cyd"))).toEqual([said, 0]);
    expect((await ask(acme))[1]).toBeGreaterThan(16);
  });
});
