import {
  type ChatCall,
  type ChatDelta,
  type ChatMessage,
  type FinishReason,
  type Provider,
  ProviderError,
  type ProviderUsage,
} from "../provider";
import { isVector } from "./openai-compatible";
import { deltasOf, type OpenAiChunk, sharedParameters, usageOf } from "./openai-shape";
import { readEvents } from "./sse";
import { failureOfWorkersAi } from "./workers-ai-errors";

/** The Workers AI binding, or a service binding that answers like it. */
export interface AiBinding {
  run(model: string, inputs: object, options?: object): Promise<unknown>;
}

/**
 * Workers AI, in both of its reply shapes: classic `{response, tool_calls?, usage?}` and OpenAI's `choices`.
 * It has no `n`, so several choices are several calls side by side. An AbortSignal cannot cross RPC: a stream is
 * stopped by cancelling it, a whole reply by no longer waiting for it.
 */
export function workersAi(ai: AiBinding): Provider {
  return {
    async chat(call, signal) {
      const runs = Array.from({ length: call.choices }, (_, choice) => choice);
      const started = await Promise.all(runs.map((choice) => start(ai, call, choice, signal)));
      return started.length === 1 && started[0] ? started[0] : mergeChoices(started);
    },
    async embed({ model, inputs }, signal) {
      const reply = await run(ai, model.providerModel, { text: inputs }, signal);
      const { data, usage } = (reply ?? {}) as { data?: unknown; usage?: unknown };
      if (!Array.isArray(data) || data.length !== inputs.length || !data.every(isVector)) {
        throw new ProviderError("broken", "Workers AI answered without one vector for each input");
      }
      return { vectors: data, promptTokens: usageOf(usage)?.promptTokens ?? null };
    },
  };
}

async function start(
  ai: AiBinding,
  call: ChatCall,
  choice: number,
  signal: AbortSignal,
): Promise<AsyncGenerator<ChatDelta>> {
  const reply = await run(ai, call.model.providerModel, inputsOf(call, choice), signal);
  if (reply instanceof ReadableStream) return streamed(reply as ReadableStream<Uint8Array>, call, choice, signal);
  return whole(reply, call, choice);
}

