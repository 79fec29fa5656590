import { getEventListeners } from "node:events";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ChatDelta } from "../../../src/inference/provider";
import { type AiBinding, workersAi } from "../../../src/inference/providers/workers-ai";
import { chatCall, chatModel, collected, failureOf, finishesIn, never, textIn, usageIn } from "./calls";

const encoder = new TextEncoder();
const model = chatModel("workers-ai", "@cf/meta/llama-3.3-70b-instruct-fp8-fast", ["seed"]);

/** One run of the binding, driven by the test: what it says, when, and whether it was stopped. */
class Run {
  readonly inputs: Record<string, unknown>;
  isCancelled = false;
  pulls = 0;
  readonly #answer = Promise.withResolvers<unknown>();
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(inputs: object) {
    this.inputs = inputs as Record<string, unknown>;
  }
  get answered(): Promise<unknown> {
    return this.#answer.promise;
  }
  open(): this {
    const stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => {
          this.pulls++;
        },
        cancel: () => {
          this.isCancelled = true;
        },
      },
      { highWaterMark: 0 },
    );
    this.#answer.resolve(stream);
    return this;
  }
  fail(message: string): void {
    this.#answer.reject(new Error(message));
  }
  say(...texts: string[]): this {
    for (const response of texts)
      this.#controller?.enqueue(encoder.encode(`data: ${JSON.stringify({ response })}\n\n`));
    return this;
  }
  done(): void {
    this.#controller?.enqueue(encoder.encode("data: [DONE]\n\n"));
  }
  end(prompt_tokens: number, completion_tokens: number): void {
    const last = JSON.stringify({ response: "", usage: { prompt_tokens, completion_tokens } });
    this.#controller?.enqueue(encoder.encode(`data: ${last}\n\n`));
    this.done();
    this.#controller?.close();
  }
  breakOff(message: string): void {
    this.#controller?.error(new Error(message));
  }
}

function binding() {
  const runs: Run[] = [];
  const ai: AiBinding = {
    run(_, inputs) {
      const run = new Run(inputs);
      runs.push(run);
      return run.answered as Promise<unknown>;
    },
  };
  return { ai, runs };
}

const text = (delta: IteratorResult<ChatDelta>) => (delta.value as { text: string }).text;

describe("several choices", () => {
  it("are as many runs side by side, each with a seed of its own, their deltas told apart", async () => {
    const { ai, runs } = binding();
    const chat = workersAi(ai).chat(chatCall(model, { choices: 3, seed: 7 }), never);
    expect(runs).toHaveLength(3); // before any has answered
    for (const [index, run] of runs.entries()) run.open().say(`a${index}`, `b${index}`).end(10, 2);
    const deltas = await collected(await chat);
    expect([0, 1, 2].map((choice) => textIn(deltas, choice))).toEqual(["a0b0", "a1b1", "a2b2"]);
    const seeds = runs.map((run) => run.inputs.seed);
    expect(seeds[0]).toBe(7);
    expect(new Set(seeds).size).toBe(3);
  });

  it("end one by one after all text, with one usage: the prompt counted once, the outputs added", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 5 }), { minLength: 2, maxLength: 6 }), async (lengths) => {
        const { ai, runs } = binding();
        const chat = workersAi(ai).chat(chatCall(model, { choices: lengths.length }), never);
        for (const [index, length] of lengths.entries()) {
          runs[index]
            ?.open()
            .say(...Array.from({ length }, () => "x "))
            .end(10, length);
        }
        const deltas = await collected(await chat);
        expect(deltas.findLastIndex((delta) => delta.type === "text")).toBeLessThan(
          deltas.findIndex((delta) => delta.type === "finish"),
        );
        expect(
          finishesIn(deltas)
            .map(({ choice }) => choice)
            .sort(),
        ).toEqual(lengths.map((_, index) => index));
        const completionTokens = lengths.reduce((sum, length) => sum + length, 0);
        expect(deltas.at(-1)).toEqual({ type: "usage", promptTokens: 10, cachedTokens: 0, completionTokens });
        expect(deltas.filter((delta) => delta.type === "usage")).toHaveLength(1);
      }),
    );
  });

  it("report no usage unless every run reports its own", async () => {
    const { ai, runs } = binding();
    const chat = workersAi(ai).chat(chatCall(model, { choices: 2 }), never);
    runs[0]?.open().say("a").end(10, 1);
    runs[1]?.open().say("b").end(-10, 1);
    expect(usageIn(await collected(await chat))).toBeUndefined();
  });

  it("come as they are made: one that is silent holds up none of the others", async () => {
    const { ai, runs } = binding();
    const chat = workersAi(ai).chat(chatCall(model, { choices: 2 }), never);
    runs[0]?.open();
    runs[1]?.open().say("a", "b");
    const output = (await chat)[Symbol.asyncIterator]();
    expect([text(await output.next()), text(await output.next())]).toEqual(["a", "b"]);
  });

  it("are all stopped when one run fails to start, whether the others have answered or answer later", async () => {
    const { ai, runs } = binding();
    const failing = failureOf(() => workersAi(ai).chat(chatCall(model, { choices: 3 }), never));
    runs[0]?.open();
    runs[1]?.fail("3040: capacity");
    expect((await failing).failure).toBe("capacity");
    runs[2]?.open();
    await expect.poll(() => runs.map((run) => run.isCancelled)).toEqual([true, false, true]);
  });

  it("are all stopped when one breaks in the middle, though another is silent", async () => {
    const { ai, runs } = binding();
    const chat = workersAi(ai).chat(chatCall(model, { choices: 3 }), never);
    for (const run of runs) run.open();
    const output = (await chat)[Symbol.asyncIterator]();
    runs[0]?.say("a");
    await output.next();
    runs[1]?.breakOff("3007: Request timeout");
    expect((await failureOf(() => output.next())).failure).toBe("timeout");
    expect([runs[0]?.isCancelled, runs[2]?.isCancelled]).toEqual([true, true]);
  });

  it("are all stopped by the signal", async () => {
    const { ai, runs } = binding();
    const stop = new AbortController();
    const chat = workersAi(ai).chat(chatCall(model, { choices: 3 }), stop.signal);
    for (const run of runs) run.open();
    const output = (await chat)[Symbol.asyncIterator]();
    const waiting = failureOf(() => output.next());
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
    expect(runs.every((run) => run.isCancelled)).toBe(true);
  });
});

