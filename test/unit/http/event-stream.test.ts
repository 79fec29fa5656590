import fc from "fast-check";
import { Stream } from "openai/streaming";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  commentFrame,
  dataFrame,
  eventFrame,
  eventStream,
  firstOrSoon,
  HEADERS_MS,
  PING_MS,
} from "../../../src/http/event-stream";
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

describe("a stream on which nothing moves", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** Frames that come when the test says so. */
  function controlled() {
    const waiting: ((step: IteratorResult<string>) => void)[] = [];
    let isGone = false;
    const frames = {
      next: () => new Promise<IteratorResult<string>>((resolve) => void waiting.push(resolve)),
      return: async () => ({ done: true as const, value: undefined }),
    } as unknown as AsyncGenerator<string>;
    const response = eventStream(
      frames,
      () => {
        isGone = true;
      },
      {},
    );
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const heard: string[] = [];
    const listen = (async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard.push(new TextDecoder().decode(value));
      }
    })();
    const give = async (value?: string) => {
      waiting.shift()?.(value === undefined ? { done: true, value: undefined } : { done: false, value });
      await vi.advanceTimersByTimeAsync(0);
    };
    return { reader, heard, listen, give, gone: () => isGone };
  }

  it("says a comment as often as proxies need it, before the first frame and between two, and no oftener", async () => {
    const { heard, listen, give } = controlled();
    await vi.advanceTimersByTimeAsync(PING_MS - 1);
    expect(heard).toEqual([": ping\n\n"]); // with which the headers go out
    await vi.advanceTimersByTimeAsync(1 + PING_MS);
    expect(heard).toEqual([": ping\n\n", ": ping\n\n", ": ping\n\n"]);
    await give("data: 1\n\n");
    await vi.advanceTimersByTimeAsync(PING_MS - 1);
    await give("data: 2\n\n");
    await vi.advanceTimersByTimeAsync(PING_MS - 1);
    expect(heard.slice(3)).toEqual(["data: 1\n\n", "data: 2\n\n"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(heard.at(-1)).toBe(": ping\n\n");
    await give();
    await listen;
    expect(vi.getTimerCount()).toBe(0);
  });

  it("has no timer left once its reader has gone", async () => {
    const { reader, gone } = controlled();
    await vi.advanceTimersByTimeAsync(PING_MS);
    await reader.cancel();
    expect([gone(), vi.getTimerCount()]).toEqual([true, 0]);
  });

  it("gathers no comments for a reader that does not read", async () => {
    const frames = { next: () => new Promise(() => {}), return: async () => ({}) } as unknown as AsyncGenerator<string>;
    const reader = (eventStream(frames, () => {}, {}).body as ReadableStream<Uint8Array>).getReader();
    await vi.advanceTimersByTimeAsync(100 * PING_MS);
    expect(new TextDecoder().decode((await reader.read()).value)).toBe(": ping\n\n");
    let more = 0;
    void reader.read().then(() => more++);
    await vi.advanceTimersByTimeAsync(0);
    expect(more).toBe(0);
    await reader.cancel();
  });
});

describe("the headers of a stream", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("wait for the first of the answer, but not for long", async () => {
    let isOut = false;
    void firstOrSoon(new Promise(() => {})).then(() => (isOut = true));
    await vi.advanceTimersByTimeAsync(HEADERS_MS - 1);
    expect(isOut).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([isOut, vi.getTimerCount()]).toEqual([true, 0]);
  });

  it("are those of an error where it comes in time; a later one is met by who reads the frames", async () => {
    await expect(firstOrSoon(Promise.reject(new Error("no")))).rejects.toThrow("no");
    const late = Promise.withResolvers<never>();
    const waiting = firstOrSoon(late.promise);
    await vi.advanceTimersByTimeAsync(HEADERS_MS);
    await waiting;
    late.reject(new Error("late")); // and is not unhandled
    await vi.advanceTimersByTimeAsync(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});
