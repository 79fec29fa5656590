import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { meter, promptAlone } from "../../../src/pipeline/meter";
import type { ModelCall, Output } from "../../../src/pipeline/model-call";
import type { ChatRequest } from "../../../src/pipeline/model-request";
import { CATALOGUE, callOf, chatRequest, outputOf } from "./calls";

const text = (words: string, choice = 0): Output => ({ type: "text", choice, text: words });
const finish = (choice = 0): Output => ({ type: "finish", choice, reason: "stop" });
const usage = (promptTokens: number, completionTokens: number): Output => ({
  ...{ type: "usage", promptTokens, cachedTokens: 0, completionTokens },
});
/** Each is one token of every tokenizer here. */
const words = (count: number, choice = 0) => Array.from({ length: count }, () => text(" word", choice));

interface Metering extends Partial<ChatRequest> {
  readonly cap?: number;
  readonly promptTokens?: number;
}
async function metered(deltas: readonly Output[], { cap = 10, promptTokens = 100, ...request }: Metering = {}) {
  const call = callOf(chatRequest(request));
  call.model = CATALOGUE.find(request.model ?? "counted") as ModelCall["model"];
  call.reservation = { outputTokens: cap, promptTokens, rates: [], leaseId: null };
  call.output = outputOf(...deltas);
  await meter(call);
  const seen: Output[] = [];
  for await (const delta of call.output) seen.push(delta);
  return { call, seen };
}

beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
afterEach(() => void vi.restoreAllMocks());

