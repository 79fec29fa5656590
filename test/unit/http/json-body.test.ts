import { Buffer } from "node:buffer";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import {
  MAX_JSON_DEPTH,
  MAX_JSON_KEY_CHARACTERS,
  MAX_JSON_MEMBERS,
  MAX_JSON_VALUES,
} from "../../../src/core/json-scan";
import { ApiError } from "../../../src/errors";
import { BODY_BYTES_PER_SECOND, BODY_PATIENCE_MS } from "../../../src/http/body-flow";
import { MAX_JSON_BYTES, parseJson, readBytes, readJson } from "../../../src/http/json-body";
import { readForm } from "../../../src/http/multipart";

const bytesOf = (text: string) => new TextEncoder().encode(text);
const read = (text: string) => parseJson(bytesOf(text));
/** Why a text is refused. */
function refusalOf(text: string): { code: string; message: string; param: string | undefined } | undefined {
  try {
    read(text);
    return undefined;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { code: error.code, message: error.message, param: error.options.param };
  }
}
const textFrom = (count: number, element: string) => `[${Array(count).fill(element).join(",")}]`;

describe("a JSON body", () => {
  it("is read as JSON.parse reads it, whatever is in it", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(4), (value, spaces) => {
        // JSON.stringify writes each key once; what no text may have is refused below.
        const text = JSON.stringify(value, null, spaces);
        fc.pre(!/\\u0000|\\ud[89a-f]|__proto__/i.test(text));
        expect(read(text)).toEqual(JSON.parse(text));
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ['{"a":1,"a":2}', /key twice/],
    ['{"b":{"a":1,"\\u0061":2}}', /key twice/],
    ['[{"a":"\\u0041\\"","a":0}]', /key twice/],
    ['{"__proto__":{}}', /__proto__/],
    ['[{"\\u005f_proto__":1}]', /__proto__/],
    ['["\\ud800"]', /surrogate/],
    ['{"\\udc00":1}', /surrogate/],
    ['["a\\u0041", "x\\"\\u0000"]', /NUL/],
    ['{"a\\u0000":1}', /NUL/],
    ["[1,]", /not valid JSON/],
    ["]", /not valid JSON/],
    ['"abc', /not valid JSON/],
    ["", /not valid JSON/],
  ])("%s is refused", (text, why) => {
    expect(refusalOf(text)).toMatchObject({ code: "invalid_json", message: expect.stringMatching(why) });
  });

  it("may use escapes, quotes in strings and what looks like structure in them", () => {
    for (const text of ['{"a":"\\u0041\\"","b":"{[:,"}', '["\\ud83d\\ude00"]', '{"\\\\":"\\\\","":[{},[],""]}'])
      expect(read(text)).toEqual(JSON.parse(text));
  });

  it("has bounds of its form, each exact, and says which field passes them", () => {
    const members = `'input' has a list or an object with more than 10,000 members.`;
    expect(read(`{"input":${textFrom(MAX_JSON_MEMBERS, "0")}}`)).toHaveProperty("input.9999", 0);
    expect(refusalOf(`{"model":"x","input":[${textFrom(MAX_JSON_MEMBERS + 1, "0")}]}`)).toEqual({
      ...{ code: "invalid_value", message: members, param: "input" },
    });
    const before = '{"model":"x","tools":[{"name":"f"}],"input":[{"role":"user"},';
    expect(refusalOf(`${before}${textFrom(MAX_JSON_MEMBERS, '{"a":0}').slice(1)}}`)).toMatchObject({ param: "input" });
    const keys = (count: number) => `{${Array.from({ length: count }, (_, at) => `"k${at}":0`).join(",")}}`;
    expect(refusalOf(keys(MAX_JSON_MEMBERS))).toBeUndefined();
    expect(refusalOf(keys(MAX_JSON_MEMBERS + 1))?.message).toMatch(/more than 10,000 members/);

    const key = (characters: number) => `{"metadata":{"${"k".repeat(characters)}":0}}`;
    expect(refusalOf(key(MAX_JSON_KEY_CHARACTERS))).toBeUndefined();
    expect(refusalOf(key(MAX_JSON_KEY_CHARACTERS + 1))).toMatchObject({ code: "invalid_value", param: "metadata" });

    const deep = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
    expect(refusalOf(deep(MAX_JSON_DEPTH))).toBeUndefined();
    expect(refusalOf(deep(MAX_JSON_DEPTH + 1))?.message).toMatch(/deeper than 64/);
  });

  it("has a bound of all its values together, however they are spread", () => {
    const spread = (lists: number) => textFrom(lists, textFrom(1_000, "0"));
    expect(refusalOf(spread(MAX_JSON_VALUES / 1_000 - 1))).toBeUndefined();
    expect(refusalOf(spread(MAX_JSON_VALUES / 1_000))?.message).toMatch(/more than 150,000 values/);
    expect(refusalOf(textFrom(9_000, textFrom(20, "[]")))?.message).toMatch(/more than 150,000 values/);
  });

  it("of a long conversation is read", () => {
    const call = { type: "function_call", call_id: "call_1", name: "look_up", arguments: '{"order":"12345"}' };
    const output = { type: "function_call_output", call_id: "call_1", output: "x".repeat(700) };
    const input = Array.from({ length: 10_000 }, (_, at) => (at % 2 === 0 ? call : output));
    expect(read(JSON.stringify({ model: "m", input }))).toHaveProperty("input.length", 10_000);
  });
});

