import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TARGETS } from "../../local-ai/adapter";
import { Batcher, type Task } from "../../local-ai/batcher";
import { BLOCK_TOKENS, type Decoder } from "../../local-ai/decoder";
import { loadDecoder, loadWeights } from "./engine";
import { randomAdapter } from "./random-adapter";

const CONTEXT = 512;
const decoder = loadDecoder((8 * CONTEXT) / BLOCK_TOKENS);
const weights = loadWeights();
/** Of several ranks and targets; the first is none. */
const adapters = [
  0,
  ...(
    [
      [8, ["q_proj", "v_proj"]],
      [3, ["o_proj", "k_proj"]],
      [32, TARGETS],
    ] as const
  ).map(([rank, targets], seed) => decoder.loadAdapter(randomAdapter(weights, rank, targets, seed + 1)) ?? -1),
];
const freshBatcher = (of: Decoder = decoder) => new Batcher(of);

interface Asked {
  readonly prompt: readonly number[];
  readonly make: number;
  readonly root: string | null;
  /** Which of {@link adapters}; 0 is the base. */
  readonly adapter?: number;
}
interface Made {
  readonly tokens: number[];
  /** Sums of the logits' bits: what is compared must be exactly equal. */
  readonly prints: number[];
  known: number;
}

/** Greedy, with a print of every step's logits. */
function task({ prompt, make, root, adapter = 0 }: Asked): { task: Task; made: Made } {
  const made: Made = { tokens: [], prints: [], known: 0 };
  const take = (logits: Float32Array) => {
    const bits = new Int32Array(logits.buffer, logits.byteOffset, logits.length);
    made.prints.push(bits.reduce((print, value) => (Math.imul(print, 31) + value) | 0, 0));
    let best = 0;
    for (let id = 1; id < logits.length; id++) if ((logits[id] ?? 0) > (logits[best] ?? 0)) best = id;
    made.tokens.push(best);
    return made.tokens.length < make ? best : null;
  };
  const capacity = prompt.length + make;
  const wanted = { wants: "logits" as const, wantedFrom: prompt.length - 1 };
  return {
    task: {
      prompt,
      capacity,
      adapter: adapters[adapter] ?? -1,
      root: root && `${root}/${adapter}`,
      ...wanted,
      take,
      isReady: () => true,
    },
    made,
  };
}

async function run(batcher: Batcher, asked: Asked, signal = new AbortController().signal): Promise<Made> {
  const { task: one, made } = task(asked);
  made.known = await batcher.run(one, signal);
  return made;
}

const ids = fc.integer({ min: 8, max: 2_047 });
const prompts = fc.array(ids, { minLength: 1, maxLength: 90 });
const asks = fc.record({
  prompt: prompts,
  make: fc.integer({ min: 1, max: 20 }),
  root: fc.constantFrom(null, "a", "b"),
  adapter: fc.nat(3),
});
/** Neighbours whose prompts begin alike. */
const neighbours = fc
  .tuple(prompts, fc.array(asks, { minLength: 1, maxLength: 7 }))
  .map(([shared, each]) =>
    each.map((one, index) => (index % 2 === 0 ? one : { ...one, prompt: [...shared, ...one.prompt] })),
  );

