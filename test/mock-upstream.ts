import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What the mock does with a request. Everything is optional: without a script it answers with five words. */
export interface Script {
  /** Before the reply's headers. */
  readonly firstByteMs?: number;
  /** Between two tokens. */
  readonly tokenMs?: number;
  /** Tokens to make; the request's own cap bounds them unless `ignoreCap`. */
  readonly tokens?: number;
  readonly ignoreCap?: boolean;
  /** This text in place of counted words, one token a word. */
  readonly text?: string;
  /** Answers with the whole prompt it was given. */
  readonly echo?: boolean;
  /** So many tokens of reasoning before the text. */
  readonly reasoningTokens?: number;
  /** Log probabilities of each token, whether asked for or not. */
  readonly logprobs?: boolean;
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: string }[];
  /** In place of the true one; null says none. */
  readonly finishReason?: string | null;
  /** An error status with this body. */
  readonly status?: number;
  readonly errorBody?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Never answers. */
  readonly hang?: boolean;
  /** A comment this often in place of an answer, for ever. */
  readonly pingsMs?: number;
  /** Stops answering after so many tokens. */
  readonly hangAfter?: number;
  /** Cuts the connection after so many tokens; a whole reply in its middle. */
  readonly cutAfter?: number;
  /** Splits the stream into pieces of so many bytes. */
  readonly splitBytes?: number;
  /** In place of a true usage; null sends none. */
  readonly usage?: unknown;
  /** Bytes in place of a reply. */
  readonly rawBody?: string;
  /** Ends the stream without `[DONE]`. */
  readonly withoutDone?: boolean;
  /** Length of the vectors; three without it. */
  readonly dimensions?: number;
}

interface Body {
  readonly model: string;
  readonly messages?: readonly { readonly content: unknown }[];
  readonly input?: string | readonly string[];
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly max_tokens?: number;
  readonly n?: number;
}

interface SeenRequest {
  /** Unix milliseconds by the mock's own clock. */
  readonly atMs: number;
  readonly path: string;
  readonly body: Body;
  readonly headers: IncomingMessage["headers"];
}

const MAX_REMEMBERED = 20_000;

/** A test double of an OpenAI-compatible provider, at the network's edge. Its counters nobody else can write. */
export class MockUpstream {
  readonly #server: Server;
  /** `aborted`: the client closed before its reply was complete. `sequences`: choices that run now, of all calls. */
  readonly counters = {
    calls: 0,
    promptTokens: 0,
    completionTokens: 0,
    aborted: 0,
    inFlight: 0,
    maxInFlight: 0,
    sequences: 0,
    maxSequences: 0,
  };
  /** The last requests, oldest first. */
  readonly requests: SeenRequest[] = [];
  #script: Script;
  readonly #ofModel = new Map<string, Script>();
  readonly #once: Script[] = [];
  readonly #waiting = new Set<() => void>();

  private constructor(script: Script) {
    this.#script = script;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
  }

