import { describe, expect, it } from "vitest";
import { BLOCK_TOKENS, type Decoder, MAX_ROWS, type Row } from "../../local-ai/decoder";
import { loadDecoder, loadWeights, referenceCases } from "./engine";
import { computeLogits, forward, Sequence } from "./oracle";

const weights = loadWeights();
const decoder = loadDecoder(64);
const cases = referenceCases();

/** A sequence of its own blocks, read in steps of so many tokens. @returns the logits after the last token */
function read(by: Decoder, ids: readonly number[], chunk = MAX_ROWS): { logits: Float32Array; next: Step } {
  const table = by.createTable();
  for (let index = 0; index * BLOCK_TOKENS < 512; index++) by.setBlock(table, index, index);
  const step = (tokens: readonly number[], position: number) => {
    const rows = tokens.map<Row>((token, at) => {
      const wants = at === tokens.length - 1 ? "logits" : "nothing";
      return { token, position: position + at, table, adapter: 0, wants };
    });
    return by.step(rows).logits.slice();
  };
  let logits = new Float32Array();
  for (let from = 0; from < ids.length; from += chunk) logits = step(ids.slice(from, from + chunk), from);
  return { logits, next: step };
}
type Step = (tokens: readonly number[], position: number) => Float32Array;

const differences = (one: ArrayLike<number>, two: ArrayLike<number>) =>
  Array.from(one, (value, index) => Math.abs(value - (two[index] ?? Number.NaN)));
const worst = (values: readonly number[]) => Math.max(...values);
const rootMeanSquare = (values: readonly number[]) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

describe.each(cases)("the int8 decoder on $prompt", ({ ids, last_logits }) => {
  it("gives the reference's logits within what eight bits leave: 0.25, and 0.05 in the mean, of logits up to 20", () => {
    const off = differences(last_logits, read(decoder, ids).logits);
    expect(worst(off)).toBeLessThan(0.25);
    expect(rootMeanSquare(off)).toBeLessThan(0.05);
  });

  it("stays as near to the float32 oracle over a whole reply", () => {
    const sequence = new Sequence(weights, ids.length + 48);
    for (const id of ids) forward(weights, sequence, id);
    const { logits, next } = read(decoder, ids);
    let mine = logits;
    for (let made = 0; made < 48; made++) {
      const oracle = computeLogits(weights, sequence);
      expect(rootMeanSquare(differences(oracle, mine))).toBeLessThan(0.1);
      const best = oracle.indexOf(worst([...oracle]));
      forward(weights, sequence, best);
      mine = next([best], ids.length + made);
    }
  });

  it("is the same bits whether a prompt is read token by token or at once", () => {
    const whole = read(decoder, ids).logits;
    for (const chunk of [1, 3, 16]) expect(read(decoder, ids, chunk).logits).toEqual(whole);
  });
});

describe("a step", () => {
  it("refuses a step with more rows than it has room for", () => {
    const row: Row = { token: 1, position: 0, table: decoder.createTable(), adapter: 0, wants: "nothing" };
    expect(() => decoder.step(Array.from({ length: MAX_ROWS + 1 }, () => row))).toThrow(RangeError);
  });
});