async function run(ai: AiBinding, model: string, inputs: object, signal: AbortSignal): Promise<unknown> {
  const stopped = Promise.withResolvers<never>();
  const stop = () => stopped.reject(new ProviderError("aborted", "the caller stopped the call"));
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([ai.run(model, inputs), stopped.promise]);
  } catch (error) {
    throw error instanceof ProviderError ? error : failureOfWorkersAi(error);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function inputsOf(call: ChatCall, choice: number): Record<string, unknown> {
  const { responseFormat, seed } = call;
  return {
    messages: call.messages.map(messageToWorkersAi),
    ...sharedParameters(call),
    ...(seed === undefined || choice === 0 ? {} : { seed: seed + choice }), // else every choice would be the same
    ...(call.stream ? { stream: true } : {}),
    ...(responseFormat?.type === "json_object" ? { response_format: responseFormat } : {}),
    ...(responseFormat?.type === "json_schema"
      ? { response_format: { type: "json_schema", json_schema: responseFormat.json_schema.schema ?? {} } }
      : {}),
  };
}

function messageToWorkersAi({ role, content, ...rest }: ChatMessage): Record<string, unknown> {
  const hasImages = Array.isArray(content) && content.some((part) => part.type === "image_url");
  const text = Array.isArray(content) && !hasImages ? content.map(textOf).join("") : content;
  return { role: role === "developer" ? "system" : role, content: text ?? "", ...rest };
}
const textOf = (part: { readonly text?: string; readonly refusal?: string }) => part.text ?? part.refusal ?? "";

interface ClassicReply {
  /** An object where JSON was asked for. */
  readonly response?: unknown;
  readonly tool_calls?: readonly ClassicToolCall[];
  readonly finish_reason?: string;
  readonly usage?: unknown;
}
interface ClassicToolCall {
  readonly id?: string;
  readonly name?: string;
  readonly arguments?: unknown;
  readonly function?: { readonly name?: string; readonly arguments?: unknown };
}

async function* whole(reply: unknown, call: ChatCall, choice: number): AsyncGenerator<ChatDelta> {
  if (typeof reply !== "object" || reply === null)
    throw new ProviderError("broken", "Workers AI answered with nothing");
  const ending = new Ending(call, choice);
  const shaped = reply as OpenAiChunk & ClassicReply;
  const deltas = shaped.choices ? [...deltasOf(shaped, choice)] : [...classicDeltas(shaped, choice)];
  if (deltas.length === 0 && shaped.response === undefined && !shaped.choices?.length) {
    throw new ProviderError("broken", "Workers AI answered in an unknown shape");
  }
  for (const delta of deltas) if (ending.see(delta)) yield delta;
  ending.usage = usageOf(shaped.usage);
  yield* ending.deltas(shaped.finish_reason);
}

async function* streamed(
  stream: ReadableStream<Uint8Array>,
  call: ChatCall,
  choice: number,
  signal: AbortSignal,
): AsyncGenerator<ChatDelta> {
  const ending = new Ending(call, choice);
  let nativeReason: string | undefined;
  let isDone = false;
  const reader = stream.getReader();
  const stop = () => void reader.cancel().catch(() => {});
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  try {
    for await (const data of readEvents(chunksOf(reader))) {
      if (data === "[DONE]") {
        isDone = true;
        break;
      }
      const chunk = JSON.parse(data) as OpenAiChunk & ClassicReply;
      const deltas = chunk.choices ? deltasOf(chunk, choice) : classicDeltas(chunk, choice);
      for (const delta of deltas) if (ending.see(delta)) yield delta;
      // Chunks of newer models carry usage as deltas; the last, native one has the totals.
      if (!chunk.choices || chunk.choices.length === 0) ending.usage = usageOf(chunk.usage) ?? ending.usage;
      nativeReason = chunk.choices ? nativeReason : (chunk.finish_reason ?? nativeReason);
    }
  } catch (error) {
    if (signal.aborted) throw new ProviderError("aborted", "the caller stopped the call");
    throw error instanceof ProviderError ? error : failureOfWorkersAi(error);
  } finally {
    signal.removeEventListener("abort", stop);
    if (!isDone) stop();
  }
  if (signal.aborted) throw new ProviderError("aborted", "the caller stopped the call");
  if (!isDone && !ending.isFinished && !ending.usage)
    throw new ProviderError("broken", "the stream ended before the reply did");
  yield* ending.deltas(nativeReason);
}

async function* chunksOf(reader: ReadableStreamDefaultReader<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

function* classicDeltas({ response, tool_calls }: ClassicReply, choice: number): Generator<ChatDelta> {
  const text = typeof response === "string" ? response : response == null ? "" : JSON.stringify(response);
  if (text !== "") yield { type: "text", choice, text };
  for (const [index, call] of (tool_calls ?? []).entries()) {
    const { name, arguments: given } = call.function ?? call;
    const written = typeof given === "string" ? given : JSON.stringify(given ?? {});
    yield {
      type: "tool_call",
      choice,
      index,
      name: name ?? "",
      arguments: written,
      ...(call.id ? { id: call.id } : {}),
    };
  }
}

/** How a choice ended: said by the model where it says so, else derived from what was seen. */
class Ending {
  usage: ProviderUsage | undefined;
  #reason: FinishReason | undefined;
  #hasToolCalls = false;

  constructor(
    readonly call: ChatCall,
    readonly choice: number,
  ) {}

  get isFinished(): boolean {
    return this.#reason !== undefined;
  }

  /** @returns whether the delta goes on; a finish waits for the end */
  see(delta: ChatDelta): boolean {
    if (delta.type === "finish") this.#reason = delta.reason;
    if (delta.type === "tool_call") this.#hasToolCalls = true;
    return delta.type !== "finish";
  }

  *deltas(nativeReason: string | undefined): Generator<ChatDelta> {
    const isFull = (this.usage?.completionTokens ?? 0) >= this.call.maxOutputTokens;
    const said = nativeReason === "length" || nativeReason === "stop" ? nativeReason : undefined;
    const derived = this.#hasToolCalls ? "tool_calls" : (said ?? (isFull ? "length" : "stop"));
    yield { type: "finish", choice: this.choice, reason: this.#reason ?? derived };
    if (this.usage) yield { type: "usage", ...this.usage };
  }
}

/** Several runs as one output: deltas as they come, the prompt counted once, outputs added up. */
async function* mergeChoices(runs: readonly AsyncGenerator<ChatDelta>[]): AsyncGenerator<ChatDelta> {
  const pending = new Map(runs.map((one, index) => [index, advance(one, index)]));
  const usages: ProviderUsage[] = [];
  try {
    while (pending.size > 0) {
      const { index, result } = await Promise.race(pending.values());
      if (result.done) {
        pending.delete(index);
        continue;
      }
      pending.set(index, advance(runs[index] as AsyncGenerator<ChatDelta>, index));
      if (result.value.type === "usage") usages.push(result.value);
      else yield result.value;
    }
  } finally {
    for (const left of pending.values()) left.catch(() => {});
    await Promise.all([...pending.keys()].map((index) => runs[index]?.return(undefined).catch(() => {})));
  }
  if (usages.length < runs.length) return; // somebody did not say: the tap's count stands in
  yield {
    type: "usage",
    promptTokens: Math.max(...usages.map((usage) => usage.promptTokens)),
    cachedTokens: Math.max(...usages.map((usage) => usage.cachedTokens)),
    completionTokens: usages.reduce((sum, usage) => sum + usage.completionTokens, 0),
  };
}

const advance = async (run: AsyncGenerator<ChatDelta>, index: number) => ({ index, result: await run.next() });
