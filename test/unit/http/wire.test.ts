import { describe, expect, it, vi } from "vitest";
import { ApiError, ERRORS, type ErrorCode } from "../../../src/errors";
import { ChatChoices, choiceToChunk, completionToWire, usageToWire } from "../../../src/http/chat-reply";
import { errorBody, toApiError, toResponse } from "../../../src/http/errors";
import { commentFrame, dataFrame, eventFrame, eventStream } from "../../../src/http/event-stream";
import type { Output } from "../../../src/pipeline/model-call";

describe("an error", () => {
  it.each(Object.keys(ERRORS) as ErrorCode[])(
    "%s has its code, type and status, and the parameter at fault",
    async (code) => {
      const error = new ApiError(code, "What happened.", { param: "n", headers: { "retry-after": "7" } });
      const reply = toResponse(error, "req_1");
      expect(reply.status).toBe(ERRORS[code].status);
      expect(reply.headers.get("retry-after")).toBe("7");
      expect(await reply.json()).toEqual({
        error: { message: "What happened.", type: ERRORS[code].type, param: "n", code },
      });
    },
  );

  it("names no parameter where none is at fault, and has further members where there are some", () => {
    expect(errorBody(new ApiError("queue_full", "Full.", { more: { limits: [1] } })).error).toEqual({
      ...{ message: "Full.", type: "rate_limit_error", param: null, code: "queue_full", limits: [1] },
    });
  });

  it("that is not ours tells a caller nothing but the request's id, and the log everything", () => {
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    for (const thrown of [new TypeError("select * from api_key"), "secret", undefined]) {
      const error = toApiError(thrown, "req_1");
      expect(error.code).toBe("internal_error");
      expect(error.message).toBe("Something failed on our side. Quote request req_1.");
    }
    expect(log.mock.calls.map(([line]) => JSON.parse(String(line)).error.name)).toEqual([
      "TypeError",
      "string",
      "undefined",
    ]);
    log.mockRestore();
    const ours = new ApiError("not_found", "No.");
    expect(toApiError(ours, "req_1")).toBe(ours);
  });

  it("of the caller is 4xx, of the platform 5xx, and only a limit is 429", () => {
    for (const { status, type } of Object.values(ERRORS)) {
      expect(type === "server_error").toBe(status >= 500);
      expect(status === 429).toBe(type === "rate_limit_error" || type === "insufficient_quota");
    }
  });
});

const text = (words: string, choice = 0, logprobs?: unknown[]): Output =>
  ({ type: "text", choice, text: words, ...(logprobs ? { logprobs } : {}) }) as Output;
const call = (index: number, more: object): Output => ({ type: "tool_call", choice: 0, index, ...more }) as Output;