  static async start(script: Script = {}, port = 0): Promise<MockUpstream> {
    const mock = new MockUpstream(script);
    await new Promise<void>((resolve) => mock.#server.listen(port, "127.0.0.1", resolve));
    return mock;
  }

  /** Up to and including `/v1`. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  /** What it does from now on; with `model`, only for requests that name it. */
  script(script: Script, model?: string): void {
    if (model === undefined) this.#script = script;
    else this.#ofModel.set(model, script);
  }

  /** What it does with the next request that nothing said before is for. */
  once(script: Script): void {
    this.#once.push(script);
  }

  /** Settles when the counters say so; asked anew at every change, so nobody has to sleep. */
  async until(condition: (counters: MockUpstream["counters"]) => boolean): Promise<void> {
    while (!condition(this.counters)) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #count(change: Partial<Record<keyof MockUpstream["counters"], number>>): void {
    const { counters } = this;
    for (const [name, by] of Object.entries(change)) counters[name as keyof typeof counters] += by;
    counters.maxInFlight = Math.max(counters.maxInFlight, counters.inFlight);
    counters.maxSequences = Math.max(counters.maxSequences, counters.sequences);
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === "GET") return sendJson(response, { object: "list", data: this.#models() });
    const body = JSON.parse(await textOf(request)) as Body;
    this.requests.push({ atMs: Date.now(), path: request.url ?? "", body, headers: request.headers });
    if (this.requests.length > MAX_REMEMBERED) this.requests.shift();
    const script = this.#once.shift() ?? this.#ofModel.get(body.model) ?? this.#script;
    const sequences = body.n ?? 1;
    this.#count({ calls: 1, inFlight: 1, sequences });
    response.once("close", () =>
      this.#count({ inFlight: -1, sequences: -sequences, aborted: isAbandoned(response) ? 1 : 0 }),
    );
    if (script.hang) return;
    if (script.firstByteMs) await pause(script.firstByteMs);
    if (script.status) return send(response, script.status, script.errorBody ?? "{}", script.headers);
    if (script.rawBody !== undefined) return send(response, 200, script.rawBody, script.headers);
    if (request.url?.endsWith("/embeddings")) return this.#embed(response, body, script);
    return body.stream ? this.#stream(response, body, script) : this.#whole(response, body, script);
  }

  #models() {
    return ["mock", ...this.#ofModel.keys()].map((id) => ({ id, object: "model", created: 0, owned_by: "mock" }));
  }

  #embed(response: ServerResponse, { input = [] }: Body, { dimensions = 3, usage }: Script): void {
    const texts = typeof input === "string" ? [input] : input;
    const vectorOf = (text: string) => Array.from({ length: dimensions }, (_, at) => (at === 0 ? text.length : 1 / at));
    const data = texts.map((text, index) => ({ object: "embedding", index, embedding: vectorOf(text) }));
    const tokens = texts.reduce((sum, text) => sum + wordsOf(text).length, 0);
    this.#count({ promptTokens: tokens });
    const counted = usage === undefined ? { prompt_tokens: tokens, total_tokens: tokens } : usage;
    sendJson(response, { object: "list", data, ...(counted === null ? {} : { usage: counted }) });
  }

  async #whole(response: ServerResponse, body: Body, script: Script): Promise<void> {
    const words = tokensFor(body, script);
    if (script.tokenMs) await pause(script.tokenMs * words.length);
    const message = {
      role: "assistant",
      content: words.join(""),
      ...(script.reasoningTokens ? { reasoning_content: thoughts(script).join("") } : {}),
      ...(script.toolCalls ? { tool_calls: toolCalls(script) } : {}),
    };
    const choices = Array.from({ length: body.n ?? 1 }, (_, index) => ({
      index,
      message,
      logprobs: script.logprobs ? { content: words.map(scored) } : null,
      finish_reason: finishOf(body, script, words.length),
    }));
    const reply = { id: "mock", object: "chat.completion", choices, ...usageOf(body, script, words) };
    this.#count({ promptTokens: promptOf(body), completionTokens: madeTokens(words, script) * choices.length });
    if (script.cutAfter === undefined) return sendJson(response, reply);
    const text = JSON.stringify(reply);
    response.writeHead(200, { "content-type": "application/json", "content-length": text.length });
    await written(response, text.slice(0, text.length / 2));
    cut(response);
  }

