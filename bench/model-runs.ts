import type { LoraAdapter } from "../local-ai/adapter";
import { AdapterCache } from "../local-ai/adapter-cache";
import { bindWeights, type Config, type Weights } from "../local-ai/base-weights";
import { Batcher, type Task } from "../local-ai/batcher";
import { BLOCK_TOKENS, Decoder, MAX_ROWS } from "../local-ai/decoder";
import { parseSafetensors } from "../local-ai/safetensors";
import { computeLogits, forward, Sequence } from "../test/local-ai/oracle";
import { randomAdapter } from "../test/local-ai/random-adapter";

export interface Row {
  readonly what: string;
  readonly measured: string;
  readonly against: string;
  readonly ratio: number;
  readonly wanted: { readonly says: string; readonly least?: number; readonly most?: number };
  /** Of each round. */
  readonly raw: readonly (readonly [number, number])[];
}
interface Files {
  readonly kernel: Uint8Array;
  readonly weights: Uint8Array;
  readonly config: Config;
}

const ROUNDS = 7;
const TOKENS = 200;
const CONTEXT = 512;
const BLOCKS = (16 * CONTEXT) / BLOCK_TOKENS;

export async function measureAll(files: Files, tell: (line: string) => void): Promise<Row[]> {
  const { buffer, byteOffset, byteLength } = files.weights;
  const weights = bindWeights(
    files.config,
    parseSafetensors(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer),
  );
  const module = await (WebAssembly as unknown as { compile(bytes: Uint8Array): Promise<WebAssembly.Module> }).compile(
    files.kernel,
  );
  const decoder = new Decoder(module, weights, BLOCKS);
  const adapters = Array.from({ length: 64 }, (_, index) => randomAdapter(weights, 8, ["q_proj", "v_proj"], index + 1));
  const handles = adapters.slice(0, 8).map((adapter) => decoder.loadAdapter(adapter) as number);
  const batch = (count: number, adapterOf: (index: number) => number) => generateTogether(decoder, count, adapterOf);
  const oneByOne = async (count: number, adapterOf: (index: number) => number) => {
    let seconds = 0;
    for (let index = 0; index < count; index++) seconds += (await batch(1, () => adapterOf(index))).seconds;
    return { seconds, tokens: count * TOKENS };
  };
  const perSecond = ({ tokens, seconds }: Timed) => tokens / seconds;
  const adapterOf = (index: number) => handles[index % 8] as number;
  const row = async (
    what: string,
    unit: string,
    wanted: Row["wanted"],
    one: () => Timed | Promise<Timed>,
    other: () => Timed | Promise<Timed>,
  ): Promise<Row> => {
    tell(what);
    await one();
    await other();
    const raw: [number, number][] = [];
    for (let round = 0; round < ROUNDS; round++) raw.push([perSecond(await one()), perSecond(await other())]);
    const [measured, against] = [median(raw.map(([value]) => value)), median(raw.map(([, value]) => value))];
    const ratio = median(raw.map(([value, base]) => value / base));
    const shown = (value: number) => `${value.toFixed(value < 100 ? 2 : 0)} ${unit}`;
    return { what, measured: shown(measured), against: shown(against), ratio, wanted, raw };
  };
  const none = () => 0;
  return [
    await row(
      "decode, one sequence, against plain TypeScript float32",
      "tokens/s",
      { says: "≥ 7", least: 7 },
      () => decode(decoder, TOKENS),
      () => plainDecode(weights, TOKENS),
    ),
    await row(
      "prefill of 192 tokens, against the same",
      "tokens/s",
      { says: "≥ 10", least: 10 },
      () => prefill(decoder, 192),
      () => plainPrefill(weights, 192),
    ),
    await row(
      "8 sequences with 8 adapters in one batch, against one after another",
      "tokens/s",
      { says: "≥ 1.15", least: 1.15 },
      () => batch(8, adapterOf),
      () => oneByOne(8, adapterOf),
    ),
    await row(
      "the same batch without adapters, against with them",
      "tokens/s",
      { says: "≤ 1.33 (adapters cost ≤ 25 %)", most: 1 / 0.75 },
      () => batch(8, none),
      () => batch(8, adapterOf),
    ),
    await row(
      "p50 to a first token, 64 adapters in turn, against one",
      "1/s",
      { says: "≥ 0.5", least: 0.5 },
      () => firstTokens(decoder, adapters),
      () => firstTokens(decoder, adapters.slice(0, 1)),
    ),
    memory(decoder, adapters),
  ];
}

