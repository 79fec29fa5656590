import { DurableObject } from "cloudflare:workers";
import { Batcher } from "./batcher";
import { encodeChat } from "./chat-template";
import { BLOCK_TOKENS, Decoder } from "./decoder";
import { contextExceeded } from "./errors";
import { eventStream, type Usage, usageOf } from "./event-stream";
import { type Engine, embed, type Generated, generate } from "./generate";
import type { TextGenerationInput } from "./inputs";
import kernel from "./kernel/engine.wasm";
import { Meter, type MeterReading, type MeterTotals } from "./meter";
import { parseSafetensors } from "./safetensors";
import { type Place, Slots } from "./slots";
import { Tokenizer, type TokenizerFile } from "./tokenizer";
import { bindWeights } from "./transformer";
import config from "./weights/config.json";
import weightsFile from "./weights/model.fp16.safetensors.bin";
import tokenizerFile from "./weights/tokenizer.json";

const CONTEXT_TOKENS = config.max_position_embeddings;
const METER_KEY = "meter";

/** Calls that may run at once, and that may wait for it; more are refused, as Workers AI does when it is full. */
const MAX_RUNNING = 16;
const MAX_WAITING = 512;
/** Keys and values of all that may run at once, at their longest. */
const BLOCKS = (MAX_RUNNING * CONTEXT_TOKENS) / BLOCK_TOKENS;

/**
 * The engine and what requests share of it. It must be a Durable Object: requests of a plain Worker cannot wait for
 * each other. Its meter counts what was really computed, and nothing outside can write it; it outlives the object,
 * which is evicted when idle. Only the tokens of a generation that a crash cut short are missing from it.
 */
export class EmbeddedModel extends DurableObject {
  #engine: Engine | undefined;
  readonly #slots = new Slots(MAX_RUNNING, MAX_WAITING);
  // Not awaited: the output gate holds a reply back until its totals are on disk.
  readonly #meter = new Meter((totals) => void this.ctx.storage.put(METER_KEY, totals));

  constructor(ctx: DurableObjectState, env: Cloudflare.Env) {
    super(ctx, env);
    void ctx.blockConcurrencyWhile(async () => {
      const totals = await ctx.storage.get<MeterTotals>(METER_KEY);
      if (totals) this.#meter.restore(totals);
    });
  }

  /** @param mayWait false refuses at once when all slots are taken */
  async generate(
    input: TextGenerationInput,
    mayWait: boolean,
  ): Promise<{ response: string; finish_reason: string; usage: Usage }> {
    const prompt = this.#prompt(input);
    const place = this.#slots.enter(mayWait);
    let reply = { finish_reason: "stop", usage: usageOf(prompt.length, 0) };
    let response = "";
    try {
      for await (const made of this.#run(input, prompt, place, new AbortController().signal)) {
        if (made.type === "text") response += made.text;
        else reply = { finish_reason: made.reason, usage: usageOf(prompt.length, made.completionTokens) };
      }
    } finally {
      place.leave();
    }
    return { response, ...reply };
  }

  /** In line before the stream is handed out, so that a refusal is an error of the call and not of its stream. */
  async stream(input: TextGenerationInput, mayWait: boolean): Promise<ReadableStream<Uint8Array>> {
    const prompt = this.#prompt(input);
    const place = this.#slots.enter(mayWait);
    const abort = new AbortController();
    return eventStream(this.#run(input, prompt, place, abort.signal), prompt.length, abort, place.leave);
  }

  /** Means of the last hidden states, scaled to length 1. */
  async embed(
    texts: readonly string[],
    mayWait: boolean,
  ): Promise<{ shape: number[]; data: number[][]; pooling: "mean"; usage: Usage }> {
    const engine = this.#load();
    const inputs = texts.map((text) => {
      assertMayFit(engine.tokenizer, text.length);
      return [engine.tokenizer.special("<|bos|>"), ...engine.tokenizer.encode(text)];
    });
    const longest = inputs.reduce((most, tokens) => Math.max(most, tokens.length), 0);
    if (longest > CONTEXT_TOKENS) throw contextExceeded(longest, CONTEXT_TOKENS);
    const promptTokens = inputs.reduce((sum, tokens) => sum + tokens.length, 0);
    const place = this.#slots.enter(mayWait);
    await place.turn;
    this.#meter.begin(promptTokens);
    try {
      const data: number[][] = [];
      for (const tokens of inputs) data.push(normalised(await embed(engine, tokens, new AbortController().signal)));
      return { shape: [texts.length, config.hidden_size], data, pooling: "mean", usage: usageOf(promptTokens, 0) };
    } finally {
      this.#meter.end();
      place.leave();
    }
  }

  async meter(): Promise<MeterReading> {
    return this.#meter.read();
  }

  /** Token ids of the prompt, with room for at least one token more. */
  #prompt({ messages, prompt, raw, max_tokens }: TextGenerationInput): number[] {
    const { tokenizer } = this.#load();
    const turns = messages ?? [{ role: "user" as const, content: prompt ?? "" }];
    assertMayFit(
      tokenizer,
      turns.reduce((sum, { content }) => sum + content.length, 0),
    );
    const tokens =
      prompt !== undefined && raw
        ? [tokenizer.special("<|bos|>"), ...tokenizer.encode(prompt)]
        : encodeChat(tokenizer, turns);
    if (tokens.length >= CONTEXT_TOKENS) throw contextExceeded(tokens.length + max_tokens, CONTEXT_TOKENS);
    return tokens;
  }

  async *#run(
    input: TextGenerationInput,
    prompt: readonly number[],
    place: Place,
    signal: AbortSignal,
  ): AsyncGenerator<Generated> {
    await place.turn;
    if (signal.aborted) return;
    this.#meter.begin(prompt.length);
    try {
      yield* generate(this.#load(), {
        prompt,
        maxTokens: Math.min(input.max_tokens, CONTEXT_TOKENS - prompt.length),
        sampling: {
          temperature: input.temperature,
          topP: input.top_p,
          topK: input.top_k,
          repetitionPenalty: input.repetition_penalty,
          frequencyPenalty: input.frequency_penalty,
          presencePenalty: input.presence_penalty,
          seed: input.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
        },
        stop: input.stop,
        signal,
        onToken: () => this.#meter.countToken(),
      });
    } finally {
      this.#meter.end();
      place.leave(); // the reader may take its time with the end
    }
  }

  #load(): Engine {
    this.#engine ??= {
      batcher: new Batcher(new Decoder(kernel, bindWeights(config, parseSafetensors(weightsFile)), BLOCKS)),
      tokenizer: new Tokenizer(tokenizerFile satisfies TokenizerFile),
    };
    return this.#engine;
  }
}

/** Refuses by its length what cannot fit, so that encoding only ever sees texts of bounded size. */
function assertMayFit(tokenizer: Tokenizer, characters: number): void {
  const atLeast = Math.ceil(characters / tokenizer.longestTokenBytes);
  if (atLeast > CONTEXT_TOKENS) throw contextExceeded(atLeast, CONTEXT_TOKENS);
}

function normalised(vector: Float32Array): number[] {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return Array.from(vector, (value) => value / length);
}
