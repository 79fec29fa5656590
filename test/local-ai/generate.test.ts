import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { eventStream } from "../../local-ai/event-stream";
import { type GenerateOptions, generate, StopStrings } from "../../local-ai/generate";
import { GREEDY, loadEngine, referenceCases } from "./engine";

const engine = loadEngine();
const prompt = referenceCases()[0]?.ids ?? [];

function start(options: Partial<GenerateOptions> = {}) {
  const abort = new AbortController();
  const counter = { made: 0 };
  const onToken = () => void counter.made++;
  const common = { prompt, maxTokens: 40, sampling: GREEDY, stop: [], signal: abort.signal, onToken };
  return { generated: generate(engine, { ...common, ...options }), abort, counter };
}

async function collect(options: Partial<GenerateOptions> = {}) {
  const { generated, counter } = start(options);
  const out = { text: "", pieces: 0, reason: "", completionTokens: 0 };
  for await (const piece of generated) {
    if (piece.type === "end") Object.assign(out, { reason: piece.reason, completionTokens: piece.completionTokens });
    else {
      out.text += piece.text;
      out.pieces++;
    }
  }
  return { ...out, made: counter.made };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("generation", () => {
  it("is the same for the same seed and differs between seeds", async () => {
    const sampling = { ...GREEDY, temperature: 1.2 };
    const first = await collect({ sampling });
    expect((await collect({ sampling })).text).toBe(first.text);
    expect((await collect({ sampling: { ...sampling, seed: 2 } })).text).not.toBe(first.text);
  });

  it("stops before a stop string that spans tokens, and counts what it made", async () => {
    const whole = await collect();
    const stop = whole.text.slice(9, 27);
    expect(engine.tokenizer.encode(stop).length).toBeGreaterThan(2);
    const cut = await collect({ stop: ["never", stop] });
    expect(cut.text).toBe(whole.text.slice(0, 9));
    expect(cut.reason).toBe("stop");
    expect(cut.completionTokens).toBe(cut.made);
    expect(cut.made).toBeLessThan(whole.made);
  });

  it("gives the text that a stop string held back when the end comes first", async () => {
    const whole = await collect();
    const held = await collect({ stop: [`${whole.text.slice(-6)}X`] });
    expect(held.text).toBe(whole.text);
  });

  it("ends by itself where the model ends, without its mark in the text", async () => {
    const whole = await collect({ maxTokens: 400 });
    expect(whole.reason).toBe("stop");
    expect(whole.text).not.toContain("<|");
  });

  it("says when it was the cap that ended it", async () => {
    expect(await collect({ maxTokens: 5 })).toMatchObject({ reason: "length", completionTokens: 5, made: 5 });
  });

  it.each([
    ["reads its prompt", { prompt: Array.from({ length: 500 }, () => 300), maxTokens: 1 }],
    ["writes", { maxTokens: 400 }],
  ])("lets others in while it %s", async (_, options) => {
    const { generated } = start(options);
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    for await (const _ of generated);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(4);
  });

  it("makes no token more once it is aborted", async () => {
    const { generated, abort, counter } = start({ maxTokens: 400 });
    await generated.next();
    abort.abort();
    const at = counter.made;
    for await (const piece of generated) if (piece.type === "end") expect(piece.reason).toBe("aborted");
    expect(counter.made).toBe(at);
  });
});

describe("stop strings", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b") });

  it("cut at the first one that is complete, however the text is split, and lose nothing", () => {
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 4 }), {
      maxLength: 3,
    });
    fc.assert(
      fc.property(fc.array(letters), stops, (pieces, stopStrings) => {
        const held = new StopStrings(stopStrings);
        let out = "";
        let isStopped = false;
        for (const piece of [...pieces.join("")]) {
          const { text, stopped } = held.push(piece);
          out += text;
          isStopped = stopped;
          if (isStopped) break;
        }
        if (!isStopped) out += held.end();
        expect(out).toBe(expected(pieces.join(""), stopStrings));

        const inPieces = new StopStrings(stopStrings);
        const first = pieces.map((piece) => inPieces.push(piece)).findIndex(({ stopped }) => stopped);
        expect(first !== -1).toBe(isStopped);
      }),
      { numRuns: 1000 },
    );
  });

  /** The text before whichever stop string is complete first; of those, the one that began first. */
  function expected(text: string, stops: readonly string[]): string {
    for (let end = 1; end <= text.length; end++) {
      const done = stops.filter((stop) => text.slice(0, end).endsWith(stop));
      if (done.length > 0) return text.slice(0, end - Math.max(...done.map((stop) => stop.length)));
    }
    return text;
  }
});

describe("event stream", () => {
  const open = (options: Partial<GenerateOptions> = {}) => {
    const { generated, abort, counter } = start(options);
    const ends = { count: 0 };
    return { stream: eventStream(generated, prompt.length, abort, () => void ends.count++), counter, ends, abort };
  };

  it("writes text as it is made, then the usage, then [DONE]", async () => {
    const { stream, ends } = open({ maxTokens: 6 });
    const events = (await new Response(stream).text()).trimEnd().split("\n\n");
    expect(events.at(-1)).toBe("data: [DONE]");
    expect(events.every((event) => event.startsWith("data: "))).toBe(true);
    const data = events.slice(0, -1).map((event) => JSON.parse(event.slice(6)));
    expect(data.map(({ response }) => response).join("")).toBe((await collect({ maxTokens: 6 })).text);
    const total = prompt.length + 6;
    const usage = { prompt_tokens: prompt.length, completion_tokens: 6, total_tokens: total };
    expect(data.at(-1)).toEqual({ response: "", finish_reason: "length", usage });
    expect(ends.count).toBeGreaterThan(0);
  });

  it("makes no more than eight pieces ahead of its reader, and goes on when they are read", async () => {
    const { stream, counter } = open({ maxTokens: 400 });
    const reader = stream.getReader();
    await reader.read();
    await pause(30);
    const at = counter.made;
    expect(at).toBeLessThanOrEqual(1 + 8 + 1); // the stream itself asks for one more
    await pause(30);
    expect(counter.made).toBe(at);
    for (let pieces = 0; pieces < 8; pieces++) await reader.read();
    await pause(30);
    expect(counter.made).toBeGreaterThan(at);
    await reader.cancel();
  });

  it("stops the generation at once when it is cancelled", async () => {
    const { stream, counter, ends } = open({ maxTokens: 400 });
    const reader = stream.getReader();
    await reader.read();
    await reader.cancel();
    const at = counter.made;
    await pause(50);
    expect(counter.made).toBe(at);
    expect(at).toBeLessThan(10);
    expect(ends.count).toBeGreaterThan(0);
  });

  it("stops while the prompt is being read, too", async () => {
    const { stream, counter } = open({ prompt: Array.from({ length: 400 }, () => 300) });
    const reader = stream.getReader();
    const pending = reader.read();
    await pause(5);
    await reader.cancel();
    await pending;
    expect(counter.made).toBe(0);
  });

  it("frees its place when it is cancelled before anybody read it", async () => {
    const { stream, counter, ends } = open();
    await stream.cancel();
    expect([counter.made, ends.count]).toEqual([0, 1]);
  });
});
