import type { Model } from "../catalogue";
import { type Dialect, dialectOf } from "../dialect";
import { type ChatCall, type EmbeddingCall, ProviderError } from "../provider";
import { parametersOf, plainMessages, withoutUndefined } from "./chat-inputs";
import type { LearnedDialects } from "./learned-dialects";
import { lessonOf } from "./refusal-lesson";
import type { Running } from "./running";
import { upstreamFailure } from "./upstream-errors";

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

const MAX_ERROR_BYTES = 64 * 1024;
/** Corrections that one call may make until its server takes it; each of them is a refusal of at most a few ms. */
const MAX_CORRECTIONS = 4;

/** A server's answer, and the dialect in which it was asked. */
export interface Answer {
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
export async function ask(options: UpstreamOptions, call: ChatCall, running: Running): Promise<Answer> {
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

export async function askForVectors(
  options: UpstreamOptions,
  call: EmbeddingCall,
  running: Running,
): Promise<Response> {
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

export function bodyOf({ body }: Response, running: Running): AsyncGenerator<Uint8Array> {
  if (!body) throw new ProviderError("broken", "the upstream's reply has no body");
  return running.open(body);
}

export async function textOf(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> {
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
