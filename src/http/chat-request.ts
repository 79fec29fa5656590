import { z } from "zod";
import { ApiError } from "../errors";
import type { ChatMessage } from "../inference/provider";
import type { ChatRequest } from "../pipeline/model-request";
import { list, map } from "./bounded";
import { MAX_BIASES, MAX_CALLS, MAX_CHOICES, MAX_ITEMS, MAX_PARTS, MAX_STOPS, MAX_TOOLS, MAX_UNREAD } from "./bounds";
import { Metadata } from "./metadata";
import { parse } from "./parse";
import { assertReplySchema, assertStrict } from "./strict-schema";

const Text = z.strictObject({
  type: z.literal("text"),
  text: z.string(),
  prompt_cache_breakpoint: z.unknown().optional(),
});
const Image = z.strictObject({
  type: z.literal("image_url"),
  image_url: z.strictObject({ url: z.string(), detail: z.enum(["auto", "low", "high"]).optional() }),
  prompt_cache_breakpoint: z.unknown().optional(),
});
const Refusal = z.strictObject({ type: z.literal("refusal"), refusal: z.string() });
const TextContent = z.union([z.string(), list(Text, { min: 1, max: MAX_PARTS })]);
const Name = z
  .string()
  .min(1)
  .max(64)
  .regex(/^[^\s<|\\/>]+$/, "letters, digits, dash and underscore are accepted");

export const FunctionName = z
  .string()
  .regex(/^[a-zA-Z0-9_-]{1,64}$/, "1 to 64 letters, digits, dashes and underscores are accepted");
const ToolCall = z.strictObject({
  id: z.string(),
  type: z.literal("function"),
  function: z.strictObject({ name: FunctionName, arguments: z.string() }),
});
const Message = z.discriminatedUnion("role", [
  z.strictObject({ role: z.literal("system"), content: TextContent, name: Name.optional() }),
  z.strictObject({ role: z.literal("developer"), content: TextContent, name: Name.optional() }),
  z.strictObject({
    role: z.literal("user"),
    content: z.union([z.string(), list(z.discriminatedUnion("type", [Text, Image]), { min: 1, max: MAX_PARTS })]),
    name: Name.optional(),
  }),
  z.strictObject({
    role: z.literal("assistant"),
    content: z
      .union([z.string(), list(z.discriminatedUnion("type", [Text, Refusal]), { min: 1, max: MAX_PARTS })])
      .nullish(),
    refusal: z.string().nullish(),
    // What the model thought, as replies give it; under either of its names, as clients of other servers send it.
    reasoning_content: z.string().nullish(),
    reasoning: z.string().nullish(),
    name: Name.optional(),
    tool_calls: list(ToolCall, { max: MAX_CALLS }).optional(),
    audio: z.null().optional(),
    function_call: z.null().optional(),
    annotations: list(z.unknown(), { max: MAX_UNREAD }).optional(),
  }),
  z.strictObject({ role: z.literal("tool"), content: TextContent, tool_call_id: z.string() }),
]);

export const JsonSchema = z.record(z.string(), z.unknown());
const FunctionTool = z.strictObject({
  type: z.literal("function"),
  function: z.strictObject({
    name: FunctionName,
    description: z.string().optional(),
    parameters: JsonSchema.optional(),
    strict: z.boolean().nullish(),
  }),
});
const ToolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: z.string() }) }),
]);
const ResponseFormat = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: FunctionName,
      description: z.string().optional(),
      schema: JsonSchema.optional(),
      strict: z.boolean().nullish(),
    }),
  }),
]);

const penalty = z.number().min(-2).max(2).nullish();
const cap = z.int().min(1).max(1_000_000).nullish();
/** Known to the contract and refused by name; the value does not matter, so it is not looked at. */
const refused = z.unknown().optional();

const ChatBody = z.strictObject({
  model: z.string().min(1).max(256),
  messages: list(Message, { min: 1, max: MAX_ITEMS }),
  frequency_penalty: penalty,
  presence_penalty: penalty,
  logit_bias: map(z.string().regex(/^\d{1,16}$/), z.number().min(-100).max(100), { max: MAX_BIASES }).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  max_completion_tokens: cap,
  max_tokens: cap,
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  response_format: ResponseFormat.optional(),
  seed: z.int().nullish(),
  service_tier: z.enum(["auto", "default", "flex", "priority"]).nullish(),
  stop: z.union([z.string().min(1), list(z.string().min(1), { max: MAX_STOPS })]).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.boolean().optional() })
    .nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  tools: list(FunctionTool, { max: MAX_TOOLS }).optional(),
  tool_choice: ToolChoice.optional(),
  parallel_tool_calls: z.boolean().optional(),
  reasoning_effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh"]).nullish(),
  // Documented extras of many open models.
  top_k: z.int().min(1).max(10_000).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
  // Accepted and without effect on the reply: labels of what is stored, and hints of caching.
  metadata: Metadata.nullish(),
  user: z.string().max(512).optional(),
  safety_identifier: z.string().max(64).nullish(),
  prompt_cache_key: z.string().max(512).nullish(),
  prompt_cache_retention: z.enum(["in_memory", "24h"]).nullish(),
  modalities: list(z.enum(["text", "audio"]), { max: 2 }).nullish(),
  store: z.boolean().nullish(),
  verbosity: z.enum(["low", "medium", "high"]).nullish(),
  audio: refused,
  function_call: refused,
  functions: refused,
  moderation: refused,
  prediction: refused,
  prompt_cache_options: refused,
  web_search_options: refused,
});
type ChatBody = z.output<typeof ChatBody>;

