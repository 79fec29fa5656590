import { z } from "zod";
import { FIRST_ISSUE } from "../../first-issue";
import {
  type ChatCall,
  type ChatDelta,
  type EmbeddingCall,
  type EmbeddingResult,
  type Provider,
  ProviderError,
} from "../provider";
import { parametersOf, plainMessages, withoutUndefined } from "./chat-inputs";
import { parsedJson, ReplyReader, type ReplyRules, streamedReply } from "./reply-reader";
import { Running } from "./running";
import { upstreamFailure, upstreamStreamFailure } from "./upstream-errors";
import { checkedVectors } from "./vectors";

export interface UpstreamOptions {
  /** Up to and including `/v1`. */
  readonly baseUrl: string;
  readonly apiKey: string | null;
  /** Longest wait for the reply's first byte, and for the next chunk of it. */
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
}

/** A whole reply above this is refused: it would have to fit into an isolate's memory. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;
const MAX_ERROR_BYTES = 64 * 1024;

const RULES: ReplyRules = { usagePerChunk: false, zeroPromptIsUncounted: false, failureOf: upstreamStreamFailure };

/** Any OpenAI-compatible server: Ollama, vLLM, llama.cpp, LoRAX, OpenAI itself. */
export function openaiCompatible(options: UpstreamOptions): Provider {
  return {
    async chat(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const response = await post(options, "/chat/completions", chatBody(call), running);
        const body = bodyOf(response, running);
        const reader = new ReplyReader(call, RULES);
        // Whatever was asked for, the server says what it sends.
        const isStreamed = response.headers.get("content-type")?.includes("text/event-stream") ?? call.stream;
        return running.output(isStreamed ? streamedReply(body, reader) : wholeReply(body, reader), brokenOff);
      } catch (error) {
        throw running.failure(error, brokenOff);
      }
    },
    async embed(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const asked = { model: call.model.providerModel, input: call.inputs, encoding_format: "float" };
        const response = await post(options, "/embeddings", asked, running);
        return vectorsIn(parsedJson(await textOf(bodyOf(response, running), MAX_REPLY_BYTES)), call);
      } catch (error) {
        throw running.failure(error, brokenOff);
      } finally {
        running.stop();
      }
    },
  };
}

function chatBody(call: ChatCall): Record<string, unknown> {
  const { tools, toolChoice } = call;
  return withoutUndefined({
    ...parametersOf(call),
    model: call.model.providerModel,
    messages: plainMessages(call),
    n: call.choices > 1 ? call.choices : undefined,
    seed: call.seed === undefined ? undefined : call.seed + (call.firstChoice ?? 0),
    response_format: call.responseFormat,
    reasoning_effort: call.reasoningEffort,
    ...(tools && tools.length > 0 ? { tools, tool_choice: toolChoice } : {}),
    ...(call.stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  });
}

/** @throws ProviderError for every answer that is no success */
async function post(options: UpstreamOptions, path: string, body: unknown, running: Running): Promise<Response> {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (options.apiKey !== null) headers.authorization = `Bearer ${options.apiKey}`;
  const response = await running.wait(
    options.fetch(options.baseUrl.replace(/\/+$/, "") + path, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      redirect: "manual",
      signal: running.signal,
    }),
  );
  if (response.ok) return response;
  const text = response.body ? await textOf(running.open(response.body), MAX_ERROR_BYTES).catch(() => "") : "";
  throw upstreamFailure(response.status, response.headers, text);
}

function bodyOf({ body }: Response, running: Running): AsyncGenerator<Uint8Array> {
  if (!body) throw new ProviderError("broken", "the upstream's reply has no body");
  return running.open(body);
}

async function textOf(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new ProviderError("broken", `the upstream's reply exceeds ${maxBytes} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

async function* wholeReply(body: AsyncIterable<Uint8Array>, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  yield* reader.read(parsedJson(await textOf(body, MAX_REPLY_BYTES)));
  if (!reader.isComplete) throw new ProviderError("broken", "the upstream's reply lacks the end of a choice");
  yield* reader.end();
}

const Embeddings = z.object({
  data: z.array(z.object({ index: z.int().nonnegative().optional(), embedding: z.unknown().optional() })),
  usage: z.unknown().optional(),
});

function vectorsIn(reply: unknown, call: EmbeddingCall): EmbeddingResult {
  const { data } = Embeddings.safeParse(reply, FIRST_ISSUE);
  if (!data) throw new ProviderError("broken", "the upstream's reply has no embeddings");
  const inOrder = data.data.toSorted((a, b) => (a.index ?? 0) - (b.index ?? 0));
  const vectors = inOrder.map(({ embedding }) => embedding);
  return checkedVectors(vectors, data.usage, call);
}

/** What fetch throws names hosts and addresses; neither is anybody's business. */
const brokenOff = () => new ProviderError("broken", "the connection to the upstream broke off");