describe.each([1, 3])("stopping a call of %i choices", (choices) => {
  const started = async (signal: AbortSignal) => {
    const { ai, runs } = binding();
    const chat = workersAi(ai).chat(chatCall(model, { choices }), signal);
    for (const run of runs) run.open();
    return { runs, output: (await chat)[Symbol.asyncIterator]() };
  };
  const allCancelled = (runs: readonly Run[]) => runs.every((run) => run.isCancelled);

  it("by its signal cancels the stream at once, even while nobody reads", async () => {
    const stop = new AbortController();
    const { runs, output } = await started(stop.signal);
    runs[0]?.say("a");
    await output.next();
    stop.abort();
    expect(allCancelled(runs)).toBe(true); // in the same turn
    expect((await failureOf(() => output.next())).failure).toBe("aborted");
  });

  it("by its signal before the model has answered ends the wait, and the late answer is cancelled", async () => {
    const { ai, runs } = binding();
    const stop = new AbortController();
    const waiting = failureOf(() => workersAi(ai).chat(chatCall(model, { choices }), stop.signal));
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
    for (const run of runs) run.open();
    await expect.poll(() => allCancelled(runs)).toBe(true);
  });

  it("by a signal that was given long ago never reads a stream", async () => {
    const { ai, runs } = binding();
    const failing = failureOf(() => workersAi(ai).chat(chatCall(model, { choices }), AbortSignal.abort()));
    for (const run of runs) run.open();
    expect((await failing).failure).toBe("aborted");
    await expect.poll(() => allCancelled(runs)).toBe(true);
  });

  it("by its signal in the moment of the answer still cancels the stream", async () => {
    let isCancelled = false;
    const answer = Promise.resolve(
      new ReadableStream({
        cancel: () => {
          isCancelled = true;
        },
      }),
    );
    const stop = new AbortController();
    const chat = workersAi({ run: () => answer }).chat(chatCall(model), stop.signal);
    await answer;
    stop.abort();
    expect((await failureOf(async () => collected(await chat))).failure).toBe("aborted");
    expect(isCancelled).toBe(true);
  });

  it("by leaving the loop cancels the stream", async () => {
    const { runs, output } = await started(never);
    runs[0]?.say("a", "b");
    for await (const _ of { [Symbol.asyncIterator]: () => output }) break;
    expect(allCancelled(runs)).toBe(true);
    expect(await output.next()).toEqual({ done: true, value: undefined });
  });

  it("by leaving in the middle of a wait cancels the stream at once, and the wait ends quietly", async () => {
    const { runs, output } = await started(never);
    const waiting = output.next(); // the model is silent
    const left = output.return?.();
    expect(allCancelled(runs)).toBe(true);
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await left).toEqual({ done: true, value: undefined });
  });

  it("by leaving before it began cancels the stream", async () => {
    const { runs, output } = await started(never);
    await output.return?.();
    expect(allCancelled(runs)).toBe(true);
  });

  it("leaves nothing behind once the output is complete: no stream, no listener", async () => {
    const stop = new AbortController();
    const { runs, output } = await started(stop.signal);
    for (const run of runs) run.say("a").end(5, 1);
    const deltas = await collected({ [Symbol.asyncIterator]: () => output });
    expect(finishesIn(deltas)).toHaveLength(choices);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  });

  it("is not needed for streams that stay open after [DONE]", async () => {
    const { runs, output } = await started(never);
    for (const run of runs) run.say("a").done();
    await collected({ [Symbol.asyncIterator]: () => output });
    expect(allCancelled(runs)).toBe(true);
  });
});

describe("a whole reply", () => {
  it("that nobody waits for any more ends by being aborted", async () => {
    const { ai } = binding();
    const stop = new AbortController();
    const waiting = failureOf(() => workersAi(ai).chat(chatCall(model, { stream: false }), stop.signal));
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
  });

  it("is run without a signal among its inputs and options: signals cannot cross to the binding", async () => {
    const seen: unknown[][] = [];
    const ai: AiBinding = {
      async run(...given) {
        seen.push(given);
        return { response: "x" };
      },
    };
    await workersAi(ai).chat(chatCall(model, { stream: false }), never);
    expect(() => structuredClone(seen)).not.toThrow();
    expect(seen[0]).toHaveLength(2);
  });
});
