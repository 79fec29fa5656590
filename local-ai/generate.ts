import { Sampler, type Sampling } from "./sampler";
import { StreamingDecoder, type Tokenizer } from "./tokenizer";
import { computeLogits, forward, Sequence, type Weights } from "./transformer";

export interface Engine {
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
}

export interface GenerateOptions {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly sampling: Sampling;
  readonly stop: readonly string[];
  readonly signal: AbortSignal;
  /** Called for each token that the model makes. */
  readonly onToken?: () => void;
}

export type Generated =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "end"; readonly reason: "stop" | "length" | "aborted"; readonly completionTokens: number };

/** Tokens between two yields to the event loop, so that generations in one object take turns. */
const TOKENS_PER_TURN = 4;
const PROMPT_TOKENS_PER_TURN = 16;

/** Generates token by token; text that might still turn into a stop string waits until that is known. */
export async function* generate({ weights, tokenizer }: Engine, options: GenerateOptions): AsyncGenerator<Generated> {
  const { prompt, maxTokens, signal, stop } = options;
  const sequence = new Sequence(weights, prompt.length + maxTokens);
  for (const [index, token] of prompt.entries()) {
    forward(weights, sequence, token);
    if (index % PROMPT_TOKENS_PER_TURN === 0) await turn();
    if (signal.aborted) return yield { type: "end", reason: "aborted", completionTokens: 0 };
  }
  const end = tokenizer.special("<|end|>");
  const sampler = new Sampler(options.sampling, specialIds(tokenizer));
  const decoder = new StreamingDecoder(tokenizer);
  const held = new StopStrings(stop);
  let reason: "stop" | "length" | "aborted" = "length";
  let made = 0;
  while (made < maxTokens) {
    if (made % TOKENS_PER_TURN === 0) await turn();
    if (signal.aborted) {
      reason = "aborted";
      break;
    }
    const token = sampler.next(computeLogits(weights, sequence));
    made++;
    options.onToken?.();
    if (token === end) {
      reason = "stop";
      break;
    }
    const { text, stopped } = held.push(decoder.push(token));
    if (text !== "") yield { type: "text", text };
    if (stopped) return yield { type: "end", reason: "stop", completionTokens: made };
    if (made < maxTokens) forward(weights, sequence, token);
  }
  const rest = held.push(decoder.end()).text + held.end();
  if (rest !== "") yield { type: "text", text: rest };
  yield { type: "end", reason, completionTokens: made };
}

/** Mean of the last hidden states over all positions: one vector for a text. */
export async function embed({ weights }: Engine, tokens: readonly number[]): Promise<Float32Array> {
  const sequence = new Sequence(weights, tokens.length);
  const mean = new Float32Array(weights.config.hidden_size);
  for (const [index, token] of tokens.entries()) {
    forward(weights, sequence, token);
    for (let i = 0; i < mean.length; i++)
      mean[i] = (mean[i] as number) + (sequence.normed[i] as number) / tokens.length;
    if (index % PROMPT_TOKENS_PER_TURN === 0) await turn();
  }
  return mean;
}

/** Holds back the end of the text as long as it may be the beginning of a stop string. */
export class StopStrings {
  #held = "";

  constructor(readonly stops: readonly string[]) {}

  push(text: string): { readonly text: string; readonly stopped: boolean } {
    const known = this.#held + text;
    const found = this.stops.map((stop) => known.indexOf(stop)).filter((at) => at !== -1);
    if (found.length > 0) {
      this.#held = "";
      return { text: known.slice(0, Math.min(...found)), stopped: true };
    }
    const keep = Math.max(0, ...this.stops.map((stop) => overlap(known, stop)));
    this.#held = known.slice(known.length - keep);
    return { text: known.slice(0, known.length - keep), stopped: false };
  }

  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }
}

/** Length of the longest end of `text` that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}

const MARKS = ["<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|reserved0|>"];
const specialIds = (tokenizer: Tokenizer) => MARKS.map((mark) => tokenizer.special(mark));

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));
