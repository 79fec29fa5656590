import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type OutputItem, type ResponseEvent, ResponseOutput } from "../../../src/http/response-output";
import type { FinishReason } from "../../../src/inference/provider";
import type { Output } from "../../../src/pipeline/model-call";
import { assertResponseEvent } from "../../contract/contract";

const anyText = fc.string({ minLength: 1, maxLength: 5 }).map((text): Output => ({ type: "text", choice: 0, text }));
/** Calls come one after another, each in pieces, and may be between texts. */
const anyCall = fc.array(fc.string({ maxLength: 4 }), { minLength: 1, maxLength: 4 });
const anyDeltas = fc.array(fc.oneof(anyText, anyCall), { maxLength: 12 }).map((parts) => {
  let calls = 0;
  return parts.flatMap((part): Output[] => {
    if (!Array.isArray(part)) return [part];
    const index = calls++;
    const named = { id: `call_${index}`, name: `f${index}` };
    return part.map((text, at) => ({
      ...{ type: "tool_call", choice: 0, index, arguments: text },
      ...(at === 0 ? named : {}),
    }));
  });
});

function made(deltas: readonly Output[], reason: FinishReason = "stop") {
  const output = new ResponseOutput((type, index) => `${type === "message" ? "msg" : "fc"}_${index}`);
  const events: ResponseEvent[] = [];
  for (const delta of [...deltas, { type: "finish", choice: 0, reason } as const]) events.push(...output.push(delta));
  events.push(...output.end());
  return { events, items: output.items };
}
const saidBy = (item: OutputItem) =>
  item.type === "message" ? item.content.map(({ text }) => text).join("") : item.arguments;

describe("the events of a response", () => {
  it("open, fill and close one item after another, and say what the items say", () => {
    fc.assert(
      fc.property(anyDeltas, (deltas) => {
        const { events, items } = made(deltas);
        let open: { index: number; said: string } | undefined;
        let closed = 0;
        for (const [number, event] of events.entries()) {
          assertResponseEvent({ ...event, sequence_number: number });
          if (event.type === "response.output_item.added") {
            expect(open).toBeUndefined();
            open = { index: closed, said: "" };
          }
          expect(event.output_index).toBe(open?.index);
          if (event.type.endsWith(".delta") && open) open.said += String(event.delta);
          if (event.type !== "response.output_item.done") continue;
          expect(event.item).toEqual(items[closed]);
          expect(open?.said).toBe(saidBy(items[closed] as OutputItem));
          closed++;
          open = undefined;
        }
        expect([open, closed]).toEqual([undefined, items.length]);
      }),
    );
  });

  it("lose nothing that the model said, in its order", () => {
    fc.assert(
      fc.property(anyDeltas, (deltas) => {
        const said = deltas.map((delta) =>
          delta.type === "text" ? delta.text : delta.type === "tool_call" ? delta.arguments : "",
        );
        expect(made(deltas).items.map(saidBy).join("")).toBe(said.join(""));
      }),
    );
  });

  it("are those of an empty message where the model said nothing, and incomplete where it was cut", () => {
    expect(made([]).items).toMatchObject([{ type: "message", status: "completed", content: [{ text: "" }] }]);
    expect(made([{ type: "text", choice: 0, text: "a" }], "length").items).toMatchObject([{ status: "incomplete" }]);
  });
});
