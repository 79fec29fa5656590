import { DurableObject } from "cloudflare:workers";
import { AdapterCache, type Lease } from "./adapter-cache";
import { bindWeights } from "./base-weights";
import { BatchQueue, type BatchStatus, type PendingRequest } from "./batch-queue";
import { Batcher } from "./batcher";
import { encodeChat } from "./chat-template";
import { classificationPrompt, classify, type Label } from "./classify";
import { BLOCK_TOKENS, Decoder } from "./decoder";
import {
  badInput,
  contextExceeded,
  InferenceUpstreamError,
  jsonNotMet,
  noSuchFineTune,
  noSuchModel,
  noSuchRequest,
  outOfCapacity,
} from "./errors";
import { turn } from "./event-loop";
import { eventStream, type Usage, usageOf } from "./event-stream";
import { FineTunes } from "./fine-tunes";
import { BASE, type Constraint, type Engine, embed, type Generated, generate, type Variant } from "./generate";
import {
  type JsonFormat,
  parseBatch,
  parseClassification,
  parseEmbeddings,
  parseTextGeneration,
  polledId,
  type TextGenerationInput,
} from "./inputs";
import { JsonConstraint, type TokenTrie, tokenTrie } from "./json-constraint";
import { anyObject, compileSchema, SchemaError } from "./json-grammar";
import kernel from "./kernel/engine.wasm";
import { Meter, type MeterReading, type MeterTotals } from "./meter";
import { CLASSIFICATION_MODEL, EMBEDDING_MODEL, TEXT_MODEL } from "./models";
import { parseSafetensors } from "./safetensors";
import { type Place, Slots } from "./slots";
import { Tokenizer, type TokenizerFile } from "./tokenizer";
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
/** A text that takes about a millisecond to encode. */
const LONG_TEXT_CHARACTERS = 4_096;
/** Requests of batches that run beside the others. */
const BATCHED_AT_ONCE = 4;

/** What of Workers AI's options means something here. */
export interface RunOptions {
  readonly rejectIfBusy?: boolean;
  readonly queueRequest?: boolean;
  /** `x-session-affinity`: whose prompts may share what was computed of their beginning. */
  readonly extraHeaders?: Readonly<Record<string, string>>;
}
type Reply =
  | { readonly response: unknown; readonly finish_reason: string; readonly usage: Usage }
  | { readonly shape: number[]; readonly data: number[][]; readonly pooling: "mean"; readonly usage: Usage }
  | Label[];

interface Loaded extends Engine {
  readonly adapters: AdapterCache;
  readonly trie: TokenTrie;
}

/**
 * The engine and what requests share of it. It must be a Durable Object: requests of a plain Worker cannot wait for
 * each other. Its meter counts what was really computed, and nothing outside can write it; it outlives the object,
 * which is evicted when idle. Only the tokens of a generation that a crash cut short are missing from it.
 */
export class EmbeddedModel extends DurableObject {
  #engine: Loaded | undefined;
  readonly #slots = new Slots(MAX_RUNNING, MAX_WAITING);
  // Not awaited: the output gate holds a reply back until its totals are on disk.
  readonly #meter = new Meter((totals) => void this.ctx.storage.put(METER_KEY, totals));
  readonly #batches: BatchQueue;
  readonly #fineTunes: FineTunes;

  constructor(ctx: DurableObjectState, env: Cloudflare.Env) {
    super(ctx, env);
    this.#batches = new BatchQueue(ctx.storage.sql);
    this.#fineTunes = new FineTunes(ctx.storage.sql, config);
    void ctx.blockConcurrencyWhile(async () => {
      const totals = await ctx.storage.get<MeterTotals>(METER_KEY);
      if (totals) this.#meter.restore(totals);
    });
  }

  /** A call as Workers AI takes it. @throws InferenceUpstreamError */
  async run(
    model: string,
    inputs: unknown,
    options: RunOptions = {},
  ): Promise<Reply | BatchStatus | ReadableStream<Uint8Array>> {
    if (![TEXT_MODEL, EMBEDDING_MODEL, CLASSIFICATION_MODEL].includes(model)) throw noSuchModel(model);
    const polled = polledId(inputs);
    if (polled !== undefined) return this.#status(polled);
    if (options.queueRequest === true) return this.#queue(model, inputs);
    if (model === TEXT_MODEL) {
      const input = parseTextGeneration(inputs);
      if (input.stream) return this.#stream(input, options);
    }
    return this.#whole(model, inputs, options);
  }

