import type { Batcher, Task } from "./batcher";
import { Sampler, type Sampling } from "./sampler";
import { StreamingDecoder, type Tokenizer } from "./tokenizer";

export interface Engine {
  readonly batcher: Batcher;
  readonly tokenizer: Tokenizer;
}

/** Which model a call wants, and with whom it may share what was computed of a prompt. */
export interface Variant {
  /** A handle of the decoder's; 0 is the base. */
  readonly adapter: number;
  /** Null shares with nobody. */
  readonly root: string | null;
}
export const BASE: Variant = { adapter: 0, root: null };

/** Which tokens a reply may go on with. */
export interface Constraint {
  /** Takes from the logits (vocabulary) what may not come next, the end among it. */
  mask(logits: Float32Array): void;
  advance(token: number): void;
}

export interface GenerateOptions extends Partial<Variant> {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly sampling: Sampling;
  readonly stop: readonly string[];
  readonly signal: AbortSignal;
  readonly constraint?: Constraint;
  /** Called for each token that the model makes. */
  readonly onToken?: () => void;
}

export type Generated =
  | { readonly type: "text"; readonly text: string }
  | {
      readonly type: "end";
      readonly reason: "stop" | "length" | "aborted";
      readonly completionTokens: number;
      /** Of the prompt, those that were known and not computed anew. */
      readonly cachedTokens: number;
    };

/** Pieces of text that may be made before their reader takes them. */
const AHEAD = 8;

/** Generates token by token; text that might still turn into a stop string waits until that is known. */
export async function* generate({ batcher, tokenizer }: Engine, options: GenerateOptions): AsyncGenerator<Generated> {
  const abort = new AbortController();
  const reply = new Reply(tokenizer, options);
  const onAbort = () => abort.abort();
  options.signal.addEventListener("abort", onAbort, { once: true });
  if (options.signal.aborted) onAbort();
  let cachedTokens = 0;
  const done = batcher.run(reply, abort.signal).then((known) => {
    cachedTokens = known;
    reply.close();
  }, reply.fail);
  try {
    for (;;) {
      for (let text = reply.next(); text !== undefined; text = reply.next()) {
        batcher.nudge();
        yield { type: "text", text };
      }
      if (reply.isClosed) break;
      await reply.news();
    }
    const { made, reason = "aborted" } = reply;
    yield { type: "end", reason, completionTokens: made, cachedTokens };
  } finally {
    options.signal.removeEventListener("abort", onAbort);
    abort.abort(); // a reader that leaves takes its sequence along
    await done;
  }
}

/** A reply in the making: what its sequence does with each step, and what its reader has not yet taken. */
class Reply implements Task {
  readonly prompt: readonly number[];
  readonly capacity: number;
  readonly adapter: number;
  readonly root: string | null;
  readonly wants = "logits";
  readonly wantedFrom: number;
  made = 0;
  reason: "stop" | "length" | undefined;
  isClosed = false;
  readonly #options: GenerateOptions;
  readonly #sampler: Sampler;
  readonly #decoder: StreamingDecoder;
  readonly #held: StopStrings;
  readonly #end: number;
  readonly #pieces: string[] = [];
  #error: unknown;
  #wake: () => void = () => undefined;

  constructor(tokenizer: Tokenizer, options: GenerateOptions) {
    this.#options = options;
    this.prompt = options.prompt;
    this.capacity = options.prompt.length + options.maxTokens;
    this.adapter = options.adapter ?? BASE.adapter;
    this.root = options.root ?? BASE.root;
    this.wantedFrom = options.prompt.length - 1;
    this.#sampler = new Sampler(options.sampling, specialIds(tokenizer));
    this.#decoder = new StreamingDecoder(tokenizer);
    this.#held = new StopStrings(options.stop);
    this.#end = tokenizer.special("<|end|>");
  }

  isReady(): boolean {
    return this.#pieces.length < AHEAD;
  }

  take(logits: Float32Array): number | null {
    const { constraint, maxTokens, onToken } = this.#options;
    constraint?.mask(logits);
    const token = this.#sampler.next(logits);
    this.made++;
    onToken?.();
    if (token === this.#end) return this.#finish("stop");
    constraint?.advance(token);
    const { text, stopped } = this.#held.push(this.#decoder.push(token));
    this.#push(text);
    if (stopped) {
      this.reason = "stop";
      return null;
    }
    return this.made < maxTokens ? token : this.#finish("length");
  }

  /** @throws what went wrong, once all that was made before it has been taken */
  next(): string | undefined {
    const text = this.#pieces.shift();
    if (text === undefined && this.#error !== undefined) throw this.#error;
    return text;
  }

  /** Settles when there may be something to take. */
  async news(): Promise<void> {
    if (this.#pieces.length > 0 || this.isClosed) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  close(): void {
    this.isClosed = true;
    this.#wake();
  }

  fail = (error: unknown): void => {
    this.#error = error;
    this.close();
  };

  #finish(reason: "stop" | "length"): null {
    this.reason = reason;
    this.#push(this.#held.push(this.#decoder.end()).text + this.#held.end());
    return null;
  }

  #push(text: string): void {
    if (text === "") return;
    this.#pieces.push(text);
    this.#wake();
  }
}

/** Mean of the last hidden states over all positions: one vector (hidden) for a text. */
export async function embed(
  { batcher }: Engine,
  tokens: readonly number[],
  signal: AbortSignal,
): Promise<Float32Array> {
  let mean = new Float32Array();
  const take = (state: Float32Array) => {
    if (mean.length === 0) mean = new Float32Array(state.length);
    for (let i = 0; i < state.length; i++) mean[i] = (mean[i] as number) + (state[i] as number) / tokens.length;
    return null;
  };
  const task = { prompt: tokens, capacity: tokens.length, wantedFrom: 0, isReady: () => true, take };
  await batcher.run({ ...BASE, ...task, wants: "state" }, signal);
  return mean;
}

/**
 * Log probability of a text after a prompt, in nats.
 * @param ids of the text, one at least
 */
export async function score(
  { batcher }: Engine,
  prompt: readonly number[],
  ids: readonly number[],
  variant: Variant,
  signal: AbortSignal,
): Promise<number> {
  const tokens = [...prompt, ...ids].slice(0, -1); // the last one is judged, and nothing comes after it
  let sum = 0;
  const take = (logits: Float32Array, position: number) => {
    sum += logProbability(logits, ids[position - prompt.length + 1] as number);
    return null;
  };
  const task = { prompt: tokens, capacity: tokens.length, wantedFrom: prompt.length - 1, isReady: () => true, take };
  await batcher.run({ ...variant, ...task, wants: "logits" }, signal);
  return sum;
}

function logProbability(logits: Float32Array, id: number): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) most = Math.max(most, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return (logits[id] as number) - most - Math.log(sum);
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