/** A stream that gives what it is told to, and is never asked twice at once. */
function streamOf(pieces: AsyncIterable<Uint8Array>): { body: ReadableStream<Uint8Array>; isCancelled: () => boolean } {
  let cancelled = false;
  const iterator = pieces[Symbol.asyncIterator]();
  const source = {
    type: "bytes" as const,
    async pull(controller: {
      readonly close: () => void;
      readonly enqueue: (bytes: Uint8Array) => void;
      readonly byobRequest: { readonly respond: (bytes: number) => void } | null;
    }) {
      const { done, value } = await iterator.next();
      if (cancelled) return;
      if (!done) return controller.enqueue(value);
      controller.close();
      controller.byobRequest?.respond(0);
    },
    cancel() {
      cancelled = true;
    },
  };
  const body = new ReadableStream(source as unknown as UnderlyingSource<Uint8Array>);
  return { body, isCancelled: () => cancelled };
}
const asRequest = (body: ReadableStream<Uint8Array>, headers: Record<string, string> = {}) => ({
  body,
  headers: new Headers(headers),
});
const inMs = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Bytes, then a pause, over and over. */
async function* trickle(bytesEach: number, pauseMs: number, count: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < count; at++) {
    yield new Uint8Array(bytesEach).fill(0x20);
    await inMs(pauseMs);
  }
}

