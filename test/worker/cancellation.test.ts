import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import worker from "../../src/index";
import { generateKey, hashKey } from "../../src/tenancy/keys";
import { ALL, freshGate } from "./gate";

const MODEL = "glm-4.7-flash";

/** The gates, telling when a call is on its way to one: messages arrive in the order in which they were sent. */
function watchedGates(called: () => void) {
  const getByName = (name: string) => {
    const gate = env.TENANT_GATE.getByName(name) as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    const send = (method: string, args: unknown[]) => {
      const reply = gate[method]?.(...args);
      if (method === "bind" || method === "admit") called();
      return reply;
    };
    return new Proxy(gate, {
      get:
        (_, method: string) =>
        (...args: unknown[]) =>
          send(method, args),
    });
  };
  return { getByName };
}

/** Workers AI that answers nothing until its test is over. */
function silentModel() {
  const asked = Promise.withResolvers<void>();
  const run = () => {
    asked.resolve();
    return new Promise<never>(() => {});
  };
  return { binding: { run }, asked: asked.promise };
}

async function callerOf(model: { readonly run: () => Promise<never> }) {
  const { gate, change, admit, finish } = await freshGate();
  const key = generateKey("tenant");
  const facts = { redactedValue: "…", name: "k", serviceAccountId: "svc", expiresAtMs: null };
  await change({ type: "create_key", id: crypto.randomUUID(), hash: await hashKey(key), ...facts, scopes: ["data"] });
  const arrived = Promise.withResolvers<void>();
  const call = (stream: boolean, signal: AbortSignal) => {
    const context = createExecutionContext();
    const request = new Request("http://platform/v1/chat/completions", {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "hi" }], stream }),
      signal,
    });
    const environment = { ...env, AI: model, TENANT_GATE: watchedGates(arrived.resolve) };
    const reply = worker.fetch(request as never, environment, context) as Promise<Response>;
    return { reply, settled: () => waitOnExecutionContext(context) };
  };
  return { gate, call, atGate: arrived.promise, admit, finish, change };
}

/** A connection that closes shows as the request's signal; the local server never lets it show, so it is given here. */
describe("a client that goes away before the first token", () => {
  it.each([
    ["of a stream", true],
    ["of a whole reply", false],
  ])("%s: the call ends at once, is billed its prompt alone, and nothing stays held", async (_, stream) => {
    const model = silentModel();
    const { gate, call } = await callerOf(model.binding);
    const abort = new AbortController();
    const { reply, settled } = await call(stream, abort.signal);
    await model.asked;
    abort.abort();
    expect((await reply).status).toBe(499);
    await settled();
    const { rows } = await gate.decisions(ALL);
    const [decision, ...others] = rows.map((row) => row.decision);
    expect(others).toEqual([]);
    expect(decision).toMatchObject({ outcome: "cancelled", completionTokens: 0 });
    expect(decision?.promptTokens).toBeGreaterThan(0);
    const limits = await gate.limits([MODEL]);
    expect(limits?.inFlight.running).toBe(0);
    expect(limits?.limits.filter(({ held }) => held !== 0)).toEqual([]);
  });
});

describe("a client that goes away while its admission waits for a lease to come back", () => {
  it("is not billed, holds nothing, and its model is never asked", async () => {
    const model = silentModel();
    const { gate, call, atGate, admit, finish, change } = await callerOf(model.binding);
    await change({ type: "set_model_limits", model: MODEL, requestsPerMinute: 20, tokensPerMinute: 1e9 });
    const leaser = await admit("leaser", { model: MODEL, wantedDraws: 16 });
    const draws = leaser.admitted ? (leaser.lease?.draws ?? 0) : 0;
    expect(draws).toBeGreaterThan(0);
    const others = Array.from({ length: 19 - draws }, (_, index) => `r${index}`);
    for (const reply of await Promise.all(others.map((id) => admit(id, { model: MODEL })))) {
      expect(reply.admitted).toBe(true);
    }
    const abort = new AbortController();
    const { reply, settled } = await call(false, abort.signal);
    await atGate; // where the lease alone stands in its way
    abort.abort();
    await gate.returnLease({ leaseId: "leaser", running: [] });
    expect((await reply).status).toBe(499);
    await settled();
    await Promise.all(["leaser", ...others].map((id) => finish(id)));
    const limits = await gate.limits([MODEL]);
    expect(limits?.inFlight.running).toBe(0);
    expect(limits?.limits.filter(({ held }) => held !== 0)).toEqual([]);
    const { rows } = await gate.decisions(ALL);
    expect(rows.map(({ decision }) => decision.outcome)).toEqual(["leaser", ...others].map(() => "completed"));
  });
});
