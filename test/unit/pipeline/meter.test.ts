import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { meter, promptAlone } from "../../../src/pipeline/meter";
import type { ModelCall, Output } from "../../../src/pipeline/model-call";
import type { ChatRequest } from "../../../src/pipeline/model-request";
import { CATALOGUE, callOf, chatRequest, outputOf } from "./calls";

const text = (words: string, choice = 0): Output => ({ type: "text", choice, text: words });
const finish = (choice = 0): Output => ({ type: "finish", choice, reason: "stop" });
const usage = { type: "usage", promptTokens: 11, cachedTokens: 3, completionTokens: 5 } as const;

/** What a caller gets of a model's output through the meter, and the call as it is then. */
async function metered(deltas: readonly Output[], cap: number, request: Partial<ChatRequest> = {}) {
  const call = callOf(chatRequest(request));
  call.model = CATALOGUE.find("plain") as ModelCall["model"];
  call.reservation = { outputTokens: cap, promptTokens: 100, rates: [], leaseId: null };
  call.output = outputOf(...deltas);
  await meter(call);
  const seen: Output[] = [];
  for await (const delta of call.output) seen.push(delta);
  return { call, seen };
}

describe("the meter", () => {
  it("bills what the provider says, where it says something", async () => {
    const { call, seen } = await metered([text("a"), text("b"), finish(), usage], 10);
    const { type: _, ...counted } = usage;
    expect(call.usage).toEqual({ ...counted, estimated: false });
    expect(seen).toHaveLength(4);
  });

  it("else counts a token for each delta of a stream, and the prompt's bytes by four", async () => {
    const { call } = await metered([text("a"), text("b b b b b b b b"), finish()], 10);
    expect(call.usage).toEqual({ promptTokens: 2, cachedTokens: 0, completionTokens: 2, estimated: true });
  });

  it("counts the bytes of a whole reply, which comes at once, and never more than its cap", async () => {
    const whole = { stream: false };
    expect((await metered([text("a".repeat(9)), finish()], 10, whole)).call.usage.completionTokens).toBe(3);
    expect((await metered([text("ä".repeat(6)), finish()], 10, whole)).call.usage.completionTokens).toBe(3);
    const tool: Output = { type: "tool_call", choice: 0, index: 0, id: "c", name: "f", arguments: "12345678" };
    expect((await metered([tool, finish()], 10, whole)).call.usage.completionTokens).toBe(2);
    expect((await metered([text("a".repeat(900)), finish()], 10, whole)).call.usage.completionTokens).toBe(10);
  });

  it("cuts every choice at the cap, tells so, and stops the model when the last of them is cut", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.nat(2), { maxLength: 30 }),
        async (choices, cap, order) => {
          const deltas = order.map((choice) => text("x", choice % choices));
          const { call, seen } = await metered(deltas, cap, { choices });
          const made = (choice: number) =>
            deltas.filter((delta) => "choice" in delta && delta.choice === choice).length;
          const all = Array.from({ length: choices }, (_, choice) => made(choice));
          const got = (choice: number, type: string) =>
            seen.filter((delta) => "choice" in delta && delta.choice === choice && delta.type === type).length;
          // Once every choice is over its cap the model is stopped; until then each choice gets its own share.
          const isOver = all.every((count) => count > cap);
          expect(call.stoppedBy).toBe(isOver ? "cap" : undefined);
          for (const [choice, count] of all.entries()) {
            expect(got(choice, "text")).toBe(Math.min(count, cap));
            expect(got(choice, "finish")).toBe(count > cap ? 1 : 0);
          }
          expect(call.usage.completionTokens).toBe(
            order.length === 0 ? 0 : all.reduce((sum, n) => sum + Math.min(n, cap), 0),
          );
        },
      ),
    );
  });

  it("shows nothing more of a choice that it cut, its end included", async () => {
    const { seen } = await metered([text("a"), text("b"), text("c"), finish(), text("z", 1)], 1, { choices: 2 });
    expect(seen).toEqual([text("a"), { type: "finish", choice: 0, reason: "length" }, text("z", 1)]);
  });

  it("takes a usage that cannot be true for none, and flags it", async () => {
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    const { call, seen } = await metered(
      [text("a"), { type: "usage_rejected", reported: "-1" } as Output, finish()],
      10,
    );
    expect(call.usageRejected).toBe(true);
    expect(call.usage).toMatchObject({ completionTokens: 1, estimated: true });
    expect(seen.map(({ type }) => type)).toEqual(["text", "finish"]);
    log.mockRestore();
  });

  it("knows when the first token came, and keeps it", async () => {
    const { call } = await metered([text("a"), text("b")], 10);
    expect(call.firstTokenMs).toBeGreaterThan(0);
  });
});

describe("a model that was stopped before it answered", () => {
  it("has read the prompt: that is billed, by its bytes, and nothing else", () => {
    const messages = [
      { role: "system", content: "1234" },
      { role: "user", content: "ää5" },
    ] as ChatRequest["messages"];
    expect(promptAlone(chatRequest({ messages }))).toEqual({
      ...{ promptTokens: 3, cachedTokens: 0, completionTokens: 0, estimated: true },
    });
    const embedding = { kind: "embeddings", model: "embed", serviceTier: "default", stream: false } as const;
    expect(promptAlone({ ...embedding, inputs: ["12345678", "1"] }).promptTokens).toBe(3);
  });
});