  /** Cloudflare's REST operations on fine-tunes. */
  override fetch(request: Request): Promise<Response> {
    return this.#fineTunes.handle(request);
  }

  /** What the model has really computed. */
  async meter(): Promise<MeterReading> {
    return this.#meter.read();
  }

  /** Works off the batches. */
  override async alarm(): Promise<void> {
    for (;;) {
      const pending = this.#batches.pending(BATCHED_AT_ONCE);
      if (pending.length === 0) return;
      await Promise.all(pending.map((request) => this.#runBatched(request)));
    }
  }

  async #whole(model: string, inputs: unknown, options: RunOptions): Promise<Reply> {
    if (model === EMBEDDING_MODEL) return this.#embed(parseEmbeddings(inputs), options);
    if (model === CLASSIFICATION_MODEL) return this.#classify(inputs, options);
    return this.#generate(parseTextGeneration(inputs), options);
  }

  async #generate(input: TextGenerationInput, options: RunOptions): Promise<Reply> {
    const prompt = this.#prompt(input);
    let reply = { finish_reason: "stop", usage: usageOf(prompt.length, 0) };
    let response = "";
    const constraint =
      input.json && this.#constraint(input.json, Math.min(input.max_tokens, CONTEXT_TOKENS - prompt.length));
    await this.#inPlace(options, input.lora, async (place, variant) => {
      const { signal } = new AbortController();
      for await (const made of this.#run(input, prompt, place, variant, signal, constraint)) {
        if (made.type === "text") response += made.text;
        else {
          const usage = usageOf(prompt.length, made.completionTokens, made.cachedTokens);
          reply = { finish_reason: made.reason, usage };
        }
      }
    });
    return { response: input.json ? JSON.parse(response) : response, ...reply };
  }

  /** In line before the stream is handed out, so that a refusal is an error of the call and not of its stream. */
  async #stream(input: TextGenerationInput, options: RunOptions): Promise<ReadableStream<Uint8Array>> {
    const prompt = this.#prompt(input);
    const place = this.#slots.enter(options.rejectIfBusy !== true);
    const abort = new AbortController();
    let lease: Lease | undefined;
    const leave = () => {
      place.leave();
      lease?.release();
    };
    try {
      lease = await this.#adapter(input.lora);
      const run = this.#run(input, prompt, place, this.#variant(lease, input.lora, options), abort.signal);
      return eventStream(run, prompt.length, abort, leave);
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** Means of the last hidden states, scaled to length 1. */
  async #embed(texts: readonly string[], options: RunOptions): Promise<Reply> {
    const engine = this.#load();
    for (const text of texts) assertMayFit(engine.tokenizer, text.length);
    const inputs: (readonly number[])[] = [];
    for (const text of texts) {
      const tokens = [engine.tokenizer.special("<|bos|>"), ...engine.tokenizer.encode(text)];
      if (tokens.length > CONTEXT_TOKENS) throw contextExceeded(tokens.length, CONTEXT_TOKENS);
      inputs.push(tokens);
      if (text.length > LONG_TEXT_CHARACTERS) await turn(); // many long texts must not stop everybody else
    }
    const promptTokens = inputs.reduce((sum, tokens) => sum + tokens.length, 0);
    const data: number[][] = [];
    await this.#inPlace(options, undefined, (place) =>
      this.#metered(place, promptTokens, async (signal) => {
        for (const tokens of inputs) data.push(normalised(await embed(engine, tokens, signal)));
      }),
    );
    return { shape: [texts.length, config.hidden_size], data, pooling: "mean", usage: usageOf(promptTokens, 0) };
  }

  async #classify(inputs: unknown, options: RunOptions): Promise<Label[]> {
    const engine = this.#load();
    const input = parseClassification(inputs);
    assertMayFit(engine.tokenizer, input.text.length + (input.instruction?.length ?? 0));
    const prompt = classificationPrompt(engine, input);
    const labels = input.labels.map((label) => engine.tokenizer.encode(label).length + 1);
    const longest = prompt.length + Math.max(...labels);
    if (longest > CONTEXT_TOKENS) throw contextExceeded(longest, CONTEXT_TOKENS);
    let judged: Label[] = [];
    await this.#inPlace(options, input.lora, (place, variant) =>
      this.#metered(place, prompt.length + labels.reduce((sum, count) => sum + count, 0), async (signal) => {
        judged = await classify(engine, prompt, input.labels, variant, signal);
      }),
    );
    return judged;
  }

  /** Takes a place and an adapter, and gives both back however the work ends. */
  async #inPlace(
    options: RunOptions,
    lora: string | undefined,
    work: (place: Place, variant: Variant) => Promise<void>,
  ): Promise<void> {
    const place = this.#slots.enter(options.rejectIfBusy !== true);
    let lease: Lease | undefined;
    try {
      lease = await this.#adapter(lora);
      await work(place, this.#variant(lease, lora, options));
    } finally {
      place.leave();
      lease?.release();
    }
  }

  async *#run(
    input: TextGenerationInput,
    prompt: readonly number[],
    place: Place,
    variant: Variant,
    signal: AbortSignal,
    constraint?: Constraint,
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
        ...variant,
        ...(constraint ? { constraint } : {}),
        signal,
        onToken: () => this.#meter.countToken(),
      });
    } finally {
      this.#meter.end();
      place.leave(); // the reader may take its time with the end
    }
  }

  async #metered(place: Place, promptTokens: number, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    await place.turn;
    this.#meter.begin(promptTokens);
    try {
      await work(new AbortController().signal);
    } finally {
      this.#meter.end();
    }
  }

  #variant(lease: Lease | undefined, lora: string | undefined, { extraHeaders }: RunOptions): Variant {
    const affinity = extraHeaders?.["x-session-affinity"];
    const root = affinity === undefined ? null : JSON.stringify([affinity, lora ?? null]);
    return { adapter: lease?.handle ?? BASE.adapter, root };
  }

  async #adapter(lora: string | undefined): Promise<Lease | undefined> {
    if (lora === undefined) return undefined;
    const found = this.#fineTunes.find(lora);
    if (!found) throw noSuchFineTune(lora);
    const lease = await this.#load().adapters.take(found.id, found.load);
    if (!lease) throw outOfCapacity();
    return lease;
  }

  #queue(model: string, inputs: unknown): BatchStatus {
    const id = this.#batches.add(model, parseBatch(inputs), Date.now());
    void this.ctx.storage.setAlarm(Date.now());
    return { status: "queued", model, request_id: id };
  }

  #status(id: string): BatchStatus {
    const status = this.#batches.status(id);
    if (!status) throw noSuchRequest(id);
    return status;
  }

  async #runBatched(request: PendingRequest): Promise<void> {
    try {
      const { external_reference: _, ...inputs } = request.inputs;
      const result = await this.#whole(request.model, inputs, {});
      this.#batches.settle(request, { success: true, result });
    } catch (error) {
      const told = error instanceof InferenceUpstreamError ? error.message : "3043: Internal server error";
      this.#batches.settle(request, { success: false, error: told });
    }
  }

  #constraint(json: JsonFormat, maxTokens: number): Constraint {
    const { tokenizer, trie } = this.#load();
    try {
      const grammar = json.type === "json_object" ? anyObject() : compileSchema(json.json_schema);
      return new JsonConstraint(grammar, tokenizer, trie, maxTokens);
    } catch (error) {
      if (error instanceof SchemaError) throw badInput(`'/response_format/json_schema' ${error.message}`);
      if (error instanceof RangeError) throw jsonNotMet(error.message);
      throw error;
    }
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

  #load(): Loaded {
    if (this.#engine) return this.#engine;
    const decoder = new Decoder(kernel, bindWeights(config, parseSafetensors(weightsFile)), BLOCKS);
    const tokenizer = new Tokenizer(tokenizerFile satisfies TokenizerFile);
    this.#engine = {
      batcher: new Batcher(decoder),
      tokenizer,
      adapters: new AdapterCache(decoder),
      trie: tokenTrie(tokenizer),
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
