import { describe, expect, it } from "vitest";
import type { Scope } from "../../src/tenancy/context";
import { freshGate } from "./gate";

const CALL = {
  kind: "completions",
  route: "/v1/chat/completions",
  model: "m",
  provider: "workers-ai",
  providerModel: "@cf/m",
  serviceTier: "default",
  stream: false,
  promptTokens: 10,
  outputTokens: 20,
  outputLowerable: false,
  choices: 1,
  patienceMs: 0,
  holdMs: 60_000,
} as const;

describe("a call that comes along with a credential", () => {
  const cases: [scopes: Scope[], endUser: boolean, admitted: boolean][] = [
    [["data"], false, true],
    [["data", "account"], false, true],
    [["account"], false, false],
    [["data", "account"], true, true],
    [["data"], true, false],
    [["account"], true, false],
    [["admin"], false, false],
    [["admin"], true, false],
  ];
  it.each(cases)("of a key with %j, of an end user: %s, is admitted: %s", async (scopes, isEndUser, admitted) => {
    const { change, gate, tenantId } = await freshGate();
    const hash = tenantId.slice(5).padEnd(64, "1").slice(0, 64);
    const facts = { hash, redactedValue: "…", name: "k", serviceAccountId: "svc", expiresAtMs: null };
    await change({ type: "create_key", id: "scoped", ...facts, scopes });
    const endUser = isEndUser ? { subject: "ann", requestsPerMinute: null } : null;
    const call = { ...CALL, requestId: crypto.randomUUID(), endUser };
    const reply = await gate.bind({ credential: { keyId: "scoped" }, knownPolicyVersion: null, call });
    expect(reply).toMatchObject({ bound: true, key: { scopes } });
    expect(reply.bound && (reply.admission?.admitted ?? false)).toBe(admitted);
    expect((await gate.limits(["m"]))?.inFlight.running).toBe(admitted ? 1 : 0); // what is refused holds nothing
  });
});
