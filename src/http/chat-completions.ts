import { assertKeepable, mayKeep } from "../artifacts/artifacts";
import type { ModelCall, Output } from "../pipeline/model-call";
import { newId } from "../tenancy/ids";
import { ChatChoices, type ChatReplyHead, choiceToChunk, completionToWire, usageToWire } from "./chat-reply";
import { type ParsedChat, parseChat } from "./chat-request";
import { errorBody, toApiError } from "./errors";
import { commentFrame, dataFrame, eventStream, firstOrSoon } from "./event-stream";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint } from "./model-call";
import { storeCompletion } from "./stored-completions";

export const chatCompletions: ModelEndpoint<ParsedChat> = { parse: parseChat, prepare, reply };

/** What is to be stored must fit, and the project must keep data at all. */
async function prepare(c: AppContext, parsed: ParsedChat): Promise<ParsedChat> {
  if (!parsed.stored) return parsed;
  if (!mayKeep(c.var.policy)) return { ...parsed, stored: null };
  await assertKeepable(c.var, parsed.stored, "messages");
  return parsed;
}

async function reply(c: AppContext, call: ModelCall, parsed: ParsedChat): Promise<Response> {
  const { request } = parsed;
  const head: ChatReplyHead = {
    id: newId("chatCompletion"),
    created: Math.floor(Date.now() / 1000),
    model: call.model.name,
    service_tier: request.serviceTier,
  };
  if (!request.stream) {
    const choices = new ChatChoices(request.choices);
    for await (const delta of call.output) choices.push(delta);
    const completion = completionToWire(head, choices, call.told);
    if (parsed.stored) await storeCompletion(c.var, completion, parsed.stored);
    return c.json(completion, 200, callHeaders(call));
  }
  const output = call.output[Symbol.asyncIterator]();
  const first = output.next();
  await firstOrSoon(first);
  const frames = chunkFrames(c, call, head, parsed, first, output);
  return eventStream(frames, () => call.stop("client"), callHeaders(call));
}

async function* chunkFrames(
  c: AppContext,
  call: ModelCall,
  head: ChatReplyHead,
  { request, includeUsage, stored }: ParsedChat,
  first: Promise<IteratorResult<Output>>,
  rest: AsyncIterator<Output>,
): AsyncGenerator<string> {
  // Clients that ask for usage find the field in every chunk, null until the last.
  const base = { ...head, object: "chat.completion.chunk", ...(includeUsage ? { usage: null } : {}) };
  const begun = new Set<number>();
  const choices = new ChatChoices(request.choices);
  try {
    for (let next = await first; !next.done; next = await rest.next()) {
      const delta = next.value;
      if (stored) choices.push(delta);
      const index = "choice" in delta ? delta.choice : -1;
      const choice = choiceToChunk(delta, !begun.has(index));
      begun.add(index);
      if (choice) yield dataFrame({ ...base, choices: [choice] });
    }
    if (stored) await storeCompletion(c.var, completionToWire(head, choices, call.told), stored);
    if (includeUsage) yield dataFrame({ ...base, choices: [], usage: usageToWire(call.told) });
    if (call.receipt !== null) yield commentFrame(`x-audit ${call.receipt}`);
    yield dataFrame("[DONE]");
  } catch (error) {
    c.var.ending.failed = true;
    yield dataFrame(errorBody(toApiError(error, call.id))); // and no [DONE]
  } finally {
    await rest.return?.();
  }
}
