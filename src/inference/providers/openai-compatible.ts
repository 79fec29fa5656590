import { z } from "zod";
import type { Model } from "../catalogue";
import { type Dialect, dialectOf } from "../dialect";
import {
  type ChatCall,
  type ChatDelta,
  type EmbeddingCall,
  type EmbeddingResult,
  type Provider,
  ProviderError,
  type ProviderUsage,
} from "../provider";
import { parametersOf, plainMessages, withoutUndefined } from "./chat-inputs";
import type { LearnedDialects } from "./learned-dialects";
import { lessonOf } from "./refusal-lesson";
import { parsedJson, ReplyReader, type ReplyRules, streamedDeltas } from "./reply-reader";
import { Running } from "./running";
import { summed } from "./side-by-side";
import { upstreamFailure, upstreamStreamFailure } from "./upstream-errors";
import { checkedVectors } from "./vectors";

export interface UpstreamOptions {
  /** Up to and including `/v1`. */
  readonly baseUrl: string;
  readonly apiKey: string | null;
  /** Longest wait for the reply's first byte, and for the next chunk of it. */
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
  /** What was learned of servers; without it every call learns anew. */
  readonly dialects?: LearnedDialects;
}

/** A whole reply above this is refused: it would have to fit into an isolate's memory. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;
const MAX_ERROR_BYTES = 64 * 1024;

const RULES: ReplyRules = { usagePerChunk: false, zeroPromptIsUncounted: false, failureOf: upstreamStreamFailure };

/** Corrections that one call may make until its server takes it; each of them is a refusal of at most a few ms. */
const MAX_CORRECTIONS = 4;

/** Any OpenAI-compatible server: Ollama, vLLM, llama.cpp, LoRAX, OpenAI itself. */
export function openaiCompatible(options: UpstreamOptions): Provider {
  return {
    async chat(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const begun = await ask(options, call, running);
        return running.output(answered(options, call, running, begun), brokenOff);
      } catch (error) {
        throw running.failure(error, brokenOff);
      }
    },
    async embed(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const response = await askForVectors(options, call, running);
        return vectorsIn(parsedJson(await textOf(bodyOf(response, running), MAX_REPLY_BYTES)), call);
      } catch (error) {
        throw running.failure(error, brokenOff);
      } finally {
        running.stop();
      }
    },
  };
}

/** A server's answer, and the dialect in which it was asked. */
interface Answer {
  readonly body: AsyncGenerator<Uint8Array>;
  readonly dialect: Dialect;
}

/** What is known of one server's model, and what becomes of it. */
class Known {
  readonly dialect: Dialect;
  readonly #doubted: Dialect | undefined;

  constructor(
    readonly options: UpstreamOptions,
    readonly model: Model,
  ) {
    const { trusted, doubted } = options.dialects?.recall(options.baseUrl, model.providerModel) ?? {};
    this.dialect = trusted ?? dialectOf(model.dialect);
    this.#doubted = doubted;
  }

