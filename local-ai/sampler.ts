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

  constructor(
    readonly sampling: Sampling,
    /** Ids that are never chosen: a model's own marks, apart from its end. */
    readonly forbidden: readonly number[],
  ) {
    this.#random = mulberry32(sampling.seed);
  }

  /** Chooses from `logits`, which it changes, and remembers the choice for the penalties. */
  next(logits: Float32Array): number {
    this.#penalise(logits);
    for (const id of this.forbidden) logits[id] = Number.NEGATIVE_INFINITY;
    const id = this.sampling.temperature === 0 ? argmax(logits) : this.#draw(logits);
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    return id;
  }

  /** Repetition penalty of Keskar et al. 2019; the other two as OpenAI's API describes them. */
  #penalise(logits: Float32Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.sampling;
    for (const [id, count] of this.#counts) {
      const logit = logits[id] as number;
      const repeated = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      logits[id] = repeated - frequencyPenalty * count - presencePenalty;
    }
  }

  /** Nucleus sampling (Holtzman et al. 2020) among the top k. */
  #draw(logits: Float32Array): number {
    const { temperature, topP, topK } = this.sampling;
    const max = logits[argmax(logits)] as number;
    const weights = Array.from(logits, (logit, id) => ({ id, weight: Math.exp((logit - max) / temperature) }));
    weights.sort((a, b) => b.weight - a.weight || a.id - b.id);
    const kept = topK > 0 ? weights.slice(0, topK) : weights;
    const total = kept.reduce((sum, { weight }) => sum + weight, 0);
    let nucleus = 0;
    let size = 0;
    while (size < kept.length && (size === 0 || nucleus < topP * total)) nucleus += kept[size++]?.weight ?? 0;
    let point = this.#random() * nucleus;
    for (const { id, weight } of kept.slice(0, size)) {
      point -= weight;
      if (point <= 0) return id;
    }
    return kept[0]?.id ?? 0;
  }
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}

/** Mulberry32 (T. Ettinger, public domain): 32 bits of state are plenty for a few hundred draws. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
