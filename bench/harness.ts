import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";

/** One way of doing the thing that is measured. */
export interface Variant {
  readonly name: string;
  /** One call; it throws when its reply is not the right one. */
  readonly call: () => Promise<void>;
}

export interface Sample {
  readonly variant: string;
  readonly round: number;
  readonly callsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface MeasureOptions {
  readonly name: string;
  readonly variants: readonly Variant[];
  readonly rounds: number;
  readonly secondsPerRound: number;
  /** Calls under way at any time. */
  readonly connections: number;
}

/**
 * Measures variants in turns, round by round, in one run: machines are noisy, so only the ratios of a run say
 * something. Raw samples go to bench/results/<name>.json. Every failed call ends the run: a fast error is no speed.
 */
export async function measure(options: MeasureOptions): Promise<readonly Sample[]> {
  const samples: Sample[] = [];
  for (const variant of options.variants) await load(variant, options, 1); // warm
  for (let round = 0; round < options.rounds; round++) {
    for (const variant of options.variants) {
      const timings = await load(variant, options, options.secondsPerRound);
      const sorted = timings.sort((a, b) => a - b);
      const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
      const callsPerSecond = sorted.length / options.secondsPerRound;
      samples.push({ variant: variant.name, round, callsPerSecond, p50Ms: at(0.5), p99Ms: at(0.99) });
      process.stderr.write(`round ${round + 1}/${options.rounds} ${variant.name}: ${callsPerSecond.toFixed(0)}/s\n`);
    }
  }
  const folder = join(import.meta.dirname, "results");
  mkdirSync(folder, { recursive: true });
  const { name, rounds, secondsPerRound, connections } = options;
  const machine = { cores: cpus().length, processor: cpus()[0]?.model ?? "", node: process.version };
  const raw = { name, machine, rounds, secondsPerRound, connections, samples };
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(raw, null, 1)}\n`);
  return samples;
}

/** @returns milliseconds of every call that ended in time */
async function load(variant: Variant, { connections }: MeasureOptions, seconds: number): Promise<number[]> {
  const timings: number[] = [];
  const endMs = performance.now() + seconds * 1000;
  const worker = async () => {
    for (let startMs = performance.now(); startMs < endMs; startMs = performance.now()) {
      await variant.call();
      timings.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: connections }, worker));
  return timings;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Medians of each variant, and each variant's ratio to the first. */
export function table(samples: readonly Sample[]): string {
  const byVariant = Map.groupBy(samples, (sample) => sample.variant);
  const rows = [...byVariant].map(([variant, of]) => ({
    variant,
    perSecond: median(of.map((sample) => sample.callsPerSecond)),
    p50Ms: median(of.map((sample) => sample.p50Ms)),
    p99Ms: median(of.map((sample) => sample.p99Ms)),
  }));
  const base = rows[0]?.perSecond ?? 1;
  const lines = rows.map(
    ({ variant, perSecond, p50Ms, p99Ms }) =>
      `| ${variant} | ${perSecond.toFixed(0)} | ${p50Ms.toFixed(1)} | ${p99Ms.toFixed(1)} | ${(perSecond / base).toFixed(2)} |`,
  );
  return ["| variant | calls/s | p50 ms | p99 ms | ratio |", "|---|---|---|---|---|", ...lines].join("\n");
}
