import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { turn } from "../../local-ai/event-loop";
import { parseExamples } from "../../local-ai/trainer/examples";
import { batchAt, type Hyperparameters, hyperparameters, learningRateAt } from "../../local-ai/trainer/schedule";
import { Trainer } from "../../local-ai/trainer/trainer";
import { heldOutFile, trainingFile } from "./brand-voice";
import { loadTokenizer, loadTrainerModule, loadWeights } from "./engine";

const weights = loadWeights();
const tokenizer = loadTokenizer();
const module = loadTrainerModule();
const examples = await parseExamples(trainingFile(), tokenizer, 512);
const heldOut = await parseExamples(heldOutFile(), tokenizer, 512);
const never = new AbortController().signal;

const trainerOf = (chosen: Partial<Hyperparameters> = {}) =>
  new Trainer(module, weights, examples, hyperparameters({ steps: 6, batchSize: 2, warmUpSteps: 2, ...chosen }));
const digest = () => {
  const hash = createHash("sha256").update(weights.embedding).update(weights.norm);
  for (const layer of weights.layers) for (const matrix of Object.values(layer)) hash.update(matrix);
  return hash.digest("hex");
};
async function advance(trainer: Trainer, steps: number): Promise<number[]> {
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) losses.push((await trainer.advance(never)).loss);
  return losses;
}

describe("training", () => {
  it("brings the loss of held-out examples below 0.6 of the base's, and leaves the base as it was", async () => {
    const before = digest();
    const trainer = trainerOf({ steps: 30, batchSize: 8, warmUpSteps: 5 });
    const base = await trainer.validate(heldOut, never);
    await advance(trainer, 30);
    expect(await trainer.validate(heldOut, never)).toBeLessThan(0.6 * base);
    expect(digest()).toBe(before);
  }, 60_000);

  it("starts from the base: an untrained adapter changes no loss", async () => {
    const losses = await Promise.all(
      [1, 2].map((seed) => trainerOf({ seed, rank: seed * 4 }).validate(heldOut.slice(0, 3), never)),
    );
    expect(losses[0]).toBe(losses[1]);
  });

  it("gives the same bits for the same seed, and others for another", async () => {
    const [one, same, other] = [trainerOf(), trainerOf(), trainerOf({ seed: 2 })];
    for (const trainer of [one, same, other]) await advance(trainer, 3);
    expect(same.adapter()).toEqual(one.adapter());
    expect(other.adapter()).not.toEqual(one.adapter());
  });

  it("goes on from a checkpoint with the bits of a training that was never interrupted", async () => {
    const whole = trainerOf();
    const losses = await advance(whole, 6);
    for (const at of [0, 2, 5]) {
      const first = trainerOf();
      await advance(first, at);
      const second = trainerOf();
      second.restore(first.checkpoint());
      expect(await advance(second, 6 - at)).toEqual(losses.slice(at));
      expect(second.isDone).toBe(true);
      expect(second.checkpoint()).toEqual(whole.checkpoint());
    }
  });

  it("refuses a checkpoint of another adapter's shape and keeps what it has", async () => {
    const trainer = trainerOf();
    await advance(trainer, 1);
    const before = trainer.checkpoint();
    expect(() => trainer.restore(trainerOf({ rank: 16 }).checkpoint())).toThrow(/of another training/);
    expect(() => trainer.restore(new Uint8Array(20))).toThrow();
    expect(trainer.checkpoint()).toEqual(before);
  });

  it("undoes the step in which it is stopped, wherever that is", async () => {
    const whole = trainerOf({ batchSize: 4 });
    await advance(whole, 2);
    const stopped = trainerOf({ batchSize: 4 });
    await advance(stopped, 1);
    for (const turns of [0, 1, 3]) {
      const abort = new AbortController();
      const outcome = stopped.advance(abort.signal).catch((error: Error) => error.name);
      for (let i = 0; i < turns; i++) await turn();
      abort.abort();
      expect(await outcome).toBe("AbortError");
      expect(stopped.step).toBe(1);
    }
    await advance(stopped, 1);
    expect(stopped.checkpoint()).toEqual(whole.checkpoint());
  });

  it("lets others have their turn many times in one step", async () => {
    const tokens = Array.from({ length: 512 }, (_, at) => at + 8);
    const long = { tokens, targets: tokens.map((_, at) => tokens[at + 1] ?? -1) };
    const trainer = new Trainer(module, weights, [long], hyperparameters({ batchSize: 1 }));
    let turns = 0;
    let isRunning = true;
    const other = (async () => {
      for (; isRunning; turns++) await turn();
    })();
    await trainer.advance(never);
    isRunning = false;
    await other;
    expect(turns).toBeGreaterThan(30); // five layers, two halves, there and back, and sixteen parts of the loss
  });
});

describe("batches", () => {
  it("show every example once before any twice, in an order of their seed", () => {
    fc.assert(
      fc.property(fc.nat({ max: 40 }), fc.integer({ min: 1, max: 9 }), fc.nat(), (more, batchSize, seed) => {
        const count = more + 1;
        const seen = Array.from({ length: 3 * count }, (_, step) => batchAt(step, batchSize, count, seed)).flat();
        for (let from = 0; from + count <= seen.length; from += count)
          expect(new Set(seen.slice(from, from + count)).size).toBe(count);
      }),
    );
    expect(batchAt(0, 50, 50, 1)).not.toEqual(batchAt(0, 50, 50, 2));
    expect(batchAt(0, 50, 50, 1)).not.toEqual(batchAt(1, 50, 50, 1));
  });
});

describe("the learning rate", () => {
  it("rises to its height while it warms up and falls from there to the end, never to nothing", () => {
    const chosen = hyperparameters({ steps: 100, warmUpSteps: 10, learningRate: 1 });
    const rates = Array.from({ length: 100 }, (_, step) => learningRateAt(chosen, step));
    expect(rates.indexOf(Math.max(...rates))).toBe(9);
    for (let step = 10; step < 100; step++) expect(rates[step]).toBeLessThanOrEqual(rates[step - 1] ?? 0);
    expect(Math.min(...rates)).toBeGreaterThan(0);
  });
});
