import { describe, expect, it } from "vitest";
import { bindWeights } from "../../local-ai/base-weights";
import { parseSafetensors } from "../../local-ai/safetensors";
import { loadWeights, referenceCases, weightsFile } from "./engine";
import { computeLogits, forward, Sequence } from "./oracle";

const cases = referenceCases();

/** Float32 sums in another order: about 1e-5 of logits that reach 20. */
const LOGIT_TOLERANCE = 2e-4;

const weights = loadWeights();

function run(ids: readonly number[]): Sequence {
  const sequence = new Sequence(weights, ids.length + 48);
  for (const id of ids) forward(weights, sequence, id);
  return sequence;
}

describe.each(cases)("the forward pass on $prompt", ({ ids, last_logits, greedy_ids, mean_last_hidden_first8 }) => {
  it("gives the reference's logits", () => {
    const logits = computeLogits(weights, run(ids));
    const worst = Math.max(...last_logits.map((logit, id) => Math.abs(logit - (logits[id] ?? Number.NaN))));
    expect(worst).toBeLessThan(LOGIT_TOLERANCE);
  });

  it("takes the reference's tokens greedily", () => {
    const sequence = run(ids);
    const taken = greedy_ids.map(() => {
      const logits = computeLogits(weights, sequence);
      const best = logits.indexOf(Math.max(...logits));
      forward(weights, sequence, best);
      return best;
    });
    expect(taken).toEqual(greedy_ids);
  });

  it("gives the reference's mean hidden state", () => {
    const sequence = new Sequence(weights, ids.length);
    const sums = mean_last_hidden_first8.map(() => 0);
    for (const id of ids) {
      forward(weights, sequence, id);
      for (const index of sums.keys()) sums[index] = (sums[index] ?? 0) + (sequence.normed[index] ?? Number.NaN);
    }
    mean_last_hidden_first8.forEach((value, index) => {
      expect((sums[index] ?? Number.NaN) / ids.length).toBeCloseTo(value, 4);
    });
  });
});

describe("weights", () => {
  it("refuses a config that does not fit the tensors", () => {
    const config = { ...weights.config, vocab_size: 2047 };
    expect(() => bindWeights(config, parseSafetensors(weightsFile()))).toThrow(
      /embed_tokens is not of shape 2047 × 192/,
    );
  });

  it("refuses to go beyond a sequence's capacity", () => {
    const sequence = new Sequence(weights, 1);
    forward(weights, sequence, 1);
    expect(() => forward(weights, sequence, 1)).toThrow(RangeError);
  });
});
