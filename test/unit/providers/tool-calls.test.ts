import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ChatDelta, ProviderError } from "../../../src/inference/provider";
import { ReplyReader, type ReplyRules } from "../../../src/inference/providers/reply-reader";
import { toolCallsIn } from "./calls";

const failureOf = () => new ProviderError("broken", "as the reply says");
let made = 0;
const RULES: ReplyRules = {
  ...{ usagePerChunk: false, zeroPromptIsUncounted: false, failureOf },
  newCallId: () => `own_${made++}`,
};

type Piece = Readonly<Record<string, unknown>>;
const fn = (name: string | undefined, args: unknown) => ({ function: { ...(name ? { name } : {}), arguments: args } });
const chunk = (...tool_calls: readonly Piece[]) => ({ choices: [{ index: 0, delta: { tool_calls } }] });
const END = { choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] };

function read(pieces: readonly unknown[], more: Partial<ReplyRules> = {}): ChatDelta[] {
  const reader = new ReplyReader({ choices: 1, maxOutputTokens: 100 }, { ...RULES, ...more });
  return [...pieces.flatMap((piece) => [...reader.read(piece)]), ...reader.end()];
}
/** What a client puts together that follows the contract: by index, id and name with the first piece. */
function assembled(deltas: readonly ChatDelta[]): [id: string, name: string, text: string][] {
  const calls: [string, string, string][] = [];
  for (const { index, id, name, arguments: text } of toolCallsIn(deltas)) {
    const known = calls[index];
    expect(known === undefined).toBe(id !== undefined && name !== undefined);
    if (known) known[2] += text;
    else calls[index] = [id ?? "", name ?? "", text];
  }
  return calls;
}
const streamed = (...pieces: readonly Piece[]) => assembled(read([...pieces.map((piece) => chunk(piece)), END]));

describe("two calls under one index", () => {
  const OSLO = '{"city":"Oslo"}';
  it("are two by their names, or their ids, streamed and whole", () => {
    const first = { index: 0, id: "a", ...fn("weather", OSLO) };
    for (const second of [
      { index: 0, id: "b", ...fn("clock", "{}") },
      { index: 0, id: "b", ...fn("weather", "{}") },
    ]) {
      const { name } = second.function;
      expect(streamed(first, second)).toEqual([
        ["a", "weather", OSLO],
        ["b", name, "{}"],
      ]);
      const whole = { choices: [{ message: { tool_calls: [first, second] }, finish_reason: "tool_calls" }] };
      expect(assembled(read([whole]))).toEqual([
        ["a", "weather", OSLO],
        ["b", name, "{}"],
      ]);
    }
  });

  it("are two without ids, where the first is complete", () => {
    const calls = streamed({ index: 0, ...fn("roll", '{"n":1}') }, { index: 0, ...fn("roll", '{"n":2}') });
    expect(calls.map(([, name, text]) => [name, text])).toEqual([
      ["roll", '{"n":1}'],
      ["roll", '{"n":2}'],
    ]);
    expect(new Set(calls.map(([id]) => id)).size).toBe(2);
  });

  it("are two by their names before the first is complete", () => {
    const calls = streamed(
      { index: 0, id: "a", ...fn("weather", '{"x"') },
      { index: 0, id: "b", ...fn("clock", '{"y"') },
      { index: 0, id: "a", ...fn(undefined, ":1}") },
      { index: 0, id: "b", ...fn(undefined, ":2}") },
    );
    expect(calls).toEqual([
      ["a", "weather", '{"x":1}'],
      ["b", "clock", '{"y":2}'],
    ]);
  });

  it("stay apart by their ids while their pieces alternate", () => {
    const calls = streamed(
      { index: 0, id: "a", ...fn("weather", "") },
      { index: 0, id: "b", ...fn("clock", "") },
      { index: 0, id: "a", ...fn(undefined, '{"x"') },
      { index: 0, id: "b", ...fn(undefined, '{"y"') },
      { index: 0, id: "a", ...fn(undefined, ":1}") },
      { index: 0, id: "b", ...fn(undefined, ":2}") },
    );
    expect(calls).toEqual([
      ["a", "weather", '{"x":1}'],
      ["b", "clock", '{"y":2}'],
    ]);
  });
});

