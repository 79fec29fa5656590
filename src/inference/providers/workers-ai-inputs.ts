import type { ChatCall, FunctionTool } from "../provider";
import { parametersOf, plainMessages, withoutUndefined } from "./chat-inputs";

/** Workers AI refuses seeds outside 1 to this. */
const MAX_SEED = 9_999_999_999;
/** Coprime to {@link MAX_SEED}, so that the seeds of a call's choices are distinct. */
const SEED_STRIDE = 2_654_435_761;
const MIN_TOP_P = 0.001;

/** Models that take a JSON schema as it is; the others want OpenAI's envelope of name and schema round it. */
const TAKES_BARE_SCHEMA = /^@cf\/meta\/|^@hf\//;

/**
 * What `env.AI.run` is given for one choice of a call.
 * @throws ProviderError `bad_input` for what the model cannot take
 */
export function workersAiInputs(call: ChatCall, choice: number): Record<string, unknown> {
  const tools = call.toolChoice === "none" ? undefined : call.tools?.map(toolForWorkersAi);
  return withoutUndefined({
    ...parametersOf(call),
    messages: messagesForWorkersAi(call),
    top_p: call.topP === undefined ? undefined : Math.max(call.topP, MIN_TOP_P),
    seed: call.seed === undefined ? undefined : seedOf(call.seed, (call.firstChoice ?? 0) + choice),
    stream: streams(call) ? true : undefined,
    response_format: responseFormat(call),
    ...reasoning(call.reasoningEffort),
    ...(tools && tools.length > 0 ? { tools, tool_choice: call.toolChoice } : {}),
  });
}

/** JSON mode does not stream. */
export const streams = ({ stream, responseFormat }: ChatCall): boolean =>
  stream && (responseFormat === undefined || responseFormat.type === "text");

/** A choice's own seed; the first one's is the caller's wherever Workers AI takes it. */
export function seedOf(seed: number, choice: number): number {
  const folded = (((seed - 1) % MAX_SEED) + MAX_SEED) % MAX_SEED;
  return ((folded + choice * SEED_STRIDE) % MAX_SEED) + 1;
}

/** Classic models require a content, and know the result of a tool by the tool's name. */
function messagesForWorkersAi(call: ChatCall) {
  const names = new Map(
    call.messages.flatMap((message) => message.tool_calls ?? []).map(({ id, function: { name } }) => [id, name]),
  );
  return plainMessages(call).map((message) => {
    const name = message.name ?? names.get(message.tool_call_id ?? "");
    return { ...message, content: message.content ?? "", ...(name === undefined ? {} : { name }) };
  });
}

/** Classic models require both a description and parameters. */
function toolForWorkersAi({ function: { name, description, parameters, strict } }: FunctionTool) {
  return {
    type: "function",
    function: {
      name,
      description: description ?? name,
      parameters: parameters ?? { type: "object", properties: {} },
      ...(strict === true ? { strict } : {}),
    },
  };
}

function responseFormat({ model, responseFormat: format }: ChatCall) {
  if (format?.type !== "json_schema") return format?.type === "json_object" ? format : undefined;
  if (!TAKES_BARE_SCHEMA.test(model.providerModel)) return format;
  return { type: "json_schema", json_schema: format.json_schema.schema ?? { type: "object" } };
}

/** Workers AI knows three levels, and for some models a switch. */
function reasoning(effort: string | undefined): Record<string, unknown> {
  switch (effort) {
    case undefined:
      return {};
    case "none":
      return { chat_template_kwargs: { enable_thinking: false } };
    case "minimal":
      return { reasoning_effort: "low" };
    case "xhigh":
      return { reasoning_effort: "high" };
    default:
      return { reasoning_effort: effort };
  }
}
