import fc from "fast-check";
import { ResponseStream } from "openai/lib/responses/ResponseStream";
import { describe, expect, it } from "vitest";
import { type OutputItem, type ResponseEvent, ResponseOutput } from "../../../src/http/response-output";
import type { FinishReason } from "../../../src/inference/provider";
import type { Output } from "../../../src/pipeline/model-call";
import { assertResponseEvent } from "../../contract/contract";

/** What a model says, part by part: each part is cut into pieces, and the pieces of all parts come in any order. */
interface Saying {
  readonly parts: readonly (readonly Output[])[];
  readonly order: readonly number[];
}
const anyPieces = fc.array(fc.string({ maxLength: 4 }), { minLength: 1, maxLength: 4 });
const anySaying: fc.Arbitrary<Saying> = fc.record({
  parts: fc
    .record({
      texts: fc.array(fc.tuple(fc.constantFrom("text", "refusal", "reasoning"), anyPieces), { maxLength: 3 }),
      calls: fc.array(anyPieces, { maxLength: 4 }),
    })
    .map(({ texts, calls }) => [
      ...texts.map(([type, pieces]) => pieces.map((text) => ({ type, choice: 0, text }) as Output)),
      ...calls.map((pieces, index) =>
        pieces.map((text, at): Output => {
          const named = at === 0 ? { id: `call_${index}`, name: `f${index}` } : {};
          return { type: "tool_call", choice: 0, index, arguments: text, ...named };
        }),
      ),
    ]),
  order: fc.array(fc.nat({ max: 6 }), { maxLength: 40 }),
});

/** The pieces of each part stay in their order; which part goes on is drawn. */
function interleaved({ parts, order }: Saying): Output[] {
  const queues = parts.map((part) => [...part]);
  const deltas: Output[] = [];
  for (const drawn of [...order, ...queues.flatMap((queue, at) => queue.map(() => at))]) {
    const left = queues.filter((queue) => queue.length > 0);
    const next = left[drawn % Math.max(1, left.length)]?.shift();
    if (next) deltas.push(next);
  }
  for (const queue of queues) deltas.push(...queue);
  return deltas;
}

function made(deltas: readonly Output[], reason: FinishReason = "stop") {
  const prefixes = { message: "msg", reasoning: "rs", function_call: "fc" };
  const output = new ResponseOutput((type, index) => `${prefixes[type]}_${index}`);
  const events: ResponseEvent[] = [];
  for (const delta of [...deltas, { type: "finish", choice: 0, reason } as const]) events.push(...output.push(delta));
  events.push(...output.end());
  return { events, items: output.items };
}

/** What an item says, without its place: that depends on what began first. */
const said = (item: OutputItem) =>
  item.type === "function_call"
    ? [item.type, item.call_id, item.name, item.arguments]
    : [
        item.type,
        ...item.content.map((part) => `${part.type}:${part.type === "refusal" ? part.refusal : part.text}`).toSorted(),
      ];
const joinedText = (deltas: readonly Output[], type: string) =>
  deltas.map((delta) => (delta.type === type && "text" in delta ? delta.text : "")).join("");

describe("the events of a response", () => {
  it("keep to the contract: each item is added at the next place, filled and closed once, and says what its deltas said", () => {
    fc.assert(
      fc.property(anySaying, (saying) => {
        const { events, items } = made(interleaved(saying));
        const open = new Map<number, string>();
        const closed = new Set<number>();
        for (const [number, event] of events.entries()) {
          assertResponseEvent({ ...event, sequence_number: number });
          const at = event.output_index as number;
          if (event.type === "response.output_item.added") {
            expect(at).toBe(open.size);
            open.set(at, "");
          }
          expect(open.has(at)).toBe(true);
          expect(closed.has(at)).toBe(false);
          expect((event.item as OutputItem | undefined)?.id ?? event.item_id).toBe(items[at]?.id);
          if (event.type.endsWith(".delta")) open.set(at, open.get(at) + String(event.delta));
          if (event.type === "response.output_item.done") {
            expect(event.item).toEqual(items[at]);
            closed.add(at);
          }
        }
        expect(closed.size).toBe(items.length);
        for (const [at, item] of items.entries())
          if (item.type === "function_call") expect(open.get(at)).toBe(item.arguments);
      }),
    );
  });

  it("make the same items of the same parts, however their pieces are mixed", () => {
    fc.assert(
      fc.property(anySaying, (saying) => {
        const mixed = interleaved(saying);
        const items = made(mixed).items.map(said);
        const calls = new Map<number, string>();
        for (const delta of mixed)
          if (delta.type === "tool_call") calls.set(delta.index, (calls.get(delta.index) ?? "") + delta.arguments);
        const ofCalls = items.filter(([type]) => type === "function_call");
        expect(ofCalls.toSorted()).toEqual(
          [...calls].map(([index, text]) => ["function_call", `call_${index}`, `f${index}`, text]).toSorted(),
        );
        const text = joinedText(mixed, "text");
        const messages = items.filter(([type]) => type === "message");
        expect(messages.length).toBeLessThanOrEqual(1);
        if (text !== "") expect(messages[0]).toContain(`output_text:${text}`);
        const refusal = joinedText(mixed, "refusal");
        if (refusal !== "") expect(messages[0]).toContain(`refusal:${refusal}`);
        const thoughts = items.filter(([type]) => type === "reasoning");
        const thought = joinedText(mixed, "reasoning");
        expect(thoughts).toEqual(thought === "" ? [] : [["reasoning", `reasoning_text:${thought}`]]);
      }),
    );
  });

  it("add up in the official client to what the response says", async () => {
    await fc.assert(
      fc.asyncProperty(anySaying, async (saying) => {
        const { events, items } = made(interleaved(saying));
        const head = {
          id: "resp_1",
          object: "response",
          created_at: 0,
          model: "m",
          tools: [],
          parallel_tool_calls: true,
        };
        const whole = { ...head, status: "completed", output: items };
        const all = [
          { type: "response.created", response: { ...head, status: "in_progress", output: [] } },
          ...events,
          { type: "response.completed", response: whole },
        ];
        const lines = all.map((event, number) => `${JSON.stringify({ ...event, sequence_number: number })}\n`);
        // Without the last event, which would bring the whole: the items come from the deltas.
        const stream = ResponseStream.fromReadableStream(new Response(lines.slice(0, -1).join("")).body as never);
        expect((await stream.finalResponse()).output).toMatchObject(items);
      }),
      { numRuns: 40 },
    );
  });

  it("are those of an empty message where the model said nothing, and incomplete where it was cut", () => {
    expect(made([]).items).toMatchObject([{ type: "message", status: "completed", content: [{ text: "" }] }]);
    expect(made([{ type: "reasoning", choice: 0, text: "hm" }]).items).toMatchObject([
      { type: "reasoning", content: [{ type: "reasoning_text", text: "hm" }] },
      { type: "message" },
    ]);
    const call: Output = { type: "tool_call", choice: 0, index: 0, id: "c", name: "f", arguments: "{" };
    const items = made([call, { type: "text", choice: 0, text: "a" }, { ...call, arguments: '"x' }], "length").items;
    expect(items).toMatchObject([{ status: "incomplete" }, { status: "completed" }]);
  });
});
