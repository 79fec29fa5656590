import { describe, expect, it } from "vitest";
import { embed, generate } from "../../local-ai/generate";
import type { Sampling } from "../../local-ai/sampler";
import { computeLogits, forward, Sequence } from "../../local-ai/transformer";
import { loadEngine, referenceCases } from "./engine";

const cases = referenceCases();

/** Float32 sums in another order: about 1e-5 of logits that reach 20. */
const LOGIT_TOLERANCE = 2e-4;

const engine = loadEngine();
const GREEDY: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  seed: 1,
};

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

describe("generation", () => {
  const prompt = cases[0]?.ids ?? [];
  const collect = async (options: Partial<Parameters<typeof generate>[1]>) => {
    const out = { text: "", reason: "", completionTokens: 0, made: 0 };
    const signal = new AbortController().signal;
    const all = {
      prompt,
      maxTokens: 40,
      sampling: GREEDY,
      stop: [],
      signal,
      onToken: () => void out.made++,
      ...options,
    };
    for await (const piece of generate(engine, all)) {
      if (piece.type === "text") out.text += piece.text;
      else Object.assign(out, { reason: piece.reason, completionTokens: piece.completionTokens });
    }
    return out;
  };

  it("is the same for the same seed and differs between seeds", async () => {
    const sampling = { ...GREEDY, temperature: 1.2 };
    const [first, again, other] = [
      await collect({ sampling }),
      await collect({ sampling }),
      await collect({ sampling: { ...sampling, seed: 2 } }),
    ];
    expect(again.text).toBe(first.text);
    expect(other.text).not.toBe(first.text);
  });

  it("stops before a stop string, even one that spans tokens, and counts what it made", async () => {
    const whole = await collect({});
    const stop = whole.text.slice(9, 17);
    const cut = await collect({ stop: [stop] });
    expect(cut.text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
    expect(cut.reason).toBe("stop");
    expect(cut.completionTokens).toBe(cut.made);
  });

  it("says when it was the cap that ended it", async () => {
    const cut = await collect({ maxTokens: 5 });
    expect(cut).toMatchObject({ reason: "length", completionTokens: 5, made: 5 });
  });

  it("makes no token more once it is aborted", async () => {
    const abort = new AbortController();
    const out = await collect({ signal: abort.signal, onToken: () => abort.abort() });
    expect(out.reason).toBe("aborted");
    expect(out.completionTokens).toBeLessThanOrEqual(4);
  });
});
