import {
  type ChatCall,
  type ChatDelta,
  type EmbeddingCall,
  type EmbeddingResult,
  type Provider,
  ProviderError,
} from "../provider";
import { deltasOf, type OpenAiChunk, sharedParameters, usageOf } from "./openai-shape";
import { readEvents } from "./sse";

export interface UpstreamOptions {
  /** Up to and including `/v1`. */
  readonly baseUrl: string;
  readonly apiKey: string | null;
  /** To the reply's first byte, and between two chunks of it. */
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
}

/** Any OpenAI-compatible server: Ollama, vLLM, llama.cpp, LoRAX, OpenAI itself. */
export function openaiCompatible(options: UpstreamOptions): Provider {
  return {
    async chat(call, signal) {
      const watch = new Watchdog(options.timeoutMs, signal);
      const response = await post(options, "/chat/completions", chatBody(call), watch);
      return call.stream ? streamed(response, watch) : whole(response, watch);
    },
    async embed(call, signal) {
      const watch = new Watchdog(options.timeoutMs, signal);
      const body = { model: call.model.providerModel, input: call.inputs, encoding_format: "float" };
      return vectorsOf(await readJson(await post(options, "/embeddings", body, watch), watch), call);
    },
  };
}

function chatBody(call: ChatCall): Record<string, unknown> {
  const { responseFormat, logitBias, logprobs, topLogprobs, reasoningEffort, parallelToolCalls } = call;
  return {
    model: call.model.providerModel,
    messages: call.messages,
    ...sharedParameters(call),
    ...(call.choices > 1 ? { n: call.choices } : {}),
    ...(call.stream ? { stream: true, stream_options: { include_usage: true } } : {}),
    ...(responseFormat ? { response_format: responseFormat } : {}),
    ...(logitBias ? { logit_bias: logitBias } : {}),
    ...(logprobs ? { logprobs, ...(topLogprobs === undefined ? {} : { top_logprobs: topLogprobs }) } : {}),
    ...(reasoningEffort ? { reasoning_effort: reasoningEffort } : {}),
    ...(parallelToolCalls === undefined ? {} : { parallel_tool_calls: parallelToolCalls }),
  };
}

/** Ends a call whose server says nothing for too long, and tells that apart from a caller who stopped it. */
class Watchdog {
  readonly #abort = new AbortController();
  readonly signal: AbortSignal;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #barked = false;

  constructor(
    readonly timeoutMs: number,
    readonly caller: AbortSignal,
  ) {
    this.signal = AbortSignal.any([this.#abort.signal, caller]);
    this.pat();
  }

  pat(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#barked = true;
      this.#abort.abort();
    }, this.timeoutMs);
  }

  rest(): void {
    clearTimeout(this.#timer);
  }

  explain(error: unknown): ProviderError {
    if (error instanceof ProviderError) return error;
    if (this.caller.aborted) return new ProviderError("aborted", "the caller stopped the call");
    if (this.#barked) return new ProviderError("timeout", `the upstream said nothing for ${this.timeoutMs} ms`);
    return new ProviderError("broken", `the upstream's reply broke off: ${String(error)}`);
  }
}

async function post(options: UpstreamOptions, path: string, body: unknown, watch: Watchdog): Promise<Response> {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (options.apiKey !== null) headers.authorization = `Bearer ${options.apiKey}`;
  let response: Response;
  try {
    response = await options.fetch(options.baseUrl.replace(/\/+$/, "") + path, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      redirect: "manual", // a redirect would carry prompts and keys to somebody else
      signal: watch.signal,
    });
  } catch (error) {
    watch.rest();
    throw watch.explain(error);
  }
  watch.pat();
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  watch.rest();
  throw failureOf(response, text.slice(0, 2_000));
}

function failureOf({ status, headers }: Response, text: string): ProviderError {
  const message = `upstream answered ${status}: ${text}`;
  const seconds = Number(headers.get("retry-after") ?? Number.NaN);
  const detail = { providerCode: String(status), ...(seconds >= 0 ? { retryAfterMs: seconds * 1000 } : {}) };
  if (status === 400 && /context[_ ](length|window|size)/i.test(text))
    return new ProviderError("context_length", message, detail);
  if (status === 429 && /insufficient_quota|billing/i.test(text)) return new ProviderError("quota", message, detail);
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return new ProviderError("bad_input", message, detail);
    case 401:
    case 403:
      return new ProviderError("unauthorized", message, detail);
    case 404:
      return new ProviderError("unknown_model", message, detail);
    case 408:
    case 504:
      return new ProviderError("timeout", message, detail);
    case 429:
    case 503:
      return new ProviderError("capacity", message, detail);
    default:
      return new ProviderError("broken", message, detail);
  }
}

async function readJson(response: Response, watch: Watchdog): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    throw watch.explain(error);
  } finally {
    watch.rest();
  }
}

async function* whole(response: Response, watch: Watchdog): AsyncGenerator<ChatDelta> {
  const reply = (await readJson(response, watch)) as OpenAiChunk | null;
  const finished = reply?.choices?.length && reply.choices.every((choice) => choice.finish_reason);
  if (!reply || !finished) throw new ProviderError("broken", "the upstream's reply has no finished choices");
  yield* deltasOf(reply);
  const usage = usageOf(reply.usage);
  if (usage) yield { type: "usage", ...usage };
}

async function* streamed(response: Response, watch: Watchdog): AsyncGenerator<ChatDelta> {
  let isFinished = false;
  let usage: ReturnType<typeof usageOf>;
  try {
    for await (const data of readEvents(patted(response, watch))) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data) as OpenAiChunk & { error?: unknown };
      if (chunk.error)
        throw new ProviderError("broken", `the upstream's stream reports ${JSON.stringify(chunk.error)}`);
      for (const delta of deltasOf(chunk)) {
        isFinished ||= delta.type === "finish";
        yield delta;
      }
      usage = usageOf(chunk.usage) ?? usage;
    }
  } catch (error) {
    throw watch.explain(error);
  } finally {
    watch.rest();
  }
  if (!isFinished) throw watch.explain(new TypeError("the stream ended before any choice did"));
  if (usage) yield { type: "usage", ...usage };
}

/** The body's chunks, each of which shows that the server is alive. */
async function* patted(response: Response, watch: Watchdog): AsyncGenerator<Uint8Array> {
  if (!response.body) throw new TypeError("a stream without a body");
  for await (const chunk of response.body) {
    watch.pat();
    yield chunk;
  }
}

function vectorsOf(reply: unknown, call: EmbeddingCall): EmbeddingResult {
  const { data, usage } = (reply ?? {}) as { data?: { index?: number; embedding?: unknown }[]; usage?: unknown };
  const vectors = Array.isArray(data)
    ? [...data].sort((a, b) => (a.index ?? 0) - (b.index ?? 0)).map(({ embedding }) => embedding)
    : [];
  if (vectors.length !== call.inputs.length || !vectors.every(isVector)) {
    throw new ProviderError("broken", "the upstream's reply has not one vector for each input");
  }
  return { vectors, promptTokens: usageOf(usage)?.promptTokens ?? null };
}

export const isVector = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "number" && Number.isFinite(item));
