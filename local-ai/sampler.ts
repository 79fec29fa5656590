import { mulberry32 } from "./random";

/** How the next token is chosen. Deterministic for a seed. */
export interface Sampling {
  /** 0 takes the most likely token. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 looks at all tokens. */
  readonly topK: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  readonly seed: number;
}

export class Sampler {
  readonly #random: () => number;
  readonly #counts = new Map<number, number>();
  #order = new Uint32Array(); // (vocab) every id, in the order of the last draw

  constructor(
    readonly sampling: Sampling,
    /** Ids that are never chosen: a model's own marks, apart from its end. */
    readonly forbidden: readonly number[],
  ) {
    this.#random = mulberry32(sampling.seed);
  }

  /** Chooses from `logits` (vocab), which it overwrites, and remembers the choice for the penalties. */
  next(logits: Float32Array): number {
    this.#penalise(logits);
    for (const id of this.forbidden) logits[id] = Number.NEGATIVE_INFINITY;
    const id = this.sampling.temperature === 0 ? argmax(logits) : this.#draw(logits);
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    return id;
  }

  /** Of what was generated: repetition penalty of Keskar et al. 2019, the others as OpenAI's API describes them. */
  #penalise(logits: Float32Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.sampling;
    for (const [id, count] of this.#counts) {
      const logit = logits[id] as number;
      const repeated = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      logits[id] = repeated - frequencyPenalty * count - presencePenalty;
    }
  }

  #draw(logits: Float32Array): number {
    const { temperature } = this.sampling;
    const best = argmax(logits);
    const max = logits[best] as number;
    const weights = logits; // in place: (vocab) probabilities, not yet divided by their sum
    for (let id = 0; id < weights.length; id++) weights[id] = Math.exp(((logits[id] as number) - max) / temperature);
    const candidates = this.#candidates(weights);
    let point = this.#random() * sumOf(weights, candidates);
    for (const id of candidates) {
      point -= weights[id] as number;
      if (point < 0) return id;
    }
    return best; // rounding left a grain
  }

  /** The top k, and of them the nucleus: the fewest whose share reaches top p (Holtzman et al. 2020), one at least. */
  #candidates(weights: Float32Array): Uint32Array {
    const { topP, topK } = this.sampling;
    if (this.#order.length !== weights.length) this.#order = Uint32Array.from(weights, (_, id) => id);
    if (topK === 0 && topP >= 1) return this.#order; // sorting costs as much as a quarter of a token
    const sorted = this.#order.sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b);
    const kept = topK === 0 ? sorted : sorted.subarray(0, topK);
    const target = topP * sumOf(weights, kept);
    let size = 0;
    for (let share = 0; size < kept.length && (size === 0 || share < target); size++) {
      share += weights[kept[size] as number] as number;
    }
    return kept.subarray(0, size);
  }
}

function sumOf(weights: Float32Array, ids: Uint32Array): number {
  let sum = 0;
  for (const id of ids) sum += weights[id] as number;
  return sum;
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}
