import { z } from "zod";
import { assertKeepable, deleteArtifact, keep, mayKeep, retrieveArtifact } from "../artifacts/artifacts";
import { ApiError } from "../errors";
import type { ModelCall, Output } from "../pipeline/model-call";
import { newId } from "../tenancy/ids";
import { toApiError } from "./errors";
import { commentFrame, eventFrame, eventStream } from "./event-stream";
import type { AppContext, Handler } from "./handler";
import { partsQuery, partsToWire } from "./lists";
import { callHeaders, type ModelEndpoint } from "./model-call";
import { parseQuery } from "./parse";
import {
  earlierItems,
  inputItemId,
  inputOf,
  outputItemId,
  resolveReferences,
  responseOf,
  type StoredInput,
} from "./response-context";
import { storedItems } from "./response-items";
import { type ResponseEvent, ResponseOutput } from "./response-output";
import { type ResponseHead, type ResponseState, responseToWire, UNDER_WAY, type WireResponse } from "./response-reply";
import { type ParsedResponse, parseResponse, requestOf } from "./response-request";

export const responses: ModelEndpoint<ParsedResponse> = {
  parse: parseResponse,
  prepare,
  paramNames: {
    messages: "input",
    response_format: "text.format",
    reasoning_effort: "reasoning.effort",
    logprobs: "include",
  },
  reply,
};

/** Adds what was said before, and decides whether the response is stored. */
async function prepare(c: AppContext, parsed: ParsedResponse): Promise<ParsedResponse> {
  const { services, tenant, policy } = c.var;
  const { asked } = parsed;
  const store = parsed.store && mayKeep(policy);
  const items = Array.isArray(asked.input) ? await resolveReferences(services, tenant, asked.input) : parsed.items;
  if (store) assertKeepable(items, "input");
  if (!parsed.needsMore) return { ...parsed, store };
  const earlier =
    asked.previous_response_id == null
      ? { items: [], rootId: null }
      : await earlierItems(services, tenant, asked.previous_response_id);
  const request = requestOf(asked, [...earlier.items, ...items]);
  return { ...parsed, items, request, store, rootId: earlier.rootId };
}

async function reply(c: AppContext, call: ModelCall, parsed: ParsedResponse): Promise<Response> {
  const head: ResponseHead = {
    id: newId("response"),
    createdAt: Math.floor(Date.now() / 1000),
    model: call.model.name,
    serviceTier: parsed.request.serviceTier,
    store: parsed.store,
  };
  const output = call.output[Symbol.asyncIterator]();
  // A failure before the first token is an ordinary error reply.
  const first = await output.next();
  const events = made(c, call, parsed, head, first, output);
  if (parsed.request.stream)
    return eventStream(frames(c, call, parsed, head, events), () => call.stop("client"), callHeaders(call));
  for (;;) {
    const { done, value } = await events.next();
    if (done) return c.json(value, 200, callHeaders(call));
  }
}

/** The events of a response in the making. @returns the whole of it, stored where it is to be */
async function* made(
  c: AppContext,
  call: ModelCall,
  parsed: ParsedResponse,
  head: ResponseHead,
  first: IteratorResult<Output>,
  rest: AsyncIterator<Output>,
): AsyncGenerator<ResponseEvent, WireResponse> {
  const output = new ResponseOutput((type, index) => outputItemId(head.id, type === "message" ? "msg" : "fc", index));
  try {
    const response = responseToWire(head, parsed, UNDER_WAY);
    yield { type: "response.created", response };
    yield { type: "response.in_progress", response };
    for (let next = first; !next.done; next = await rest.next()) yield* output.push(next.value);
    yield* output.end();
    const whole = responseToWire(head, parsed, ended(call, output));
    if (parsed.store) await store(c, parsed, head, whole);
    yield { type: `response.${whole.status}`, response: whole };
    return whole;
  } finally {
    await rest.return?.();
  }
}

async function* frames(
  c: AppContext,
  call: ModelCall,
  parsed: ParsedResponse,
  head: ResponseHead,
  events: AsyncIterable<ResponseEvent>,
): AsyncGenerator<string> {
  let number = 0;
  const frame = (event: ResponseEvent) => eventFrame({ ...event, sequence_number: number++ });
  try {
    for await (const event of events) {
      if (event.type === "response.completed" && call.receipt !== null) yield commentFrame(`x-audit ${call.receipt}`);
      yield frame(event);
    }
  } catch (error) {
    c.var.ending.failed = true;
    const { code, message } = toApiError(error, call.id);
    const shown = { code: code === "model_overloaded" ? "rate_limit_exceeded" : "server_error", message };
    const state: ResponseState = { ...UNDER_WAY, status: "failed", error: shown };
    yield frame({ type: "response.failed", response: responseToWire(head, parsed, state) });
  }
}

function ended(call: ModelCall, output: ResponseOutput): ResponseState {
  const cut = output.finish === "length" || output.finish === "content_filter";
  return {
    status: cut ? "incomplete" : "completed",
    output: output.items,
    usage: call.usage,
    completedAt: cut ? null : Math.floor(Date.now() / 1000),
    error: null,
    incompleteReason: cut ? (output.finish === "length" ? "max_output_tokens" : "content_filter") : null,
  };
}

async function store(c: AppContext, parsed: ParsedResponse, head: ResponseHead, whole: WireResponse): Promise<void> {
  const { id, model } = head;
  const input: StoredInput = { items: storedItems(parsed.items, (index) => inputItemId(id, index)) };
  await keep(c.var.services, c.var.tenant, {
    ...{ id, kind: "response", model, metadata: whole.metadata, input, output: whole },
    ...{ rootId: parsed.rootId ?? id, createdAtMs: Date.now() },
  });
}

const RetrieveQuery = z.strictObject({
  include: z.array(z.string().max(64)).max(16).optional(),
  stream: z.stringbool().optional(),
  starting_after: z.coerce.number().int().min(0).optional(),
  include_obfuscation: z.stringbool().optional(),
});
const ItemsQuery = partsQuery("desc").extend({ include: z.array(z.string().max(64)).max(16).optional() });

const responseId = (c: AppContext): string => c.req.param("response_id") ?? "";
const rowOf = (c: AppContext) => retrieveArtifact(c.var.services, c.var.tenant, "response", responseId(c));

export const getResponse: Handler = async (c) => {
  const { stream } = parseQuery(RetrieveQuery, c.req.url);
  if (stream) {
    const message = "'stream' is not supported: a stored response is given whole.";
    throw new ApiError("unsupported_parameter", message, { param: "stream" });
  }
  return c.json(responseOf(await rowOf(c)));
};

export const deleteResponse: Handler = async (c) => {
  const id = responseId(c);
  await deleteArtifact(c.var.services, c.var.tenant, "response", id);
  return c.json({ id, object: "response" as const, deleted: true });
};

export const cancelResponse: Handler = async (c) => {
  const { status } = responseOf(await rowOf(c));
  throw new ApiError(
    "conflict",
    `Only a response that is made in the background can be cancelled; this one is ${status}.`,
  );
};

export const getInputItems: Handler = async (c) => {
  const asked = parseQuery(ItemsQuery, c.req.url);
  return c.json(partsToWire(inputOf(await rowOf(c)).items, asked));
};
