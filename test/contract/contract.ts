import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";

interface Operation {
  readonly responses: Readonly<Record<string, { content?: Readonly<Record<string, unknown>> }>>;
}
interface Spec {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

const spec = JSON.parse(readFileSync(join(import.meta.dirname, "openapi-subset.json"), "utf8")) as Spec;
const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema({ $id: "spec", ...(spelledFor2020(spec) as object) });

/** The description still writes `nullable` beside references, an OpenAPI 3.0 spelling that JSON Schema has no word for. */
function spelledFor2020(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(spelledFor2020);
  if (typeof schema !== "object" || schema === null) return schema;
  const entries = Object.entries(schema).map(([key, value]) => [key, spelledFor2020(value)] as const);
  const { nullable, ...rest } = Object.fromEntries(entries) as { nullable?: unknown };
  return nullable === true ? { anyOf: [rest, { type: "null" }] } : rest;
}

const pointer = (path: string) => path.replaceAll("~", "~0").replaceAll("/", "~1");
const compiled = new Map<string, ValidateFunction>();
function validator(ref: string): ValidateFunction {
  const known = compiled.get(ref) ?? ajv.compile({ $ref: ref });
  compiled.set(ref, known);
  return known;
}

const TEMPLATES = Object.keys(spec.paths).map((path) => ({
  path,
  pattern: new RegExp(`^${path.replace(/\{[^}]+\}/g, "[^/]+")}$`),
  isExact: !path.includes("{"),
}));

/** The contract's path that a request's path is an instance of; paths of our own have none. */
export function templateOf(pathname: string): string | undefined {
  const path = pathname.replace(/^\/v1/, "");
  const matching = TEMPLATES.filter(({ pattern }) => pattern.test(path));
  return (matching.find(({ isExact }) => isExact) ?? matching[0])?.path;
}

function assertValid(validate: ValidateFunction, body: unknown, what: string): void {
  if (validate(body)) return;
  throw new Error(
    `${what} breaks the contract: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(body).slice(0, 1_000)}`,
  );
}

/** Checks a reply against the contract: errors against its error shape, others against its path's schema. */
export function assertReply(method: string, pathname: string, status: number, body: unknown): void {
  const what = `${method} ${pathname} ${status}`;
  if (status >= 400) {
    assertValid(validator("spec#/components/schemas/ErrorResponse"), body, what);
    return;
  }
  const path = templateOf(pathname);
  const described = path && spec.paths[path]?.[method.toLowerCase()]?.responses[200]?.content;
  if (!described) return;
  const ref = `spec#/paths/${pointer(path)}/${method.toLowerCase()}/responses/200/content/application~1json/schema`;
  assertValid(validator(ref), path.endsWith("/messages") ? withRoles(body) : body, what);
}

/** The contract describes stored messages as if all were the assistant's; what callers said keeps its role all the same. */
function withRoles(body: unknown): unknown {
  const { data, ...list } = body as { readonly data: readonly { readonly role: string }[] };
  return { ...list, data: data.map((message) => ({ ...message, role: "assistant" })) };
}

/** Checks one chunk of a chat stream. */
export function assertChatChunk(chunk: unknown): void {
  assertValid(validator("spec#/components/schemas/CreateChatCompletionStreamResponse"), chunk, "a chat chunk");
}

/** Checks one event of a response's stream. */
export function assertResponseEvent(event: unknown): void {
  assertValid(validator("spec#/components/schemas/ResponseStreamEvent"), event, "an event of a response");
}

/** A fetch that lets no reply through that breaks the contract, streams chunk by chunk included. */
export function checked(send: typeof fetch): typeof fetch {
  return async (input, init) => {
    const response = await send(input, init);
    const { pathname } = new URL(response.url);
    const method = init?.method ?? "GET";
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream") && response.body) {
      const [shown, seen] = response.body.tee();
      void checkStream(seen, pathname).catch(() => {});
      return new Response(shown, response);
    }
    const body: unknown = type.startsWith("application/json") ? await response.clone().json() : undefined;
    // Embeddings in base64 are the clients' own wish, outside of the schema's letter.
    const isBase64 = typeof init?.body === "string" && init.body.includes('"encoding_format":"base64"');
    // The contract calls a file's bytes a text in JSON.
    const isContent = pathname.endsWith("/content") && body === undefined;
    if (!((isBase64 || isContent) && response.ok)) assertReply(method, pathname, response.status, body);
    return response;
  };
}

/** Findings in streams, which have no caller to throw at; a test asserts that there are none. */
export const streamFindings: string[] = [];

async function checkStream(stream: ReadableStream<Uint8Array>, pathname: string): Promise<void> {
  const text = await new Response(stream).text();
  const assertEvent = pathname.endsWith("/responses") ? assertResponseEvent : assertChatChunk;
  for (const line of text.split("\n")) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    try {
      const chunk = JSON.parse(line.slice("data: ".length)) as { error?: unknown };
      if (chunk.error) assertReply("POST", "/v1/chat/completions", 500, chunk);
      else assertEvent(chunk);
    } catch (error) {
      streamFindings.push(String(error));
    }
  }
}
