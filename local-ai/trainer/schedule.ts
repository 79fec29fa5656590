import { TARGETS, type Target } from "../adapter";
import { mulberry32 } from "../random";

/** How an adapter is trained. The names are those that fine-tuning jobs use. */
export interface Hyperparameters {
  readonly targets: readonly Target[];
  readonly rank: number;
  readonly alpha: number;
  readonly learningRate: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly warmUpSteps: number;
  readonly seed: number;
}

const FEW: readonly Target[] = ["q_proj", "v_proj"];
/** The last step still learns a little. */
const LEAST_SHARE = 0.05;

/** What suits the embedded model: 300 steps of 8 examples, and a rate that falls with the matrices that learn. */
export function hyperparameters(chosen: Partial<Hyperparameters> = {}): Hyperparameters {
  const targets = TARGETS.filter((target) => (chosen.targets ?? FEW).includes(target));
  return {
    ...{ rank: 8, alpha: 16, steps: 300, batchSize: 8, warmUpSteps: 10, seed: 1 },
    learningRate: targets.every((target) => FEW.includes(target)) ? 1.2e-2 : 4e-3,
    ...chosen,
    targets,
  };
}

/** Linear warm-up, then linear decay. @param step 0 for the first */
export function learningRateAt({ learningRate, warmUpSteps, steps }: Hyperparameters, step: number): number {
  return learningRate * Math.min(1, (step + 1) / Math.max(1, warmUpSteps)) * Math.max(LEAST_SHARE, 1 - step / steps);
}

/**
 * Indices of a step's examples: each epoch is a new shuffle of all, and a batch may end one and begin the next. It
 * depends on seed and step alone, so that a job which goes on from a checkpoint sees what it would have seen.
 */
export function batchAt(step: number, batchSize: number, count: number, seed: number): number[] {
  const orders = new Map<number, readonly number[]>();
  return Array.from({ length: batchSize }, (_, i) => {
    const at = step * batchSize + i;
    const epoch = Math.floor(at / count);
    const order = orders.get(epoch) ?? shuffled(count, seed + epoch * 0x9e37_79b1);
    orders.set(epoch, order);
    return order[at % count] as number;
  });
}

/** Fisher and Yates's shuffle of 0 … count − 1. */
function shuffled(count: number, seed: number): number[] {
  const random = mulberry32(seed);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}