describe("a body that comes slowly", () => {
  afterEach(() => void vi.useRealTimers());

  /** What becomes of it, in time that only runs when nobody has anything to do. */
  async function outcomeOf(pieces: AsyncIterable<Uint8Array>) {
    vi.useFakeTimers();
    const { body, isCancelled } = streamOf(pieces);
    const fromMs = Date.now();
    const settled = readBytes(asRequest(body)).then(
      (bytes) => ({ bytes: bytes.length, code: undefined, afterMs: Date.now() - fromMs }),
      (error: ApiError) => ({ bytes: -1, code: error.code, afterMs: Date.now() - fromMs }),
    );
    await vi.advanceTimersByTimeAsync(3_600_000);
    const outcome = await settled;
    return { ...outcome, isCancelled: isCancelled(), timers: vi.getTimerCount() };
  }

  it("ends with 408 after 30 s in which nothing comes, is cancelled and leaves no timer", async () => {
    const outcome = await outcomeOf(
      (async function* () {
        yield bytesOf('{"model":');
        await new Promise(() => {});
      })(),
    );
    expect(outcome).toEqual({
      ...{ bytes: -1, code: "request_timeout", afterMs: BODY_PATIENCE_MS, isCancelled: true, timers: 0 },
    });
  });

  it("ends with 408 when it only ever trickles", async () => {
    const { code, afterMs, isCancelled } = await outcomeOf(trickle(100, 1_000, 100_000));
    expect({ code, isCancelled }).toEqual({ code: "request_timeout", isCancelled: true });
    expect(afterMs).toBeGreaterThanOrEqual(BODY_PATIENCE_MS);
    expect(afterMs).toBeLessThan(1.1 * BODY_PATIENCE_MS);
  });

  it("is read when it keeps its pace, however long it takes, and forgives a pause", async () => {
    const seconds = 120;
    const steady = await outcomeOf(trickle(BODY_BYTES_PER_SECOND, 1_000, seconds));
    expect(steady).toMatchObject({ bytes: seconds * BODY_BYTES_PER_SECOND, code: undefined, timers: 0 });
    const paused = await outcomeOf(trickle(10, 20_000, 1));
    expect(paused).toMatchObject({ bytes: 10, code: undefined });
  });

  it("of a form ends the same way, and is not drained first", async () => {
    vi.useFakeTimers();
    const { body, isCancelled } = streamOf(
      (async function* () {
        yield bytesOf('--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc');
        await new Promise(() => {});
      })(),
    );
    const request = asRequest(body, { "content-type": "multipart/form-data; boundary=b" });
    const reading = readForm(request, async ({ content }) => {
      for await (const _ of content);
    }).catch((error: ApiError) => error.code);
    await vi.advanceTimersByTimeAsync(BODY_PATIENCE_MS + 1);
    expect(await reading).toBe("request_timeout");
    expect(isCancelled()).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("that its reader takes its time with is not blamed for it", async () => {
    vi.useFakeTimers();
    const { body } = streamOf(
      (async function* () {
        yield bytesOf('--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n');
        for (let at = 0; at < 5; at++) yield bytesOf("abc".repeat(20_000));
        yield bytesOf("\r\n--b--\r\n");
      })(),
    );
    const request = asRequest(body, { "content-type": "multipart/form-data; boundary=b" });
    let bytes = 0;
    const reading = readForm(request, async ({ content }) => {
      for await (const piece of content) {
        bytes += piece.byteLength;
        await inMs(2 * BODY_PATIENCE_MS);
      }
      return "read";
    });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(await reading).toBe("read");
    expect(bytes).toBe(300_000);
  });
});

describe("the bytes of a body", () => {
  it("are the same in any number of pieces", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 40_000 }), { maxLength: 12, size: "max" }), async (sizes) => {
        const pieces = sizes.map((size, at) => Uint8Array.from({ length: size }, (_, byte) => (at * 31 + byte) % 251));
        const { body } = streamOf(
          (async function* () {
            for (const piece of pieces) yield piece.slice();
          })(),
        );
        const whole = Buffer.concat(pieces);
        expect(whole.equals(await readBytes(asRequest(body)))).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it("are refused beyond what was announced, and what follows is not read", async () => {
    let asked = 0;
    const { body, isCancelled } = streamOf(
      (async function* () {
        for (; asked < 100; asked++) yield bytesOf("[0,".repeat(100));
      })(),
    );
    const reading = readBytes(asRequest(body, { "content-length": "500" }));
    await expect(reading).rejects.toMatchObject({ code: "invalid_json" });
    expect(isCancelled()).toBe(true);
    expect(asked).toBeLessThan(5);
  });

  it("are refused beyond 8 MiB", async () => {
    const { body } = streamOf(
      (async function* () {
        for (let at = 0; at < 9; at++) yield new Uint8Array(MAX_JSON_BYTES / 8);
      })(),
    );
    await expect(readBytes(asRequest(body))).rejects.toMatchObject({ code: "request_too_large" });
  });

  it("that are compressed are not read", async () => {
    const request = new Request("http://platform.test/", {
      ...{ method: "POST", body: "{}", headers: { "content-encoding": "gzip" } },
    });
    await expect(readJson(request)).rejects.toMatchObject({ code: "unsupported_media_type" });
  });
});