interface Timed {
  readonly seconds: number;
  readonly tokens: number;
}
const timed = (tokens: number, work: () => void): Timed => {
  const startMs = performance.now();
  work();
  return { tokens, seconds: (performance.now() - startMs) / 1000 };
};
const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const tokenAt = (index: number) => 8 + ((index * 37) % 2_000);

function ownTable(decoder: Decoder): number {
  const table = decoder.createTable();
  for (let index = 0; index < CONTEXT / BLOCK_TOKENS; index++) decoder.setBlock(table, index, index);
  return table;
}

function decode(decoder: Decoder, tokens: number): Timed {
  const table = ownTable(decoder);
  const result = timed(tokens, () => {
    for (let position = 0; position < tokens; position++)
      decoder.step([{ token: tokenAt(position), position, table, adapter: 0, wants: "logits" }]);
  });
  decoder.freeTable(table);
  return result;
}

function plainDecode(weights: Weights, tokens: number): Timed {
  const sequence = new Sequence(weights, tokens);
  return timed(tokens, () => {
    for (let position = 0; position < tokens; position++) {
      forward(weights, sequence, tokenAt(position));
      computeLogits(weights, sequence);
    }
  });
}

function prefill(decoder: Decoder, tokens: number): Timed {
  const table = ownTable(decoder);
  const result = timed(tokens, () => {
    for (let from = 0; from < tokens; from += MAX_ROWS) {
      const rows = Array.from({ length: Math.min(MAX_ROWS, tokens - from) }, (_, at) => {
        return { token: tokenAt(from + at), position: from + at, table, adapter: 0, wants: "nothing" as const };
      });
      decoder.step(rows);
    }
  });
  decoder.freeTable(table);
  return result;
}

function plainPrefill(weights: Weights, tokens: number): Timed {
  const sequence = new Sequence(weights, tokens);
  return timed(tokens, () => {
    for (let position = 0; position < tokens; position++) forward(weights, sequence, tokenAt(position));
  });
}

function greedy(prompt: readonly number[], make: number, adapter: number, onFirst?: () => void): Task {
  let made = 0;
  const take = (logits: Float32Array) => {
    if (made++ === 0) onFirst?.();
    let best = 0;
    for (let id = 1; id < logits.length; id++) if ((logits[id] as number) > (logits[best] as number)) best = id;
    return made < make ? best : null;
  };
  const wanted = { wants: "logits" as const, wantedFrom: prompt.length - 1 };
  return { prompt, capacity: prompt.length + make, adapter, root: null, ...wanted, take, isReady: () => true };
}

async function generateTogether(decoder: Decoder, count: number, adapterOf: (index: number) => number): Promise<Timed> {
  const batcher = new Batcher(decoder);
  const { signal } = new AbortController();
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      batcher.run(greedy([tokenAt(index), tokenAt(index + 1)], TOKENS, adapterOf(index)), signal),
    ),
  );
  return { tokens: count * TOKENS, seconds: (performance.now() - startMs) / 1000 };
}

/** First tokens of calls whose adapters come in turn, the first time loaded and then known. The median call counts. */
async function firstTokens(decoder: Decoder, adapters: readonly LoraAdapter[]): Promise<Timed> {
  const cache = new AdapterCache(decoder);
  const batcher = new Batcher(decoder);
  const { signal } = new AbortController();
  const prompt = Array.from({ length: 32 }, (_, index) => tokenAt(index));
  const times: number[] = [];
  for (let call = 0; call < 192; call++) {
    const index = call % adapters.length;
    const startMs = performance.now();
    const lease = await cache.take(String(index), async () => adapters[index] as LoraAdapter);
    if (!lease) throw new Error("the adapters do not fit");
    await batcher.run(
      greedy(prompt, 1, lease.handle, () => times.push(performance.now() - startMs)),
      signal,
    );
    lease.release();
  }
  cache.clear();
  return { tokens: 1, seconds: median(times) / 1000 };
}

/** The engine's whole memory with 64 adapters loaded and room for 16 sequences at their longest. */
function memory(decoder: Decoder, adapters: readonly LoraAdapter[]): Row {
  const cache = adapters.map((adapter) => decoder.loadAdapter(adapter));
  const loaded = cache.filter((handle) => handle !== undefined);
  for (const handle of loaded) decoder.freeAdapter(handle);
  const megabytes = decoder.memoryBytes / 1024 / 1024;
  return {
    what: `memory of the engine, MB, with room for 16 sequences and ${loaded.length} adapters`,
    measured: `${megabytes.toFixed(1)} MB`,
    against: "128 MB",
    ratio: megabytes / 128,
    wanted: { says: "≤ 1", most: 1 },
    raw: [],
  };
}
