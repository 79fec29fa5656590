import { z } from "zod";
import { deleteArtifact, retrieveArtifact } from "../artifacts/artifacts";
import { ApiError } from "../errors";
import type { ModelCall } from "../pipeline/model-call";
import { cancelRun } from "../tenancy/background";
import { newId } from "../tenancy/ids";
import { toApiError } from "./errors";
import { commentFrame, eventFrame, eventStream, firstOrSoon } from "./event-stream";
import type { AppContext, Handler } from "./handler";
import { partsQuery, partsToWire } from "./lists";
import { callHeaders, type ModelEndpoint } from "./model-call";
import { parseQuery } from "./parse";
import { acceptInBackground } from "./response-background";
import { inputOf, responseOf } from "./response-context";
import { makeResponse, prepareResponse, storeResponse } from "./response-making";
import type { ResponseEvent } from "./response-output";
import { type ResponseHead, type ResponseState, responseToWire, UNDER_WAY, type WireResponse } from "./response-reply";
import { type ParsedResponse, parseResponse } from "./response-request";

export const responses: ModelEndpoint<ParsedResponse> = {
  parse: parseResponse,
  prepare: (c, parsed) => prepareResponse(c.var, c.var.policy, parsed),
  instead: (c, parsed) => (parsed.asked.background ? acceptInBackground(c, parsed) : undefined),
  paramNames: {
    messages: "input",
    response_format: "text.format",
    reasoning_effort: "reasoning.effort",
    logprobs: "include",
  },
  reply,
};

async function reply(c: AppContext, call: ModelCall, parsed: ParsedResponse): Promise<Response> {
  const head: ResponseHead = {
    id: newId("response"),
    createdAt: Math.floor(Date.now() / 1000),
    model: call.model.name,
    serviceTier: parsed.request.serviceTier,
    store: parsed.store,
  };
  const output = call.output[Symbol.asyncIterator]();
  const first = output.next();
  if (parsed.request.stream) await firstOrSoon(first);
  const save = async (whole: WireResponse) => {
    if (parsed.store) await storeResponse(c.var, parsed, whole);
  };
  const events = makeResponse({ call, parsed, head, first, rest: output }, save);
  if (parsed.request.stream)
    return eventStream(frames(c, call, parsed, head, events), () => call.stop("client"), callHeaders(call));
  for (;;) {
    const { done, value } = await events.next();
    if (done) return c.json(value, 200, callHeaders(call));
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
  const { status } = responseOf(await rowOf(c));
  if (status === "queued" || status === "in_progress") await cancelRun(c.var.services.background, c.var.tenant, id);
  await deleteArtifact(c.var.services, c.var.tenant, "response", id);
  return c.json({ id, object: "response" as const, deleted: true });
};

export const cancelResponse: Handler = async (c) => {
  const { services, tenant } = c.var;
  const { background, status } = responseOf(await rowOf(c));
  if (!background) throw new ApiError("conflict", "Only a response that is made in the background can be cancelled.");
  if (status === "queued" || status === "in_progress") await cancelRun(services.background, tenant, responseId(c));
  return c.json(responseOf(await rowOf(c)));
};

export const getInputItems: Handler = async (c) => {
  const asked = parseQuery(ItemsQuery, c.req.url);
  return c.json(partsToWire(inputOf(await rowOf(c)).items, asked));
};