  async #stream(response: ServerResponse, body: Body, script: Script): Promise<void> {
    response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
    while (script.pingsMs && !response.destroyed) {
      await written(response, Buffer.from(": ping\n\n"));
      await pause(script.pingsMs);
    }
    const write = async (data: unknown) => {
      const bytes = Buffer.from(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
      const size = script.splitBytes ?? bytes.length;
      for (let at = 0; at < bytes.length; at += size) {
        await written(response, bytes.subarray(at, at + size));
        if (script.splitBytes) await new Promise(setImmediate); // else the pieces would leave together
      }
    };
    const say = (delta: unknown, finish_reason: string | null = null, logprobs: unknown = null) =>
      everyChoice(body, (index) => write({ id: "mock", choices: [{ index, delta, finish_reason, logprobs }] }));
    const words = tokensFor(body, script);
    this.#count({ promptTokens: promptOf(body) });
    for (const reasoning_content of thoughts(script)) {
      this.#count({ completionTokens: 1 });
      await say({ reasoning_content });
    }
    for (const [index, word] of words.entries()) {
      if (script.tokenMs) await pause(script.tokenMs);
      if (response.destroyed || script.hangAfter === index) return;
      if (script.cutAfter === index) return cut(response);
      this.#count({ completionTokens: body.n ?? 1 });
      await say({ role: "assistant", content: word }, null, script.logprobs ? { content: [scored(word)] } : null);
    }
    for (const [index, call] of (script.toolCalls ? toolCalls(script) : []).entries())
      await say({ tool_calls: [{ index, ...call }] });
    await say({}, finishOf(body, script, words.length));
    if (body.stream_options?.include_usage) await write({ id: "mock", choices: [], ...usageOf(body, script, words) });
    if (!script.withoutDone) await write("[DONE]");
    response.end();
  }
}

async function everyChoice({ n = 1 }: Body, write: (index: number) => Promise<void>): Promise<void> {
  for (let index = 0; index < n; index++) await write(index);
}

const NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

function tokensFor(body: Body, script: Script): string[] {
  if (script.toolCalls) return [];
  const words = script.echo
    ? wordsOf(JSON.stringify(body.messages))
    : script.text !== undefined
      ? wordsOf(script.text)
      : Array.from({ length: script.tokens ?? 5 }, (_, index) => `${index === 0 ? "" : " "}${NUMBERS[index % 10]}`);
  return script.ignoreCap ? words : words.slice(0, body.max_tokens ?? words.length);
}

const wordsOf = (text: string) => text.match(/\s*\S+|\s+$/g) ?? [];
const thoughts = ({ reasoningTokens = 0 }: Script) => Array.from({ length: reasoningTokens }, () => "hm ");
const scored = (token: string) => ({ token, logprob: -0.5, bytes: null, top_logprobs: [] });
const toolCalls = ({ toolCalls: calls = [] }: Script) =>
  calls.map((call, index) => ({ id: `call_${index}`, type: "function", function: call }));

const promptOf = (body: Body) => wordsOf(JSON.stringify(body.messages ?? [])).length;
const madeTokens = (words: readonly string[], script: Script) => words.length + (script.reasoningTokens ?? 0);

function usageOf(body: Body, script: Script, words: readonly string[]): { usage?: unknown } {
  if (script.usage === null) return {};
  if (script.usage !== undefined) return { usage: script.usage };
  const prompt_tokens = promptOf(body);
  const completion_tokens = madeTokens(words, script) * (body.n ?? 1);
  return { usage: { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens } };
}

function finishOf(body: Body, script: Script, tokens: number): string | null {
  if (script.finishReason !== undefined) return script.finishReason;
  if (script.toolCalls) return "tool_calls";
  return body.max_tokens !== undefined && tokens >= body.max_tokens ? "length" : "stop";
}

const wasCut = new WeakSet<ServerResponse>();
/** Everything written arrives, and then the end of the connection in place of the reply's. */
function cut(response: ServerResponse): void {
  wasCut.add(response);
  response.socket?.end();
}
const isAbandoned = (response: ServerResponse) => !response.writableFinished && !wasCut.has(response);

/** Settles when the bytes are on their way, or can never be. */
const written = (response: ServerResponse, bytes: string | Uint8Array) =>
  new Promise<void>((resolve) => response.write(bytes, () => resolve()));

const sendJson = (response: ServerResponse, body: unknown) => send(response, 200, JSON.stringify(body));

function send(
  response: ServerResponse,
  status: number,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(body);
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
