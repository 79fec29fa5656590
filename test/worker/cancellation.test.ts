import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import worker from "../../src/index";
import { generateKey, hashKey } from "../../src/tenancy/keys";
import { ALL, freshGate } from "./gate";

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
  const { gate, change } = await freshGate();
  const key = generateKey("tenant");
  const facts = { redactedValue: "…", name: "k", serviceAccountId: "svc", expiresAtMs: null };
  await change({ type: "create_key", id: crypto.randomUUID(), hash: await hashKey(key), ...facts, scopes: ["data"] });
  const call = (stream: boolean, signal: AbortSignal) => {
    const context = createExecutionContext();
    const request = new Request("http://platform/v1/chat/completions", {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: "glm-4.7-flash", messages: [{ role: "user", content: "hi" }], stream }),
      signal,
    });
    const reply = worker.fetch(request as never, { ...env, AI: model }, context) as Promise<Response>;
    return { reply, settled: () => waitOnExecutionContext(context) };
  };
  return { gate, call };
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
    const limits = await gate.limits(["glm-4.7-flash"]);
    expect(limits?.inFlight.running).toBe(0);
    expect(limits?.limits.filter(({ held }) => held !== 0)).toEqual([]);
  });
});
