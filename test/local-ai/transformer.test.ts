import { describe, expect, it } from "vitest";
import { embed } from "../../local-ai/generate";
import { parseSafetensors } from "../../local-ai/safetensors";
import { bindWeights, computeLogits, forward, Sequence } from "../../local-ai/transformer";
import { loadEngine, referenceCases, weightsFile } from "./engine";

const cases = referenceCases();

/** Float32 sums in another order: about 1e-5 of logits that reach 20. */
const LOGIT_TOLERANCE = 2e-4;

const engine = loadEngine();

function run(ids: readonly number[]): Sequence {
  const sequence = new Sequence(engine.weights, ids.length + 48);
  for (const id of ids) forward(engine.weights, sequence, id);
  return sequence;
}

describe.each(cases)("the forward pass on $prompt", ({ ids, last_logits, greedy_ids, mean_last_hidden_first8 }) => {
  it("gives the reference's logits", () => {
    const logits = computeLogits(engine.weights, run(ids));
    const worst = Math.max(...last_logits.map((logit, id) => Math.abs(logit - (logits[id] ?? Number.NaN))));
    expect(worst).toBeLessThan(LOGIT_TOLERANCE);
  });

  it("takes the reference's tokens greedily", () => {
    const sequence = run(ids);
    const taken = greedy_ids.map(() => {
      const logits = computeLogits(engine.weights, sequence);
      const best = logits.indexOf(Math.max(...logits));
      forward(engine.weights, sequence, best);
      return best;
    });
    expect(taken).toEqual(greedy_ids);
  });

  it("gives the reference's mean hidden state", async () => {
    const mean = await embed(engine, ids);
    mean_last_hidden_first8.forEach((value, index) => {
      expect(mean[index]).toBeCloseTo(value, 4);
    });
  });
});

describe("weights", () => {
  it("refuses a config that does not fit the tensors", () => {
    const config = { ...engine.weights.config, vocab_size: 2047 };
    expect(() => bindWeights(config, parseSafetensors(weightsFile()))).toThrow(
      /embed_tokens is not of shape 2047 × 192/,
    );
  });

  it("refuses to go beyond a sequence's capacity", () => {
    const sequence = new Sequence(engine.weights, 1);
    forward(engine.weights, sequence, 1);
    expect(() => forward(engine.weights, sequence, 1)).toThrow(RangeError);
  });
});
