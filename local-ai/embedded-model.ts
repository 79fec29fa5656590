import { DurableObject } from "cloudflare:workers";
import { encodeChat } from "./chat-template";
import { contextExceeded } from "./errors";
import { type Engine, embed, type Generated, generate } from "./generate";
import type { TextGenerationInput } from "./inputs";
import { parseSafetensors } from "./safetensors";
import { Slots } from "./slots";
import { Tokenizer, type TokenizerFile } from "./tokenizer";
import { bindWeights, type Config } from "./transformer";
import config from "./weights/config.json";
import weightsFile from "./weights/model.fp16.safetensors.bin";
import tokenizerFile from "./weights/tokenizer.json";

/** Generations that may run at once, and that may wait for it; more are refused, as Workers AI does when it is full. */
const MAX_RUNNING = 16;
const MAX_WAITING = 512;

export interface Meter {
  readonly calls: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly running: number;
}
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

/**
 * The engine and what requests share of it. It must be a Durable Object: requests of a plain Worker cannot wait for
 * each other. Its meter counts what was really computed; nothing outside can write it.
 */
export class EmbeddedModel extends DurableObject {
  #engine: Engine | undefined;
  readonly #slots = new Slots(MAX_RUNNING, MAX_WAITING);
  readonly #meter = { calls: 0, promptTokens: 0, completionTokens: 0, running: 0 };

  async generate(input: TextGenerationInput): Promise<{ response: string; finish_reason: string; usage: Usage }> {
    const prompt = this.#prompt(input);
    let response = "";
    let usage = usageOf(prompt.length, 0);
    let reason = "stop";
    for await (const made of this.#run(input, prompt, new AbortController().signal)) {
      if (made.type === "text") response += made.text;
      else [usage, reason] = [usageOf(prompt.length, made.completionTokens), made.reason];
    }
    return { response, finish_reason: reason, usage };
  }

  /** Server-sent events as Workers AI streams them, as bytes: only those cross RPC. */
  async stream(input: TextGenerationInput): Promise<ReadableStream<Uint8Array>> {
    const prompt = this.#prompt(input);
    const abort = new AbortController();
    const generated = this.#run(input, prompt, abort.signal);
    const encoder = new TextEncoder();
    const event = (data: unknown) => encoder.encode(`data: ${JSON.stringify(data)}\n\n`);
    return new ReadableStream({
      type: "bytes",
      async pull(controller) {
        const { done, value } = await generated.next();
        if (done) {
          controller.enqueue(encoder.encode("data: [DONE]\n\n"));
          controller.close();
        } else if (value.type === "text") controller.enqueue(event({ response: value.text }));
        else {
          const usage = usageOf(prompt.length, value.completionTokens);
          controller.enqueue(event({ response: "", finish_reason: value.reason, usage }));
        }
      },
      cancel: async () => {
        abort.abort();
        await generated.return(undefined);
      },
    });
  }

  /** L2-normalised means of the last hidden states. */
  async embed(texts: readonly string[]): Promise<{ shape: number[]; data: number[][]; pooling: "mean"; usage: Usage }> {
    const engine = this.#load();
    const { vocab_size: _, max_position_embeddings: context, hidden_size: dimensions } = engine.weights.config;
    const inputs = texts.map((text) => [engine.tokenizer.special("<|bos|>"), ...engine.tokenizer.encode(text)]);
    const longest = Math.max(...inputs.map((tokens) => tokens.length));
    if (longest > context) throw contextExceeded(longest, context);
    const data: number[][] = [];
    for (const tokens of inputs) data.push(normalised(await embed(engine, tokens)));
    const promptTokens = inputs.reduce((sum, tokens) => sum + tokens.length, 0);
    this.#meter.calls++;
    this.#meter.promptTokens += promptTokens;
    return { shape: [texts.length, dimensions], data, pooling: "mean", usage: usageOf(promptTokens, 0) };
  }

  async meter(): Promise<Meter> {
    return { ...this.#meter };
  }

  #prompt({ messages, prompt, raw }: TextGenerationInput): number[] {
    const { tokenizer, weights } = this.#load();
    const context = weights.config.max_position_embeddings;
    const tokens =
      prompt !== undefined && raw
        ? [tokenizer.special("<|bos|>"), ...tokenizer.encode(prompt)]
        : encodeChat(tokenizer, messages ?? [{ role: "user", content: prompt ?? "" }]);
    if (tokens.length >= context) throw contextExceeded(tokens.length, context);
    return tokens;
  }

  async *#run(input: TextGenerationInput, prompt: readonly number[], signal: AbortSignal): AsyncGenerator<Generated> {
    const engine = this.#load();
    const meter = this.#meter;
    await this.#slots.take(signal);
    meter.running++;
    meter.calls++;
    meter.promptTokens += prompt.length;
    try {
      yield* generate(engine, {
        prompt,
        maxTokens: Math.min(input.max_tokens, engine.weights.config.max_position_embeddings - prompt.length),
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
        onToken: () => void meter.completionTokens++,
      });
    } finally {
      meter.running--;
      this.#slots.give();
    }
  }

  #load(): Engine {
    this.#engine ??= {
      weights: bindWeights(config as Config, parseSafetensors(weightsFile)),
      tokenizer: new Tokenizer(tokenizerFile as unknown as TokenizerFile),
    };
    return this.#engine;
  }
}

const usageOf = (prompt: number, completion: number): Usage => ({
  prompt_tokens: prompt,
  completion_tokens: completion,
  total_tokens: prompt + completion,
});

function normalised(vector: Float32Array): number[] {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return Array.from(vector, (value) => value / length);
}