describe("the meter", () => {
  it("bills what the provider says, wherever in the reply it says it", async () => {
    for (const at of [0, 1, 2]) {
      const deltas = [text("a"), text(" b"), finish()];
      deltas.splice(at, 0, { ...usage(11, 5), cachedTokens: 3 } as Output);
      const { call, seen } = await metered(deltas);
      expect(call.usage).toEqual({ promptTokens: 11, cachedTokens: 3, completionTokens: 5, estimated: false });
      expect(call.usageRejected).toBe(false);
      expect(seen).toHaveLength(4);
    }
  });

  it("takes the last of several counts", async () => {
    const { call } = await metered([text("a"), usage(11, 1), text(" b"), usage(11, 2), finish(), usage(11, 3)]);
    expect(call.usage).toMatchObject({ promptTokens: 11, completionTokens: 3, estimated: false });
  });

  it("else counts texts and calls of tools by the model's tokenizer, the same however they are cut", async () => {
    const whole = "The quick brown fox jumps over the lazy dog and runs away into the deep forest.";
    for (const pieces of [[whole], [...whole], whole.split(/(?= )/)]) {
      const { call } = await metered([...pieces.map((piece) => text(piece)), finish()], { cap: 40 });
      expect(call.usage).toEqual({ promptTokens: 3, cachedTokens: 0, completionTokens: 17, estimated: true });
    }
    const tool: Output = { type: "tool_call", choice: 0, index: 0, id: "c", name: "look_up", arguments: '{"id":1}' };
    const { call } = await metered([tool, finish()], { stream: false });
    expect(call.usage.completionTokens).toBe(7);
  });

  it("never believes a count that leaves out what has come, or a prompt of none: its own stands, and that is flagged", async () => {
    for (const [prompt, completion] of [
      [11, 0],
      [11, 4],
      [0, 10],
    ]) {
      const { call } = await metered([...words(10), finish(), usage(prompt ?? 0, completion ?? 0)]);
      expect(call.usage).toMatchObject({ promptTokens: 3, completionTokens: 10, estimated: true });
      expect(call.usageRejected).toBe(true);
    }
    const { call } = await metered([...words(10), finish(), usage(11, 5)]); // its tokenizer may be another one
    expect(call.usage).toMatchObject({ completionTokens: 5, estimated: false });
    const long = await metered([...words(200), finish(), usage(11, 90)], { cap: 300 });
    expect(long.call.usage).toMatchObject({ completionTokens: 200, estimated: true });
  });

  it("tells what is counted, and that no more than was reserved is billed of it", async () => {
    const { call } = await metered([text("a"), finish(), { ...usage(50, 99), cachedTokens: 40 } as Output], {
      ...{ cap: 10, promptTokens: 20 },
    });
    expect(call.usage).toMatchObject({ promptTokens: 50, completionTokens: 99 });
    expect(call.told).toEqual({ ...call.usage, billed: { promptTokens: 20, completionTokens: 10 } });
    expect((await metered([text("a"), finish(), usage(20, 10)], { cap: 10, promptTokens: 20 })).call.told).toEqual({
      ...{ promptTokens: 20, cachedTokens: 0, completionTokens: 10, estimated: false },
    });
    const whole = await metered([text(" word".repeat(30)), text(" word".repeat(3), 1)], { choices: 2, stream: false });
    expect(whole.call.usage.completionTokens).toBe(10 + 3);
  });

  it("cuts each choice of a stream that is clearly beyond its cap, and stops the model with the last of them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 20 }),
        fc.array(fc.nat(2), { maxLength: 120, size: "max" }),
        async (choices, cap, order) => {
          const deltas = order.flatMap((choice) => words(1, choice % choices));
          const { call, seen } = await metered(deltas, { cap, choices });
          const made = Array.from({ length: choices }, (_, choice) => order.filter((one) => one % choices === choice));
          const got = (choice: number, type: string) =>
            seen.filter((delta) => "choice" in delta && delta.choice === choice && delta.type === type).length;
          for (const [choice, { length }] of made.entries()) {
            expect(got(choice, "text")).toBeGreaterThanOrEqual(call.stoppedBy ? Math.min(length, cap) : 0);
            expect(got(choice, "text")).toBeLessThanOrEqual(cap * 1.25 + 4 + 8); // what comes between two looks
            if (length <= cap * 1.25 + 4) expect(got(choice, "finish")).toBe(0);
            if (length > cap * 1.25 + 12) expect(got(choice, "finish")).toBe(1);
          }
          const cut = made.filter((_, choice) => got(choice, "finish") === 1).length;
          expect(call.stoppedBy).toBe(cut === choices ? "cap" : undefined);
          expect(call.usage.completionTokens).toBe(
            order.length === 0 ? 0 : made.reduce((sum, { length }) => sum + Math.min(length, cap), 0),
          );
        },
      ),
    );
  });

  it("shows nothing more of a choice that it cut, its end included, and cuts no whole reply", async () => {
    const deltas = [...words(40), finish(), text("z", 1)];
    const { seen } = await metered(deltas, { cap: 8, choices: 2 });
    expect(seen.at(-1)).toEqual(text("z", 1));
    expect(seen.at(-2)).toEqual({ type: "finish", choice: 0, reason: "length" });
    expect((await metered(deltas, { cap: 8, choices: 2, stream: false })).seen).toEqual(deltas);
  });

  it("takes a usage that cannot be true for none, and flags it", async () => {
    const { call, seen } = await metered([text("a"), { type: "usage_rejected", reported: "-1" }, finish()]);
    expect(call.usageRejected).toBe(true);
    expect(call.usage).toMatchObject({ completionTokens: 1, estimated: true });
    expect(seen.map(({ type }) => type)).toEqual(["text", "finish"]);
  });

  it("knows when the first token came, and bills nothing before it", async () => {
    const { call } = await metered([text("a"), text("b")]);
    expect(call.firstTokenMs).toBeGreaterThan(0);
    expect((await metered([])).call.usage).toMatchObject({ promptTokens: 0, completionTokens: 0 });
  });

  it("bills what has come when its reader leaves", async () => {
    const call = callOf(chatRequest());
    call.model = CATALOGUE.find("counted") as ModelCall["model"];
    call.reservation = { outputTokens: 50, promptTokens: 100, rates: [], leaseId: null };
    call.output = outputOf(...words(20), finish(), usage(11, 20));
    await meter(call);
    let read = 0;
    for await (const _ of call.output) if (++read === 7) break;
    expect(call.usage).toMatchObject({ promptTokens: 3, completionTokens: 7, estimated: true });
  });
});

describe("a model that was stopped before it answered", () => {
  it("has read the prompt: that is billed, by its tokenizer, and nothing else", () => {
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: [{ type: "text", text: "Where is my refund?" }] },
    ] as ChatRequest["messages"];
    const call = callOf(chatRequest({ messages }));
    call.model = CATALOGUE.find("counted") as ModelCall["model"];
    expect(promptAlone(call)).toEqual({ promptTokens: 8, cachedTokens: 0, completionTokens: 0, estimated: true });
  });
});