describe("one call", () => {
  it.each<[string, Piece[]]>([
    [
      "whose id changes in the middle",
      [
        { index: 0, id: "a", ...fn("f", '{"x"') },
        { index: 0, id: "z", ...fn("f", ":1}") },
      ],
    ],
    [
      "whose id changes without a name",
      [
        { index: 0, id: "a", ...fn("f", "") },
        { index: 0, id: "z", ...fn(undefined, '{"x":1}') },
      ],
    ],
    [
      "whose name is repeated in every piece",
      [
        { index: 0, id: "a", ...fn("f", '{"x') },
        { index: 0, id: "a", ...fn("f", '":1}') },
      ],
    ],
    [
      "that is said again as a whole",
      [
        { index: 0, id: "a", ...fn("f", '{"x":1}') },
        { index: 0, id: "a", ...fn("f", '{"x":1}') },
      ],
    ],
    [
      "whose name comes after its id",
      [
        { index: 0, id: "a" },
        { index: 0, ...fn("f", '{"x":1}') },
      ],
    ],
    [
      "whose name comes after its arguments",
      [
        { index: 0, id: "a", ...fn(undefined, '{"x"') },
        { index: 0, ...fn("f", ":1}") },
      ],
    ],
    [
      "whose index is a text",
      [
        { index: "0", id: "a", ...fn("f", '{"x"') },
        { index: 0, ...fn(undefined, ":1}") },
      ],
    ],
    ["whose later pieces lack the index", [{ index: 0, id: "a", ...fn("f", '{"x"') }, { ...fn(undefined, ":1}") }]],
    ["in the flat form, with an object", [{ id: "a", name: "f", arguments: { x: 1 } }]],
  ])("%s is one", (_, pieces) => {
    expect(streamed(...pieces)).toEqual([["a", "f", '{"x":1}']]);
  });

  it("in the old form is one, too", () => {
    const deltas = read([
      { choices: [{ delta: { function_call: { name: "f", arguments: '{"x"' } } }] },
      { choices: [{ delta: { function_call: { arguments: ":1}" } }, finish_reason: "function_call" }] },
    ]);
    expect(assembled(deltas)).toMatchObject([[expect.any(String), "f", '{"x":1}']]);
  });

  it("without arguments is called with none, unless it was cut", () => {
    expect(streamed({ index: 0, id: "a", ...fn("f", null) })).toEqual([["a", "f", "{}"]]);
    const cut = read([
      chunk({ index: 0, id: "a", ...fn("f", "") }),
      { choices: [{ delta: {}, finish_reason: "length" }] },
    ]);
    expect(assembled(cut)).toEqual([["a", "f", ""]]);
  });

  it("without a name is no call that anybody could make", () => {
    expect(() => streamed({ index: 0, ...fn(undefined, '{"x":1}') })).toThrow(ProviderError);
  });

  it("is the only one where one at most was asked for and the server cannot be told", () => {
    const pieces = [
      chunk({ index: 0, id: "a", ...fn("f", "{}") }),
      chunk({ index: 1, id: "b", ...fn("g", "{}") }),
      END,
    ];
    expect(assembled(read(pieces, { hasOneCall: true }))).toEqual([["a", "f", "{}"]]);
  });
});

describe("calls", () => {
  it("keep their own arguments in whatever order the pieces come, and never share an id", () => {
    const anyCalls = fc.array(
      fc.record({
        id: fc.constantFrom(undefined, "", "same", "a", "b", "c"),
        name: fc.constantFrom("f", "g"),
        args: fc.dictionary(fc.string({ maxLength: 3 }), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 3 }),
        cuts: fc.array(fc.nat({ max: 30 }), { maxLength: 3 }),
      }),
      { minLength: 1, maxLength: 4 },
    );
    fc.assert(
      fc.property(anyCalls, fc.array(fc.nat({ max: 3 }), { maxLength: 20 }), (calls, order) => {
        const queues = calls.map(({ id, name, args, cuts }, index) => {
          const text = JSON.stringify(args);
          const places = [...new Set(cuts.map((cut) => cut % text.length))].sort((a, b) => a - b);
          const texts = [0, ...places].map((from, at) => text.slice(from, places[at] ?? text.length));
          return [{ index, id, ...fn(name, "") }, ...texts.map((piece) => ({ index, ...fn(undefined, piece) }))];
        });
        const pieces: Piece[] = queues.flatMap((queue) => queue.splice(0, 1)); // openings in their order
        for (const drawn of order) pieces.push(...(queues[drawn % queues.length]?.splice(0, 1) ?? []));
        for (const queue of queues) pieces.push(...queue);
        const got = streamed(...pieces);
        expect(got.map(([, name, text]) => [name, JSON.parse(text)])).toEqual(
          calls.map(({ name, args }) => [name, JSON.parse(JSON.stringify(args))]),
        );
        expect(new Set(got.map(([id]) => id)).size).toBe(calls.length);
      }),
    );
  });
});
