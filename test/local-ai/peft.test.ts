import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TARGETS } from "../../local-ai/adapter";
import { AdapterError, parsePeft, serialisePeft } from "../../local-ai/peft";
import { loadWeights, referenceCases } from "./engine";
import { randomAdapter } from "./random-adapter";
import { readLogits } from "./read-logits";

const weights = loadWeights();
const { config: base } = weights;
const NAMES = ["acme-voice-qv", "acme-voice-all-linear", "acme-route-qv"] as const;
const file = (adapter: string, name: string) =>
  new Uint8Array(readFileSync(join(import.meta.dirname, "adapters", adapter, name)));
const configOf = (adapter: string) => file(adapter, "adapter_config.json");
const tensorsOf = (adapter: string) => file(adapter, "adapter_model.safetensors");
const parsed = (adapter: string) => parsePeft(configOf(adapter), tensorsOf(adapter), base);
const textOf = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const settings = JSON.parse(new TextDecoder().decode(configOf("acme-voice-qv"))) as Record<string, unknown>;
const withSettings = (change: object) => () =>
  parsePeft(textOf({ ...settings, ...change }), tensorsOf("acme-voice-qv"), base);

describe.each(NAMES)("the adapter %s that PEFT wrote", (name) => {
  it.each(referenceCases(name))("gives the reference's logits in the engine, on $prompt", ({ ids, last_logits }) => {
    const logits = readLogits(ids, parsed(name));
    const off = last_logits.map((value, id) => Math.abs(value - (logits[id] ?? Number.NaN)));
    expect(Math.max(...off)).toBeLessThan(0.4);
    expect(Math.sqrt(off.reduce((sum, value) => sum + value * value, 0) / off.length)).toBeLessThan(0.12);
    const without = readLogits(ids);
    const effect = last_logits.map((value, id) => (value - (without[id] ?? Number.NaN)) ** 2);
    expect(Math.sqrt(effect.reduce((sum, value) => sum + value, 0) / effect.length)).toBeGreaterThan(0.5);
  });

  it("has the names, shapes and settings that ours have", () => {
    const ours = serialisePeft(parsed(name), "tiny-support-lm");
    const theirs = JSON.parse(new TextDecoder().decode(configOf(name))) as object;
    expect(JSON.parse(new TextDecoder().decode(ours.config))).toEqual({ ...theirs, model_type: "llama" });
    const shapes = (bytes: Uint8Array) => {
      const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<
        string,
        { shape?: number[] }
      >;
      return Object.entries(header)
        .flatMap(([tensor, { shape }]) => (shape ? [`${tensor} ${shape}`] : []))
        .sort();
    };
    expect(shapes(ours.tensors)).toEqual(shapes(tensorsOf(name)));
    expect(parsePeft(ours.config, ours.tensors, base)).toEqual(parsed(name));
  });
});

describe("an adapter's files", () => {
  it("are read as they were written, whatever the rank and the matrices", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 32 }), fc.subarray([...TARGETS], { minLength: 1 }), (rank, targets) => {
        const adapter = randomAdapter(weights, rank, targets, rank);
        const { config, tensors } = serialisePeft(adapter, "base");
        const read = parsePeft(config, tensors, base);
        expect(read.scale).toBeCloseTo(adapter.scale, 12);
        expect({ ...read, scale: adapter.scale }).toEqual(adapter);
      }),
      { numRuns: 10 },
    );
  });

  it("scale by alpha over rank, or over its root where they say so", () => {
    expect(withSettings({ lora_alpha: 24 })().scale).toBe(3);
    expect(withSettings({ lora_alpha: 24, use_rslora: true })().scale).toBeCloseTo(24 / Math.sqrt(8), 12);
  });

  it.each([
    [{ peft_type: "IA3" }, /peft_type/],
    [{ r: 33 }, /'r'/],
    [{ r: 0 }, /'r'/],
    [{ r: 16 }, /is 8 × 192, and the base needs 16 × 192/],
    [{ lora_alpha: "16" }, /lora_alpha/],
    [{ bias: "all" }, /bias/],
    [{ target_modules: "q_proj|v_proj" }, /target_modules/],
    [{ target_modules: ["lm_head"] }, /target_modules/],
    [{ target_modules: ["q_proj"] }, /does not name: .*v_proj/],
    [{ target_modules: ["q_proj", "v_proj", "k_proj"] }, /lacks the tensor .*k_proj/],
    [{ target_modules: "all-linear" }, /lacks the tensor/],
    [{ model_type: "mistral" }, /model_type/],
    [{ fan_in_fan_out: true }, /fan_in_fan_out/],
    [{ use_dora: true }, /DoRA/],
    [{ modules_to_save: ["lm_head"] }, /modules_to_save/],
    [{ rank_pattern: { q_proj: 4 } }, /rank_pattern/],
  ])("are refused with %j, by a sentence that says why", (change, why) => {
    expect(withSettings(change)).toThrow(AdapterError);
    expect(withSettings(change)).toThrow(why);
  });

  it("are accepted with model_type llama or without one", () => {
    expect(withSettings({ model_type: "llama" })()).toEqual(parsed("acme-voice-qv"));
  });

  it("are refused when a value is no number", () => {
    const tensors = tensorsOf("acme-voice-qv").slice();
    new DataView(tensors.buffer).setFloat32(tensors.byteLength - 4, Number.NaN, true);
    expect(() => parsePeft(configOf("acme-voice-qv"), tensors, base)).toThrow(/no numbers/);
  });

  it("are accepted or refused as adapters, however they are damaged, and nothing else happens", () => {
    const changes = fc.array(fc.tuple(fc.nat(3_000), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(changes, fc.nat(104_952), (bytes, length) => {
        const tensors = tensorsOf("acme-voice-qv").slice(0, length % 3 === 0 ? length : undefined);
        for (const [at, value] of bytes) if (at < tensors.length) tensors[at] = value;
        try {
          parsePeft(configOf("acme-voice-qv"), tensors, base);
        } catch (error) {
          expect(error).toBeInstanceOf(AdapterError);
        }
      }),
      { numRuns: 200 },
    );
  });
});
