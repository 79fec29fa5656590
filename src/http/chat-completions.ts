import type { ModelCall, Output } from "../pipeline/model-call";
import { newId } from "../tenancy/ids";
import { type ChatReplyHead, choiceToChunk, collectChoices, usageToWire } from "./chat-reply";
import { type ParsedChat, parseChat } from "./chat-request";
import { errorBody, toApiError } from "./errors";
import { commentFrame, dataFrame, eventStream } from "./event-stream";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint } from "./model-call";

export const chatCompletions: ModelEndpoint<ParsedChat> = { parse: parseChat, reply };

async function reply(c: AppContext, call: ModelCall, { request, includeUsage }: ParsedChat): Promise<Response> {
  const head: ChatReplyHead = {
    id: newId("chatCompletion"),
    created: Math.floor(Date.now() / 1000),
    model: call.model.name,
    service_tier: request.serviceTier,
  };
  if (!request.stream) {
    const choices = await collectChoices(call.output, request.choices);
    const body = { ...head, object: "chat.completion", choices, usage: usageToWire(call.usage) };
    return c.json(body, 200, callHeaders(call));
  }
  const output = call.output[Symbol.asyncIterator]();
  // A failure before the first token is an ordinary error reply.
  const first = await output.next();
  const frames = chunkFrames(call, head, includeUsage, first, output);
  return eventStream(frames, () => call.stop("client"), callHeaders(call));
}

async function* chunkFrames(
  call: ModelCall,
  head: ChatReplyHead,
  includeUsage: boolean,
  first: IteratorResult<Output>,
  rest: AsyncIterator<Output>,
): AsyncGenerator<string> {
  // Clients that ask for usage find the field in every chunk, null until the last.
  const base = { ...head, object: "chat.completion.chunk", ...(includeUsage ? { usage: null } : {}) };
  const begun = new Set<number>();
  try {
    for (let next = first; !next.done; next = await rest.next()) {
      const delta = next.value;
      const index = "choice" in delta ? delta.choice : -1;
      const choice = choiceToChunk(delta, !begun.has(index));
      begun.add(index);
      if (choice) yield dataFrame({ ...base, choices: [choice] });
    }
    if (includeUsage) yield dataFrame({ ...base, choices: [], usage: usageToWire(call.usage) });
    if (call.receipt !== null) yield commentFrame(`x-audit ${call.receipt}`);
    yield dataFrame("[DONE]");
  } catch (error) {
    yield dataFrame(errorBody(toApiError(error, call.id))); // and no [DONE]
  } finally {
    await rest.return?.();
  }
}