describe("a chat reply", () => {
  it("says the tokens that are billed, prompt and completion and their sum", () => {
    expect(usageToWire({ promptTokens: 7, cachedTokens: 3, completionTokens: 5, estimated: false })).toEqual({
      ...{ prompt_tokens: 7, completion_tokens: 5, total_tokens: 12, prompt_tokens_details: { cached_tokens: 3 } },
    });
  });

  it("joins what the model said, each choice for itself, with how it ended", () => {
    const choices = new ChatChoices(2);
    for (const delta of [
      text("Hel", 0, ["a"]),
      text("x", 1),
      text("lo", 0, ["b"]),
      { type: "finish", choice: 1, reason: "length" } as Output,
      { type: "finish", choice: 0, reason: "stop" } as Output,
      { type: "usage", promptTokens: 1, cachedTokens: 0, completionTokens: 1 } as Output,
    ]) {
      choices.push(delta);
    }
    const head = { id: "c", created: 1, model: "m", service_tier: "default" };
    const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: 1, estimated: false };
    expect(completionToWire(head, choices, usage)).toMatchObject({
      ...{ ...head, object: "chat.completion", usage: { total_tokens: 2 } },
      choices: [
        {
          ...{ index: 0, message: { role: "assistant", content: "Hello", refusal: null } },
          ...{ logprobs: { content: ["a", "b"] }, finish_reason: "stop" },
        },
        { index: 1, message: { content: "x" }, logprobs: null, finish_reason: "length" },
      ],
    });
  });

  it("has the model's calls of tools whole, in their order, and then no content where none was said", () => {
    const choices = new ChatChoices(1);
    choices.push(call(0, { id: "call_1", name: "f", arguments: '{"a"' }));
    choices.push(call(1, { id: "call_2", name: "g", arguments: "{}" }));
    choices.push(call(0, { arguments: ":1}" }));
    choices.push({ type: "finish", choice: 0, reason: "tool_calls" } as Output);
    const [choice] = choices.toWire();
    expect(choice?.message).toEqual({
      ...{ role: "assistant", content: null, refusal: null },
      tool_calls: [
        { id: "call_1", type: "function", function: { name: "f", arguments: '{"a":1}' } },
        { id: "call_2", type: "function", function: { name: "g", arguments: "{}" } },
      ],
    });
    const silent = new ChatChoices(1);
    silent.push({ type: "finish", choice: 0, reason: "stop" } as Output);
    expect(silent.toWire()[0]?.message).toEqual({ role: "assistant", content: "", refusal: null });
  });

  it("takes no choice that nobody asked for", () => {
    expect(() => new ChatChoices(1).push(text("x", 1))).toThrow(/choice 1 of 1/);
  });

  it("comes in chunks: the role once for each choice, the call's name once, the end by itself", () => {
    expect(choiceToChunk(text("a", 1), true)).toEqual({
      ...{ index: 1, delta: { role: "assistant", content: "a" }, logprobs: null, finish_reason: null },
    });
    expect(choiceToChunk(text("b", 1, ["l"]), false)).toMatchObject({
      ...{ delta: { content: "b" }, logprobs: { content: ["l"], refusal: null } },
    });
    expect(choiceToChunk(text("b"), false)?.delta).not.toHaveProperty("role");
    const named = choiceToChunk(call(2, { id: "call_1", name: "f", arguments: "" }), false);
    expect(named?.delta).toEqual({
      tool_calls: [{ index: 2, id: "call_1", type: "function", function: { name: "f", arguments: "" } }],
    });
    expect(choiceToChunk(call(2, { arguments: "{}" }), false)?.delta).toEqual({
      tool_calls: [{ index: 2, function: { arguments: "{}" } }],
    });
    expect(choiceToChunk({ type: "finish", choice: 3, reason: "length" } as Output, false)).toEqual({
      ...{ index: 3, delta: {}, logprobs: null, finish_reason: "length" },
    });
    expect(
      choiceToChunk({ type: "usage", promptTokens: 1, cachedTokens: 0, completionTokens: 1 } as Output, true),
    ).toBe(undefined);
  });
});

describe("a stream of events", () => {
  it("is made of frames: data, named events, and comments", () => {
    expect(dataFrame("[DONE]")).toBe("data: [DONE]\n\n");
    expect(dataFrame({ a: 1 })).toBe('data: {"a":1}\n\n');
    expect(eventFrame({ type: "x", a: 1 })).toBe('event: x\ndata: {"type":"x","a":1}\n\n');
    expect(commentFrame("why")).toBe(": why\n\n");
  });

  it("is pulled: nothing is made that nobody reads; its end is the end of its frames", async () => {
    let made = 0;
    const frames = (async function* () {
      for (; made < 3; ) yield dataFrame(String(++made));
    })();
    const gone = vi.fn();
    const reply = eventStream(frames, gone, { "x-request-id": "req_1" });
    expect(reply.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(reply.headers.get("x-request-id")).toBe("req_1");
    const reader = (reply.body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    await new Promise(setImmediate);
    expect(made).toBeLessThan(3); // one frame is made ahead, by the stream itself
    const rest: string[] = [];
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      rest.push(new TextDecoder().decode(part.value));
    }
    expect(rest).toEqual(["data: 2\n\n", "data: 3\n\n"]);
    expect(gone).not.toHaveBeenCalled();
  });

  it("tells when its reader has left, and ends what makes its frames", async () => {
    const ended = Promise.withResolvers<void>();
    const frames = (async function* () {
      try {
        for (;;) yield dataFrame("x");
      } finally {
        ended.resolve();
      }
    })();
    const gone = vi.fn();
    const reader = (eventStream(frames, gone, {}).body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    await reader.cancel();
    await ended.promise;
    expect(gone).toHaveBeenCalledTimes(1);
  });
});
