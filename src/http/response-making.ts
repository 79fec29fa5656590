import { type ArtifactOwner, assertKeepable, keep, mayKeep } from "../artifacts/artifacts";
import type { PolicySnapshot } from "../core/policy";
import type { ModelCall, Output } from "../pipeline/model-call";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { earlierItems, inputItemId, outputItemId, resolveReferences, type StoredInput } from "./response-context";
import { storedItems } from "./response-items";
import { type ResponseEvent, ResponseOutput } from "./response-output";
import { type ResponseHead, type ResponseState, responseToWire, UNDER_WAY, type WireResponse } from "./response-reply";
import { type ParsedResponse, requestOf } from "./response-request";

/** Whose response it is, and where it may be stored. */
export interface ResponseOwner {
  readonly services: TenancyPorts;
  readonly tenant: TenantContext;
}

/** Adds what was said before, and decides whether the response is stored. */
export async function prepareResponse(
  { services, tenant }: ResponseOwner,
  policy: PolicySnapshot,
  parsed: ParsedResponse,
): Promise<ParsedResponse> {
  const { asked } = parsed;
  const store = parsed.store && mayKeep(policy);
  const items = Array.isArray(asked.input) ? await resolveReferences(services, tenant, asked.input) : parsed.items;
  if (store) await assertKeepable({ services, tenant, policy }, items, "input");
  if (!parsed.needsMore) return { ...parsed, store };
  const earlier =
    asked.previous_response_id == null
      ? { items: [], rootId: null }
      : await earlierItems(services, tenant, asked.previous_response_id);
  const request = requestOf(asked, [...earlier.items, ...items]);
  return { ...parsed, items, request, store, rootId: earlier.rootId };
}

/** What the ids of items begin with. */
const PREFIXES = { message: "msg", reasoning: "rs", function_call: "fc" } as const;

/** A model's output in the making: the first part of it is there already, or under way. */
export interface Making {
  readonly call: ModelCall;
  readonly parsed: ParsedResponse;
  readonly head: ResponseHead;
  readonly first: IteratorResult<Output> | Promise<IteratorResult<Output>>;
  readonly rest: AsyncIterator<Output>;
}

/**
 * The events of a response in the making. @returns the whole of it
 * @param save stores the whole before its caller learns of the end
 */
export async function* makeResponse(
  { call, parsed, head, first, rest }: Making,
  save: (whole: WireResponse) => Promise<void>,
): AsyncGenerator<ResponseEvent, WireResponse> {
  const output = new ResponseOutput((type, index) => outputItemId(head.id, PREFIXES[type], index));
  try {
    const response = responseToWire(head, parsed, UNDER_WAY);
    yield { type: "response.created", response };
    yield { type: "response.in_progress", response };
    for (let next = await first; !next.done; next = await rest.next()) yield* output.push(next.value);
    yield* output.end();
    const whole = responseToWire(head, parsed, ended(call, output));
    await save(whole);
    yield { type: `response.${whole.status}`, response: whole };
    return whole;
  } finally {
    await rest.return?.();
  }
}

function ended(call: ModelCall, output: ResponseOutput): ResponseState {
  const cut = output.finish === "length" || output.finish === "content_filter";
  return {
    status: cut ? "incomplete" : "completed",
    output: output.items,
    usage: call.told,
    completedAt: cut ? null : Math.floor(Date.now() / 1000),
    error: null,
    incompleteReason: cut ? (output.finish === "length" ? "max_output_tokens" : "content_filter") : null,
  };
}

/** Stores a response with what went in. */
export async function storeResponse(
  { services, tenant, policy }: ArtifactOwner,
  parsed: ParsedResponse,
  whole: WireResponse,
): Promise<void> {
  const { id, model, metadata } = whole;
  const input: StoredInput = { items: storedItems(parsed.items, (index) => inputItemId(id, index)) };
  await keep(
    { services, tenant, policy },
    {
      ...{ id, kind: "response", model, metadata, input, output: whole },
      ...{ rootId: parsed.rootId ?? id, createdAtMs: Date.now(), isUnfinished: whole.status === "queued" },
    },
  );
}
