import fc from "fast-check";
import { Stream } from "openai/streaming";
import { describe, expect, it } from "vitest";
import { commentFrame, dataFrame, eventFrame } from "../../../src/http/event-stream";
import { readEvents } from "../../../src/inference/providers/sse";
import { anyCuts, pieces } from "../providers/calls";

const encoder = new TextEncoder();
const asStream = (chunks: readonly Uint8Array[]) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
const anyEvent = fc.record({
  type: fc.constantFrom("response.created", "response.output_text.delta", "response.completed"),
  text: fc.string({ unit: "binary", maxLength: 20 }),
  more: fc.jsonValue(),
});

describe("the streams that this platform writes", () => {
  it("are read the same wherever a proxy cuts them, by our reader and by the official client", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent), anyCuts, fc.boolean(), async (events, cuts, isNamed) => {
        const frame = isNamed ? eventFrame : dataFrame;
        const text = `${events.map((event) => commentFrame("x-audit dec_1") + frame(event)).join("")}${dataFrame("[DONE]")}`;
        const chunks = pieces(encoder.encode(text), cuts);
        const expected = events.map((event) => JSON.parse(JSON.stringify(event)) as unknown);
        const own: unknown[] = [];
        const bytes = (async function* () {
          yield* chunks;
        })();
        for await (const { data } of readEvents(bytes)) if (data !== "[DONE]") own.push(JSON.parse(data));
        expect(own).toEqual(expected);
        const official: unknown[] = [];
        const response = new Response(asStream(chunks.filter(({ byteLength }) => byteLength > 0)));
        for await (const event of Stream.fromSSEResponse(response, new AbortController())) official.push(event);
        expect(official).toEqual(expected);
      }),
    );
  });
});