/** A validated chat request, and what only its reply needs. */
export interface ParsedChat {
  readonly request: ChatRequest;
  readonly includeUsage: boolean;
  /** What is kept beside the completion, where the caller asked for it. */
  readonly stored: StoredRequest | null;
}

/** A stored request: its messages as they were written, and its settings. */
export interface StoredRequest {
  readonly messages: ChatBody["messages"];
  readonly metadata: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, unknown>>;
}
/** Of a request what its stored completion repeats. */
const SETTINGS = [
  ...(["temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "max_completion_tokens"] as const),
  ...(["max_tokens", "n", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format"] as const),
  ...(["reasoning_effort", "user"] as const),
];
const storedRequest = (body: ChatBody): StoredRequest => ({
  messages: body.messages,
  metadata: body.metadata ?? {},
  settings: Object.fromEntries(SETTINGS.flatMap((name) => (body[name] == null ? [] : [[name, body[name]]]))),
});

/** @throws ApiError that names the parameter */
export function parseChat(body: unknown): ParsedChat {
  const asked = parse(ChatBody, body);
  refuseUnsupported(asked);
  const { stop, stream, n } = asked;
  const optional = {
    maxOutputTokens: asked.max_completion_tokens ?? asked.max_tokens,
    temperature: asked.temperature,
    topP: asked.top_p,
    topK: asked.top_k,
    seed: asked.seed,
    stop: typeof stop === "string" ? [stop] : stop,
    frequencyPenalty: asked.frequency_penalty,
    presencePenalty: asked.presence_penalty,
    repetitionPenalty: asked.repetition_penalty,
    logitBias: asked.logit_bias,
    logprobs: asked.logprobs,
    topLogprobs: asked.top_logprobs,
    reasoningEffort: asked.reasoning_effort,
    responseFormat: asked.response_format,
    tools: asked.tools,
    toolChoice: asked.tool_choice,
    parallelToolCalls: asked.parallel_tool_calls,
  };
  const given = Object.fromEntries(
    Object.entries(optional).filter(([, value]) => value !== undefined && value !== null),
  );
  const request: ChatRequest = {
    kind: "completions",
    model: asked.model,
    messages: asked.messages.map(messageOf),
    choices: n ?? 1,
    stream: stream ?? false,
    serviceTier: asked.service_tier === "flex" || asked.service_tier === "priority" ? asked.service_tier : "default",
    ...(given as Partial<ChatRequest>),
  };
  const includeUsage = asked.stream_options?.include_usage ?? false;
  return { request, includeUsage, stored: asked.store ? storedRequest(asked) : null };
}

function refuseUnsupported(body: ChatBody): void {
  const unsupported = (param: string, reason: string) =>
    new ApiError("unsupported_parameter", `'${param}' is not supported: ${reason}.`, { param });
  if (body.modalities?.includes("audio") || body.audio != null)
    throw unsupported("audio", "this platform answers in text");
  if (body.functions != null) throw unsupported("functions", "it is deprecated; use 'tools'");
  if (body.function_call != null) throw unsupported("function_call", "it is deprecated; use 'tool_choice'");
  if (body.verbosity != null && body.verbosity !== "medium") throw unsupported("verbosity", "no model here takes it");
  for (const param of ["moderation", "prediction", "prompt_cache_options", "web_search_options"] as const) {
    if (body[param] != null) throw unsupported(param, "this platform does not offer it");
  }
  if (body.top_logprobs != null && !body.logprobs) {
    throw new ApiError("invalid_value", "'top_logprobs' needs 'logprobs' to be true.", { param: "top_logprobs" });
  }
  if (body.stream_options != null && !body.stream) {
    throw new ApiError("invalid_value", "'stream_options' needs 'stream' to be true.", { param: "stream_options" });
  }
  if (body.tool_choice !== undefined && body.tool_choice !== "none" && !body.tools?.length) {
    throw new ApiError("invalid_value", "'tool_choice' needs 'tools'.", { param: "tool_choice" });
  }
  if (body.response_format?.type === "json_schema") {
    const { schema, strict } = body.response_format.json_schema;
    assertReplySchema(schema, strict, "response_format.json_schema.schema");
  }
  for (const [index, { function: tool }] of (body.tools ?? []).entries())
    assertStrict(tool.parameters, tool.strict, `tools[${index}].function.parameters`);
  body.messages.forEach((message, index) => {
    if (message.role === "assistant" && message.content == null && !message.refusal && !message.tool_calls?.length) {
      const param = `messages[${index}].content`;
      throw new ApiError("missing_required_parameter", `Missing required parameter: '${param}'.`, { param });
    }
  });
}

type Message = ChatBody["messages"][number];

const refusalPart = (refusal: string) => ({ type: "refusal" as const, refusal });

function messageOf(message: Message): ChatMessage {
  const { role } = message;
  const content = message.content ?? null;
  const name = "name" in message && message.name !== undefined ? { name: message.name } : {};
  if (role === "tool") return { role, content: message.content, tool_call_id: message.tool_call_id };
  if (role !== "assistant") return { role, content: content as ChatMessage["content"], ...name };
  const calls = message.tool_calls?.length ? { tool_calls: message.tool_calls } : {};
  const thought = message.reasoning_content ?? message.reasoning;
  const reasoning = thought ? { reasoning: thought } : {};
  const said = message.refusal && (content === null || content === "") ? [refusalPart(message.refusal)] : content;
  return { role, content: said as ChatMessage["content"], ...name, ...calls, ...reasoning };
}
