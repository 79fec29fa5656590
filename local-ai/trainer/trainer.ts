import type { LoraAdapter } from "../adapter";
import type { Weights } from "../base-weights";
import { turn } from "../event-loop";
import { mulberry32, normalFrom } from "../random";
import { parseSafetensors, serialiseSafetensors, type Tensor } from "../safetensors";
import { AdamW } from "./adamw";
import { type Example, Machine } from "./machine";
import { batchAt, type Hyperparameters, learningRateAt } from "./schedule";

/** The gradients of a step are shortened to this length. */
const MAX_NORM = 1;
/** Tokens times layers' halves between two turns of the event loop: 5 ms of work, 10 where one is longer. */
const WORK_PER_TURN = 512;

export interface StepReport {
  /** Steps that are done, this one too. */
  readonly step: number;
  /** Of the batch before the step, nats a token that is learned. */
  readonly loss: number;
  readonly learningRate: number;
  /** Length of the gradients before they were shortened. */
  readonly gradientNorm: number;
  /** Of the batch. */
  readonly tokens: number;
}

/**
 * LoRA fine-tuning (Hu et al. 2021) of the base on examples. Everything is decided by examples, hyperparameters and
 * seed, so a training that goes on from a checkpoint gives the same bits as one that was never interrupted. It lets
 * others have their turn every few milliseconds; when it is told to stop in the middle of a step, the step did not
 * happen.
 */
export class Trainer {
  readonly #machine: Machine;
  readonly #adam: AdamW;
  readonly #examples: readonly Example[];
  readonly #chosen: Hyperparameters;
  #step = 0;
  #work = 0;

  constructor(module: WebAssembly.Module, weights: Weights, examples: readonly Example[], chosen: Hyperparameters) {
    this.#chosen = chosen;
    this.#examples = examples;
    const { targets, rank, alpha, seed } = chosen;
    this.#machine = new Machine(module, weights, { targets, rank, scale: alpha / rank });
    this.#machine.initialise(normalFrom(mulberry32(seed)));
    this.#adam = new AdamW(this.#machine.parameterCount);
  }

  /** Steps that are done. */
  get step(): number {
    return this.#step;
  }

  get isDone(): boolean {
    return this.#step >= this.#chosen.steps;
  }

  get memoryBytes(): number {
    return this.#machine.memoryBytes;
  }

  /** One step. @throws the signal's reason when it is aborted; parameters are then as before */
  async advance(signal: AbortSignal): Promise<StepReport> {
    const { batchSize, seed } = this.#chosen;
    const batch = batchAt(this.#step, batchSize, this.#examples.length, seed).map(
      (at) => this.#examples[at] as Example,
    );
    const tokens = batch.reduce((sum, example) => sum + targetsOf(example), 0);
    this.#machine.gradients.fill(0);
    let loss = 0;
    for (const example of batch) loss += await this.#examine(example, 1 / tokens, signal);
    const learningRate = learningRateAt(this.#chosen, this.#step);
    this.#step++;
    const { parameters, gradients } = this.#machine;
    const gradientNorm = this.#adam.update(parameters, gradients, this.#step, learningRate, MAX_NORM);
    return { step: this.#step, loss: loss / tokens, learningRate, gradientNorm, tokens };
  }

  /** Mean loss of examples that are not learned from, nats a token. */
  async validate(examples: readonly Example[], signal: AbortSignal): Promise<number> {
    let loss = 0;
    for (const example of examples) loss += await this.#examine(example, 0, signal);
    return loss / examples.reduce((sum, example) => sum + targetsOf(example), 0);
  }

  /** What was trained so far. */
  adapter(): LoraAdapter {
    return this.#machine.adapter();
  }

  /** All that changes while training. */
  checkpoint(): Uint8Array {
    const tensor = (data: Float32Array): Tensor => ({ shape: [data.length], data });
    const { mean, variance } = this.#adam;
    const state = { step: Float32Array.of(this.#step), parameters: this.#machine.parameters, mean, variance };
    return serialiseSafetensors(new Map(Object.entries(state).map(([name, data]) => [name, tensor(data)])), {});
  }

  /** Goes on where a checkpoint was made with the same examples and hyperparameters. @throws TypeError for another's */
  restore(checkpoint: Uint8Array): void {
    const tensors = parseSafetensors(checkpoint);
    const take = (name: string, length: number): Float32Array => {
      const tensor = tensors.get(name);
      if (tensor?.data.length !== length) throw new TypeError(`the checkpoint is of another training: ${name} differs`);
      return tensor.data;
    };
    const count = this.#machine.parameterCount;
    const [step, parameters, mean, variance] = [
      take("step", 1),
      ...["parameters", "mean", "variance"].map((name) => take(name, count)),
    ] as [Float32Array, Float32Array, Float32Array, Float32Array];
    this.#step = step[0] as number;
    this.#machine.parameters.set(parameters);
    this.#adam.mean.set(mean);
    this.#adam.variance.set(variance);
  }

  async #examine(example: Example, share: number, signal: AbortSignal): Promise<number> {
    const steps = this.#machine.examine(example, share);
    for (;;) {
      signal.throwIfAborted();
      const { done, value } = steps.next();
      if (done) return value;
      this.#work += example.tokens.length;
      if (this.#work < WORK_PER_TURN) continue;
      this.#work = 0;
      await turn();
    }
  }
}

const targetsOf = ({ targets }: Example) => targets.filter((target) => target >= 0).length;
