import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type LoraAdapter, TARGETS, type Target } from "../../local-ai/adapter";
import type { Weights } from "../../local-ai/base-weights";
import { type Example, Machine } from "../../local-ai/trainer/machine";
import { loadTokenizer, loadTrainerModule, loadWeights } from "./engine";
import { computeLogits, forward, Sequence } from "./oracle";

const weights = loadWeights();
const tokenizer = loadTokenizer();
const module = loadTrainerModule();

const turn = (text: string): Example => {
  const tokens = [1, 4, ...tokenizer.encode(text), 2, 5, ...tokenizer.encode("Open My Orders and tap Track."), 2];
  return { tokens, targets: tokens.map((_, at) => (at > 8 ? (tokens[at + 1] ?? -1) : -1)) };
};
const EXAMPLE = turn("Where is my parcel?");

function finish<T>(steps: Generator<undefined, T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
const lossOf = (machine: Machine, example: Example) => finish(machine.examine(example, 0));

/** The same sum of losses from the plain forward pass, adapters added into the weights. */
function oracleLoss(base: Weights, { tokens, targets }: Example): number {
  const sequence = new Sequence(base, tokens.length);
  return tokens.reduce((sum, token, at) => {
    forward(base, sequence, token);
    const target = targets[at] ?? -1;
    if (target < 0) return sum;
    const logits = computeLogits(base, sequence);
    const most = logits.reduce((a, b) => Math.max(a, b));
    return (
      sum + most + Math.log(logits.reduce((total, logit) => total + Math.exp(logit - most), 0)) - (logits[target] ?? 0)
    );
  }, 0);
}

const fieldOf = (target: Target) => target.replace("_proj", "") as "q" | "k" | "v" | "o" | "gate" | "up" | "down";

function merged(base: Weights, adapter: LoraAdapter): Weights {
  const layers = base.layers.map((layer, l) => {
    const changed = Object.entries(adapter.layers[l] ?? {}).map(([target, { a, b }]) => {
      const field = fieldOf(target as Target);
      const inputs = a.length / adapter.rank;
      const sum = layer[field].map((value, at) => {
        const [output, input] = [Math.floor(at / inputs), at % inputs];
        let product = 0;
        for (let r = 0; r < adapter.rank; r++)
          product += (b[output * adapter.rank + r] ?? 0) * (a[r * inputs + input] ?? 0);
        return value + adapter.scale * product;
      });
      return [field, sum] as const;
    });
    return { ...layer, ...Object.fromEntries(changed) };
  });
  return { ...base, layers };
}

/** With numbers in B too, so that every gradient has a size. */
function machineOf(targets: readonly Target[], rank: number, seed = 1): Machine {
  const machine = new Machine(module, weights, { targets, rank, scale: 2 });
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296 - 0.5;
  };
  const filled = machine.adapter();
  machine.load({
    ...filled,
    layers: filled.layers.map((layer) =>
      Object.fromEntries(
        Object.entries(layer).map(([target, { a, b }]) => [
          target,
          { a: a.map(() => next() * 0.2), b: b.map(() => next() * 0.2) },
        ]),
      ),
    ),
  });
  return machine;
}

describe("the trainer's machine", () => {
  it("has the loss of the plain forward pass, without an adapter and with one on any matrices", () => {
    const plain = new Machine(module, weights, { targets: ["q_proj"], rank: 4, scale: 2 });
    expect(lossOf(plain, EXAMPLE)).toBeCloseTo(oracleLoss(weights, EXAMPLE), 3);
    for (const targets of [TARGETS, ...TARGETS.map((target) => [target])]) {
      const machine = machineOf(targets, 3);
      const expected = oracleLoss(merged(weights, machine.adapter()), EXAMPLE);
      expect(Math.abs(lossOf(machine, EXAMPLE) - expected) / expected, targets.join()).toBeLessThan(1e-4);
    }
  });

  it.each(TARGETS)("has the gradients that small changes of %s measure", (target) => {
    const machine = machineOf([target], 4);
    finish(machine.examine(EXAMPLE, 1));
    const gradients = machine.gradients.slice();
    const start = machine.parameters.slice();
    const along = (direction: Float64Array, by: number) => {
      machine.parameters.set(start.map((value, at) => value + by * (direction[at] as number)));
      return lossOf(machine, EXAMPLE);
    };
    for (const part of [0, 1, 2, 3]) {
      // Every fourth parameter, so that an error in one place cannot hide behind the others.
      const direction = Float64Array.from(gradients, (value, at) => (at % 4 === part ? value : 0));
      const length = Math.hypot(...direction);
      const unit = direction.map((value) => value / length);
      const step = 0.01;
      const measured = (along(unit, step) - along(unit, -step)) / (2 * step);
      expect(Math.abs(measured - length) / length).toBeLessThan(0.01);
    }
  });

  it("adds gradients up in proportion to their share, whatever the order of examples before", () => {
    const other = turn("I want my money back, please help me now");
    const machine = machineOf(["q_proj", "v_proj"], 8);
    const gradientsOf = (example: Example, share: number) => {
      machine.gradients.fill(0);
      finish(machine.examine(example, share));
      return machine.gradients.slice();
    };
    const first = gradientsOf(EXAMPLE, 1);
    gradientsOf(other, 1);
    expect(gradientsOf(EXAMPLE, 1)).toEqual(first);
    const half = gradientsOf(EXAMPLE, 0.5);
    expect(half.every((value, at) => Math.abs(2 * value - (first[at] as number)) < 1e-4)).toBe(true);
  });

  it("does not look ahead: tokens behind the last target change no loss", () => {
    const machine = machineOf(TARGETS, 2);
    fc.assert(
      fc.property(fc.array(fc.nat(2047), { maxLength: 9 }), (more) => {
        const longer = { tokens: [...EXAMPLE.tokens, ...more], targets: [...EXAMPLE.targets, ...more.map(() => -1)] };
        expect(lossOf(machine, longer)).toBeCloseTo(lossOf(machine, EXAMPLE), 4);
      }),
      { numRuns: 10 },
    );
  });

  it("gives back the adapter that was loaded into it, of any rank", () => {
    for (const rank of [1, 5, 32]) {
      const machine = machineOf(["k_proj", "down_proj"], rank);
      const adapter = machine.adapter();
      const again = new Machine(module, weights, { targets: ["k_proj", "down_proj"], rank, scale: 2 });
      again.load(adapter);
      expect(again.adapter()).toEqual(adapter);
      expect(again.parameters).toEqual(machine.parameters);
    }
  });

  it("keeps what is beyond the adapter's rank at nothing", () => {
    const machine = machineOf(["v_proj"], 1);
    finish(machine.examine(EXAMPLE, 1));
    const nonzero = machine.gradients.reduce((count, value) => count + (value === 0 ? 0 : 1), 0);
    expect(nonzero).toBeLessThanOrEqual(machine.parameterCount / 4);
  });
});