describe("sequences in one batch", () => {
  it("make what each makes alone, to the bit, whoever stands beside it and whatever it shares", async () => {
    await fc.assert(
      fc.asyncProperty(neighbours, async (each) => {
        const batcher = freshBatcher();
        const together = await Promise.all(each.map((asked) => run(batcher, asked)));
        const again = await Promise.all(each.map((asked) => run(batcher, asked)));
        for (const [index, asked] of each.entries()) {
          const alone = await run(freshBatcher(), { ...asked, root: null });
          for (const made of [together[index], again[index]])
            expect({ tokens: made?.tokens, prints: made?.prints }).toEqual({
              tokens: alone.tokens,
              prints: alone.prints,
            });
        }
      }),
      { numRuns: 15 },
    );
  });

  it("are what their adapters make of them", async () => {
    const prompt = [9, 10, 11, 12];
    const made = await Promise.all(
      adapters.map((_, adapter) => run(freshBatcher(), { prompt, make: 1, root: null, adapter })),
    );
    expect(new Set(made.map(({ prints }) => prints[0])).size).toBe(adapters.length);
  });

  it("share what was computed of a prompt inside a root, whole blocks of it, and nothing between roots", async () => {
    const batcher = freshBatcher();
    const prompt = Array.from({ length: 100 }, (_, index) => 8 + index);
    const ask = (root: string | null, more: readonly number[] = []) =>
      run(batcher, { prompt: [...prompt, ...more], make: 2, root });
    expect((await ask("acme")).known).toBe(0);
    expect((await ask("acme")).known).toBe(96);
    expect((await ask("acme", [7, 7, 7])).known).toBe(96);
    expect((await ask("globex")).known).toBe(0);
    expect((await ask(null)).known).toBe(0);
    expect((await ask(null)).known).toBe(0);
    expect(batcher.counters.reused).toBe(192);
  });

  it("leave at once when they are told to, and give back every block, however they end", async () => {
    const ends = fc.array(fc.record({ asked: asks, leavesAfter: fc.option(fc.nat(6), { nil: undefined }) }), {
      minLength: 20,
      maxLength: 40,
    });
    await fc.assert(
      fc.asyncProperty(ends, async (each) => {
        const batcher = freshBatcher();
        const waiting = [...each];
        const lane = async () => {
          for (let next = waiting.pop(); next; next = waiting.pop()) {
            const { asked, leavesAfter } = next;
            const abort = new AbortController();
            const { task: one, made } = task(asked);
            const take: Task["take"] = (logits, position) => {
              if (made.tokens.length === leavesAfter) queueMicrotask(() => abort.abort());
              return one.take(logits, position);
            };
            if (leavesAfter === 0) abort.abort();
            await batcher.run({ ...one, take }, abort.signal);
            if (leavesAfter === undefined) expect(made.tokens).toHaveLength(asked.make);
            else expect(made.tokens.length).toBeLessThanOrEqual(Math.max(asked.make, leavesAfter + 1));
          }
        };
        await Promise.all(Array.from({ length: 8 }, lane));
        expect(batcher.idleBlocks).toBe(decoder.blocks);
      }),
      { numRuns: 10 },
    );
  });

  it("advance together: eight that generate cost as many steps as one", async () => {
    const batcher = freshBatcher();
    const prompt = [9, 10, 11];
    await Promise.all(Array.from({ length: 8 }, () => run(batcher, { prompt, make: 30, root: null })));
    expect(batcher.counters.rows).toBe(8 * (prompt.length + 29));
    expect(batcher.counters.steps).toBeLessThan(2 * 30);
  });

  it("go on while a long prompt is read beside them, a token each step", async () => {
    const batcher = freshBatcher();
    const short = task({ prompt: [9], make: 20, root: null });
    const long = run(batcher, { prompt: Array.from({ length: 400 }, () => 300), make: 1, root: null });
    const before = batcher.counters.steps;
    await batcher.run(short.task, new AbortController().signal);
    expect(batcher.counters.steps - before).toBeLessThanOrEqual(22);
    await long;
  });

  it("wait for a reader that is behind, and nobody waits with them", async () => {
    const batcher = freshBatcher();
    let isReady = true;
    const slow = task({ prompt: [9], make: 10, root: null });
    const running = batcher.run(
      {
        ...slow.task,
        isReady: () => isReady,
        take: (logits, position) => {
          if (slow.made.tokens.length === 3) isReady = false;
          return slow.task.take(logits, position);
        },
      },
      new AbortController().signal,
    );
    expect((await run(batcher, { prompt: [10], make: 50, root: null })).tokens).toHaveLength(50);
    expect(slow.made.tokens).toHaveLength(4);
    isReady = true;
    batcher.nudge();
    await running;
    expect(slow.made.tokens).toHaveLength(10);
  });

  it("are refused when there would be no room for all that they may become", async () => {
    const batcher = freshBatcher();
    const signal = new AbortController().signal;
    const tooLong = task({ prompt: [9], make: decoder.blocks * BLOCK_TOKENS, root: null });
    await expect(batcher.run(tooLong.task, signal)).rejects.toThrow(RangeError);
    await expect(batcher.run({ ...tooLong.task, prompt: [], capacity: 5 }, signal)).rejects.toThrow(RangeError);
    expect((await run(batcher, { prompt: [9], make: 1, root: null })).tokens).toHaveLength(1);
  });

  it("all end with the error of a step that failed, and the next ones run", async () => {
    const batcher = freshBatcher();
    const broken = task({ prompt: [9], make: 5, root: null });
    const take = () => {
      throw new Error("no tokens today");
    };
    await expect(batcher.run({ ...broken.task, take }, new AbortController().signal)).rejects.toThrow(
      "no tokens today",
    );
    expect((await run(batcher, { prompt: [9], make: 3, root: null })).tokens).toHaveLength(3);
    expect(batcher.idleBlocks).toBe(decoder.blocks);
  });
});