  /** The server has answered. @param bodyIn what would have been sent in a dialect */
  tookIt(dialect: Dialect, bodyIn: (dialect: Dialect) => unknown): void {
    const { dialects, baseUrl } = this.options;
    const place = [baseUrl, this.model.providerModel] as const;
    if (dialect !== this.dialect) dialects?.remember(...place, dialect);
    else if (this.#doubted && JSON.stringify(bodyIn(this.#doubted)) !== JSON.stringify(bodyIn(dialect)))
      dialects?.forget(...place);
    else if (this.#doubted) dialects?.doubtNext(...place);
  }
}

/**
 * Asks in the server's dialect. What it refuses by name is asked again without it, or under its other name; once it
 * has answered, that is how it is asked from then on. A refused request made nothing, so nothing is paid for twice.
 * @throws ProviderError of the last refusal
 */
async function ask(options: UpstreamOptions, call: ChatCall, running: Running): Promise<Answer> {
  const known = new Known(options, call.model);
  let { dialect } = known;
  let cap: number | null = call.maxOutputTokens;
  const hasReasoning = call.messages.some(({ reasoning }) => reasoning !== undefined);
  for (let correction = 0; ; correction++) {
    const sent = chatBody(call, dialect, cap);
    const response = await post(options, "/chat/completions", sent, running);
    if (response.ok) {
      known.tookIt(dialect, (other) => chatBody(call, other, cap));
      return { body: bodyOf(response, running), dialect };
    }
    const text = await errorTextOf(response, running);
    const isCapDefault = call.isCapDefault === true;
    const refused = { status: response.status, text, sent, dialect, hasReasoning, isCapDefault };
    const lesson = lessonOf(refused);
    const failure = upstreamFailure(response.status, response.headers, text);
    if (!lesson || correction === MAX_CORRECTIONS) throw failure;
    if ("param" in lesson) throw ofParam(failure, lesson.param);
    if ("cap" in lesson) cap = lesson.cap;
    else dialect = lesson.dialect;
  }
}

const ofParam = (failure: ProviderError, param: string) =>
  failure.failure === "bad_input"
    ? new ProviderError("bad_input", failure.message, { ...failure.detail, param })
    : failure;

/** An answer that has begun; choices that it leaves out are asked for one after the other. */
async function* answered(
  options: UpstreamOptions,
  call: ChatCall,
  running: Running,
  { body, dialect }: Answer,
): AsyncGenerator<ChatDelta> {
  const reader = readerOf(call, dialect);
  yield* deltasOf(body, reader);
  const { missing } = reader;
  if (missing.length === 0 || missing.length === call.choices) return yield* reader.end();
  const oneChoice = { ...dialect, hasOneChoice: true };
  if (!dialect.hasOneChoice) options.dialects?.remember(options.baseUrl, call.model.providerModel, oneChoice);
  yield* inTurn(options, call, running, missing, reader.end());
}

/**
 * Choices by a call each, one after the other: more at once would take more of a scarce server than this call was
 * given. Ends and the sum of the usages come last; the prompt was the same, so it counts once.
 */
async function* inTurn(
  options: UpstreamOptions,
  call: ChatCall,
  running: Running,
  choices: readonly number[],
  before: Iterable<ChatDelta>,
): AsyncGenerator<ChatDelta> {
  const ends: ChatDelta[] = [];
  const usages: ProviderUsage[] = [];
  const runs = 1 + choices.length;
  let rejected: ChatDelta | undefined;
  const passed = function* (delta: ChatDelta, choice?: number): Generator<ChatDelta> {
    if (delta.type === "usage") usages.push(delta);
    else if (delta.type === "usage_rejected") rejected = delta;
    else {
      const own = choice === undefined ? delta : { ...delta, choice };
      if (delta.type === "finish") ends.push(own);
      else yield own;
    }
  };
  for (const delta of before) yield* passed(delta);
  for (const choice of choices) {
    const seed = call.seed === undefined || choice === 0 ? {} : { seed: call.seed + choice };
    const single = { ...call, ...seed, choices: 1 };
    const { body, dialect } = await ask(options, single, running);
    const reader = readerOf(single, dialect);
    for await (const delta of deltasOf(body, reader)) yield* passed(delta, choice);
    for (const delta of reader.end()) yield* passed(delta, choice);
  }
  yield* ends.toSorted((a, b) => ("choice" in a ? a.choice : 0) - ("choice" in b ? b.choice : 0));
  if (usages.length === runs) yield { type: "usage", ...summed(usages) };
  else if (rejected) yield rejected;
}

const readerOf = (call: ChatCall, dialect: Dialect) =>
  new ReplyReader(call, {
    ...RULES,
    hasThinkTags: dialect.hasThinkTags,
    hasOneCall: call.parallelToolCalls === false && dialect.omit.includes("parallel_tool_calls"),
  });

function chatBody(call: ChatCall, dialect: Dialect, cap: number | null): Record<string, unknown> {
  const { tools, toolChoice } = call;
  const { max_tokens: _, ...parameters } = parametersOf(call);
  const body = withoutUndefined({
    ...parameters,
    ...(dialect.outputCap === "none" || cap === null ? {} : { [dialect.outputCap]: cap }),
    model: call.model.providerModel,
    messages: plainMessages(call, dialect),
    n: call.choices > 1 && !dialect.hasOneChoice ? call.choices : undefined, // the others are asked for by themselves
    response_format: call.responseFormat,
    reasoning_effort: call.reasoningEffort,
    ...(tools && tools.length > 0 ? { tools, tool_choice: toolChoice } : {}),
    ...(call.stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  });
  return Object.fromEntries(Object.entries(body).filter(([name]) => !dialect.omit.includes(name)));
}

/** @returns whatever the server answers, refusals too; @throws ProviderError where it does not */
async function post(options: UpstreamOptions, path: string, body: unknown, running: Running): Promise<Response> {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (options.apiKey !== null) headers.authorization = `Bearer ${options.apiKey}`;
  return running.wait(
    options.fetch(options.baseUrl.replace(/\/+$/, "") + path, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      redirect: "manual",
      signal: running.signal,
    }),
  );
}

/** What a refusal says; its beginning, or nothing where that does not come. */
const errorTextOf = async ({ body }: Response, running: Running): Promise<string> =>
  body ? textOf(running.open(body), MAX_ERROR_BYTES).catch(() => "") : "";

async function askForVectors(options: UpstreamOptions, call: EmbeddingCall, running: Running): Promise<Response> {
  const { model, inputs, dimensions } = call;
  const known = new Known(options, model);
  let { dialect } = known;
  const fields = { model: model.providerModel, input: inputs, encoding_format: "float", dimensions };
  const bodyIn = ({ omit }: Dialect): Record<string, unknown> =>
    Object.fromEntries(Object.entries(withoutUndefined(fields)).filter(([name]) => !omit.includes(name)));
  for (let correction = 0; ; correction++) {
    const sent = bodyIn(dialect);
    const response = await post(options, "/embeddings", sent, running);
    if (response.ok) {
      known.tookIt(dialect, bodyIn);
      return response;
    }
    const text = await errorTextOf(response, running);
    const failure = upstreamFailure(response.status, response.headers, text);
    const refused = { status: response.status, text, sent, dialect, hasReasoning: false, isCapDefault: false };
    const lesson = lessonOf(refused);
    if (!lesson || correction === MAX_CORRECTIONS || "cap" in lesson) throw failure;
    if ("param" in lesson) throw ofParam(failure, lesson.param);
    dialect = lesson.dialect;
  }
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

/** Whatever was asked for, and whatever the server calls it: its first character says what it sends. */
async function* deltasOf(body: AsyncGenerator<Uint8Array>, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  for (let blanks = 0; blanks < MAX_REPLY_BYTES; ) {
    const { done, value } = await body.next();
    if (done) break;
    const at = value.findIndex((byte) => !BLANKS.has(byte));
    if (at === -1) {
      blanks += value.length; // gateways keep their connection alive with blanks in front of the reply
      continue;
    }
    const bytes = followedBy(value.subarray(at), body);
    return yield* WHOLE.has(value[at] as number) ? wholeDeltas(bytes, reader) : streamedDeltas(bytes, reader);
  }
  throw new ProviderError("broken", "the upstream's reply is empty");
}
/** White space, and the three bytes of a byte order mark. */
const BLANKS: ReadonlySet<number> = new Set([0x09, 0x0a, 0x0d, 0x20, 0xef, 0xbb, 0xbf]);
/** The beginnings of JSON, and of a proxy's page. */
const WHOLE: ReadonlySet<number> = new Set([...'{["<'].map((character) => character.charCodeAt(0)));

async function* followedBy(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

async function* wholeDeltas(body: AsyncIterable<Uint8Array>, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  yield* reader.read(parsedJson(await textOf(body, MAX_REPLY_BYTES)));
  if (!reader.isComplete) throw new ProviderError("broken", "the upstream's reply lacks the end of a choice");
}

const Embeddings = z.object({
  data: z.array(z.object({ index: z.int().nonnegative().optional(), embedding: z.unknown().optional() })),
  usage: z.unknown().optional(),
});

function vectorsIn(reply: unknown, call: EmbeddingCall): EmbeddingResult {
  const { data } = Embeddings.safeParse(Array.isArray(reply) ? { data: reply } : reply);
  if (!data) throw new ProviderError("broken", "the upstream's reply has no embeddings");
  const inOrder = data.data.toSorted((a, b) => (a.index ?? 0) - (b.index ?? 0));
  const vectors = inOrder.map(({ embedding }) => embedding);
  return checkedVectors(vectors, data.usage, call);
}

/** What fetch throws names hosts and addresses; neither is anybody's business. */
const brokenOff = () => new ProviderError("broken", "the connection to the upstream broke off");
