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
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: string }[];
  /** An error status with this body. */
  readonly status?: number;
  readonly errorBody?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Never answers. */
  readonly hang?: boolean;
  /** Stops answering after so many tokens. */
  readonly hangAfter?: number;
  /** Cuts the connection after so many tokens. */
  readonly cutAfter?: number;
  /** Splits the stream into pieces of so many bytes. */
  readonly splitBytes?: number;
  /** In place of a true usage; null sends none. */
  readonly usage?: unknown;
  /** Bytes in place of a JSON reply. */
  readonly rawBody?: string;
  /** Ends the stream without `[DONE]`. */
  readonly withoutDone?: boolean;
}

interface ChatBody {
  readonly model: string;
  readonly messages?: readonly { readonly content: unknown }[];
  readonly input?: string | readonly string[];
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly max_tokens?: number;
  readonly n?: number;
}

const MAX_REMEMBERED = 1_000;

/** A test double of an OpenAI-compatible provider, at the network's edge. Its counters nobody else can write. */
export class MockUpstream {
  readonly #server: Server;
  readonly counters = { calls: 0, promptTokens: 0, completionTokens: 0, aborted: 0, inFlight: 0, maxInFlight: 0 };
  readonly requests: {
    readonly path: string;
    readonly body: ChatBody;
    readonly headers: IncomingMessage["headers"];
  }[] = [];
  #script: Script;

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

  /** What it does from now on. */
  script(script: Script): void {
    this.#script = script;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const script = this.#script;
    if (request.method === "GET")
      return sendJson(response, 200, { object: "list", data: [{ id: "mock", object: "model" }] });
    const body = JSON.parse(await textOf(request)) as ChatBody;
    this.requests.push({ path: request.url ?? "", body, headers: request.headers });
    if (this.requests.length > MAX_REMEMBERED) this.requests.shift();
    const { counters } = this;
    counters.calls++;
    counters.inFlight++;
    counters.maxInFlight = Math.max(counters.maxInFlight, counters.inFlight);
    response.once("close", () => {
      counters.inFlight--;
      if (!response.writableFinished) counters.aborted++;
    });
    if (script.hang) return;
    if (script.firstByteMs) await pause(script.firstByteMs);
    if (script.status) return sendRaw(response, script.status, script.errorBody ?? "{}", script.headers);
    if (script.rawBody !== undefined) return sendRaw(response, 200, script.rawBody, script.headers);
    if (request.url?.endsWith("/embeddings")) return this.#embed(response, body);
    return body.stream ? this.#stream(response, body, script) : this.#whole(response, body, script);
  }

  #embed(response: ServerResponse, { input = [] }: ChatBody): void {
    const texts = typeof input === "string" ? [input] : input;
    const data = texts.map((text, index) => ({ object: "embedding", index, embedding: [text.length, 1, 0.5] }));
    const tokens = texts.reduce((sum, text) => sum + wordsOf(text).length, 0);
    this.counters.promptTokens += tokens;
    sendJson(response, 200, { object: "list", data, usage: { prompt_tokens: tokens, total_tokens: tokens } });
  }

  async #whole(response: ServerResponse, body: ChatBody, script: Script): Promise<void> {
    const words = tokensFor(body, script);
    if (script.tokenMs) await pause(script.tokenMs * words.length);
    const choices = Array.from({ length: body.n ?? 1 }, (_, index) => ({
      index,
      message: {
        role: "assistant",
        content: words.join(""),
        ...(script.toolCalls ? { tool_calls: toolCalls(script) } : {}),
      },
      finish_reason: finishOf(body, script, words.length),
    }));
    sendJson(response, 200, {
      id: "mock",
      object: "chat.completion",
      choices,
      ...this.#usage(body, script, words.length),
    });
  }

  async #stream(response: ServerResponse, body: ChatBody, script: Script): Promise<void> {
    response.writeHead(200, { "content-type": "text/event-stream" });
    const write = async (data: unknown) => {
      const bytes = Buffer.from(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
      const size = script.splitBytes ?? bytes.length;
      for (let at = 0; at < bytes.length; at += size) {
        response.write(bytes.subarray(at, at + size));
        if (script.splitBytes) await pause(0);
      }
    };
    const chunk = (delta: unknown, finish_reason: string | null = null) => ({
      id: "mock",
      choices: [{ index: 0, delta, finish_reason }],
    });
    const words = tokensFor(body, script);
    for (const [index, word] of words.entries()) {
      if (script.tokenMs) await pause(script.tokenMs);
      if (response.destroyed) return;
      if (script.hangAfter === index) return;
      if (script.cutAfter === index) return void response.destroy();
      this.counters.completionTokens++;
      await write(chunk({ role: "assistant", content: word }));
    }
    for (const [index, call] of (script.toolCalls ? toolCalls(script) : []).entries())
      await write(chunk({ tool_calls: [{ index, ...call }] }));
    await write(chunk({}, finishOf(body, script, words.length)));
    if (body.stream_options?.include_usage)
      await write({ id: "mock", choices: [], ...this.#usage(body, script, words.length, false) });
    if (!script.withoutDone) await write("[DONE]");
    response.end();
  }

  #usage(body: ChatBody, script: Script, tokens: number, counts = true): { usage?: unknown } {
    const prompt = wordsOf(JSON.stringify(body.messages ?? [])).length;
    this.counters.promptTokens += prompt;
    if (counts) this.counters.completionTokens += tokens * (body.n ?? 1);
    if (script.usage === null) return {};
    const completion = tokens * (body.n ?? 1);
    return {
      usage: script.usage ?? {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
      },
    };
  }
}

const NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

function tokensFor(body: ChatBody, script: Script): string[] {
  if (script.toolCalls) return [];
  const words = script.echo
    ? wordsOf(JSON.stringify(body.messages))
    : script.text !== undefined
      ? wordsOf(script.text)
      : Array.from({ length: script.tokens ?? 5 }, (_, index) => `${index === 0 ? "" : " "}${NUMBERS[index % 10]}`);
  return script.ignoreCap ? words : words.slice(0, body.max_tokens ?? words.length);
}

const wordsOf = (text: string) => text.match(/\s*\S+|\s+$/g) ?? [];
const toolCalls = ({ toolCalls: calls = [] }: Script) =>
  calls.map((call, index) => ({ id: `call_${index}`, type: "function", function: call }));

function finishOf(body: ChatBody, script: Script, tokens: number): string {
  if (script.toolCalls) return "tool_calls";
  return body.max_tokens !== undefined && tokens >= body.max_tokens ? "length" : "stop";
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  sendRaw(response, status, JSON.stringify(body));
}

function sendRaw(
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
