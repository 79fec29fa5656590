import { describe, expect, it } from "vitest";
import { promptAffinity } from "../../../src/pipeline/affinity";
import type { Actor, TenantContext } from "../../../src/tenancy/context";
import { enterForCaller } from "../../../src/tenancy/jobs";

const KEY: Actor = { type: "api_key", keyId: "key_1", serviceAccountId: "svc_1" };
const endUser = (subject: string, keyId = "key_1"): Actor => ({
  ...{ type: "end_user", keyId, subject, models: null, requestsPerMinute: null },
});
const caller = (actor: Actor, tenantId = "proj_a"): TenantContext =>
  enterForCaller({ tenantId, region: "global", isolation: "pool" }, actor);
const SAME = [{ role: "user" as const, content: "hello" }];

describe("what was computed of a prompt's beginning", () => {
  it("is shared with nobody else: not with another tenant, another end user, or the tenant's own keys", async () => {
    const callers = [
      caller(KEY),
      caller(KEY, "proj_b"),
      caller(endUser("ann")),
      caller(endUser("ben")),
      caller(endUser("ann"), "proj_b"),
      caller(endUser("null")),
      caller(endUser("")),
    ];
    const all = await Promise.all(callers.map((each) => promptAffinity(each, "m", SAME)));
    expect(new Set(all).size).toBe(callers.length);
    for (const one of all) expect(one).toMatch(/^[0-9a-f]{32}$/);
  });

  it("is shared between calls of one tenant's keys, and between those of one end user, whoever minted its token", async () => {
    const other: Actor = { type: "api_key", keyId: "key_2", serviceAccountId: "svc_2" };
    expect(await promptAffinity(caller(other), "m", SAME)).toBe(await promptAffinity(caller(KEY), "m", SAME));
    const again = promptAffinity(caller(endUser("ann", "key_2")), "m", SAME);
    expect(await again).toBe(await promptAffinity(caller(endUser("ann")), "m", SAME));
  });

  it("depends on the model and on the first message alone", async () => {
    const of = (model: string, first: string, ...more: string[]) =>
      promptAffinity(
        caller(KEY),
        model,
        [first, ...more].map((content) => ({ role: "user" as const, content })),
      );
    expect(await of("m", "a", "b")).toBe(await of("m", "a", "c"));
    expect(await of("m", "a")).not.toBe(await of("n", "a"));
    expect(await of("m", "a")).not.toBe(await of("m", "b"));
  });
});
