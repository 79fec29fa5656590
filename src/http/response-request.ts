import { z } from "zod";
import { ApiError } from "../errors";
import type { FunctionTool, ResponseFormat, ToolChoice } from "../inference/provider";
import type { ChatRequest } from "../pipeline/model-request";
import { list, typedList } from "./bounded";
import { MAX_TOOLS } from "./bounds";
import { FunctionName, JsonSchema } from "./chat-request";
import { Metadata } from "./metadata";
import type { ParsedCall } from "./model-call";
import { parse } from "./parse";
import { type InputItem, InputItems, isReference, messagesOf, type SaidItem } from "./response-items";
import { assertReplySchema, assertStrict } from "./strict-schema";

const Tool = z.strictObject({
  type: z.literal("function"),
  name: FunctionName,
  description: z.string().nullish(),
  parameters: JsonSchema.nullish(),
  strict: z.boolean().nullish(),
  output_schema: z.null().optional(),
  defer_loading: z.literal(false).optional(),
  allowed_callers: z.null().optional(),
});
const Tools = typedList(MAX_TOOLS, (type, index) => {
  if (type === "function" || typeof type !== "string") return Tool;
  throw unsupportedTool(type, `tools[${index}].type`);
});
const Choice = z.union([
  z.enum(["none", "auto", "required"]),
  z.looseObject({ type: z.string(), name: z.string().optional() }),
]);
const Format = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    name: FunctionName,
    description: z.string().nullish(),
    schema: JsonSchema,
    strict: z.boolean().nullish(),
  }),
]);
/** Known to the contract and refused by name; the value does not matter, so it is not looked at. */
const refused = z.unknown().optional();

const Body = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union([z.string(), InputItems]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().min(1).max(128).nullish(),
  background: z.boolean().nullish(),
  store: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_obfuscation: z.boolean().optional() }).nullish(),
  metadata: Metadata.nullish(),
  service_tier: z.enum(["auto", "default", "flex", "priority"]).nullish(),
  max_output_tokens: z.int().min(16).max(1_000_000).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  text: z.strictObject({ format: Format.nullish(), verbosity: z.enum(["low", "medium", "high"]).nullish() }).nullish(),
  tools: Tools.nullish(),
  tool_choice: Choice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning: z
    .strictObject({
      effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh"]).nullish(),
      summary: z.enum(["auto", "concise", "detailed"]).nullish(),
      generate_summary: z.enum(["auto", "concise", "detailed"]).nullish(),
    })
    .nullish(),
  include: list(z.string().max(64), { max: 16 }).nullish(),
  truncation: z.enum(["auto", "disabled"]).nullish(),
  user: z.string().max(512).nullish(),
  safety_identifier: z.string().max(64).nullish(),
  prompt_cache_key: z.string().max(512).nullish(),
  prompt_cache_retention: z.enum(["in_memory", "24h"]).nullish(),
  // Documented extras of many open models.
  seed: z.int().nullish(),
  top_k: z.int().min(1).max(10_000).nullish(),
  max_tool_calls: refused,
  context_management: refused,
  conversation: refused,
  moderation: refused,
  prompt: refused,
  prompt_cache_options: refused,
});
type Body = z.output<typeof Body>;

/** A validated request for a response, and what its reply repeats. */
export interface ParsedResponse extends ParsedCall {
  readonly request: ChatRequest;
  /** As the caller wrote it. */
  readonly asked: Body;
  /** Items of this turn. */
  readonly items: readonly SaidItem[];
  /** Whether it will be stored: what the caller asked, unless its project keeps no data. */
  readonly store: boolean;
  /** The conversation that it goes on. */
  readonly rootId: string | null;
}

/** @throws ApiError that names the parameter */
export function parseResponse(body: unknown): ParsedResponse {
  const asked = parse(Body, body);
  refuseUnsupported(asked);
  const written: readonly InputItem[] =
    typeof asked.input === "string" ? [{ role: "user", content: asked.input }] : asked.input;
  const isWhole = asked.previous_response_id == null && !written.some(isReference);
  const items = written.filter((item): item is SaidItem => !isReference(item));
  const request = requestOf(asked, items);
  return {
    request,
    asked,
    items,
    store: asked.store ?? true,
    rootId: null,
    needsMore: !isWhole || asked.background === true,
  };
}

/** The call of the model: instructions first, then everything that was said. */
export function requestOf(asked: Body, items: readonly SaidItem[]): ChatRequest {
  const instructions = asked.instructions ? [{ role: "developer" as const, content: asked.instructions }] : [];
  const wantsLogprobs = asked.include?.includes("message.output_text.logprobs") || (asked.top_logprobs ?? 0) > 0;
  const optional = {
    maxOutputTokens: asked.max_output_tokens,
    temperature: asked.temperature,
    topP: asked.top_p,
    topK: asked.top_k,
    seed: asked.seed,
    logprobs: wantsLogprobs ? true : undefined,
    topLogprobs: wantsLogprobs ? asked.top_logprobs : undefined,
    reasoningEffort: asked.reasoning?.effort,
    responseFormat: formatOf(asked.text?.format),
    tools: asked.tools?.length ? asked.tools.map(toolOf) : undefined,
    toolChoice: choiceOf(asked),
    parallelToolCalls: asked.tools?.length ? asked.parallel_tool_calls : undefined,
  };
  const given = Object.fromEntries(
    Object.entries(optional).filter(([, value]) => value !== undefined && value !== null),
  );
  return {
    kind: "completions",
    model: asked.model,
    messages: [...instructions, ...messagesOf(items)],
    choices: 1,
    stream: asked.stream ?? false,
    serviceTier: asked.service_tier === "flex" || asked.service_tier === "priority" ? asked.service_tier : "default",
    ...(given as Partial<ChatRequest>),
  };
}

function refuseUnsupported(asked: Body): void {
  const unsupported = (param: string, reason: string) =>
    new ApiError("unsupported_parameter", `'${param}' is not supported: ${reason}.`, { param });
  const refusedHere = ["max_tool_calls", "context_management", "conversation", "moderation", "prompt"] as const;
  for (const param of refusedHere)
    if (asked[param] != null) throw unsupported(param, "this platform does not offer it");
  if (asked.prompt_cache_options != null) throw unsupported("prompt_cache_options", "this platform does not offer it");
  if (asked.truncation === "auto") throw unsupported("truncation", "what does not fit the model is refused, not cut");
  if (asked.text?.verbosity != null && asked.text.verbosity !== "medium")
    throw unsupported("text.verbosity", "no model here takes it");
  if (asked.background && asked.stream)
    throw unsupported("stream", "a response that is made in the background is fetched when it is there");
  const format = asked.text?.format;
  if (format?.type === "json_schema") assertReplySchema(format.schema, format.strict, "text.format.schema");
  for (const [index, tool] of (asked.tools ?? []).entries())
    assertStrict(tool.parameters, tool.strict, `tools[${index}].parameters`);
  if (asked.tool_choice != null && asked.tool_choice !== "none" && asked.tool_choice !== "auto" && !asked.tools?.length)
    throw new ApiError("invalid_value", "'tool_choice' needs 'tools'.", { param: "tool_choice" });
  if (Array.isArray(asked.input) && asked.input.length === 0 && asked.previous_response_id == null)
    throw new ApiError("invalid_value", "'input' must not be empty.", { param: "input" });
}

const toolOf = ({ name, description, parameters, strict }: z.output<typeof Tool>): FunctionTool => ({
  type: "function",
  function: {
    name,
    ...(description == null ? {} : { description }),
    ...(parameters == null ? {} : { parameters }),
    ...(strict == null ? {} : { strict }),
  },
});

function choiceOf({ tool_choice, tools }: Body): ToolChoice | undefined {
  if (tool_choice == null || !tools?.length) return undefined;
  if (typeof tool_choice === "string") return tool_choice;
  if (tool_choice.type !== "function") throw unsupportedTool(tool_choice.type, "tool_choice.type");
  const { name } = tool_choice;
  if (name === undefined) {
    const param = "tool_choice.name";
    throw new ApiError("missing_required_parameter", `Missing required parameter: '${param}'.`, { param });
  }
  return { type: "function", function: { name } };
}

function formatOf(format: z.output<typeof Format> | null | undefined): ResponseFormat | undefined {
  if (format == null || format.type === "text") return undefined;
  if (format.type === "json_object") return format;
  const { name, description, schema, strict } = format;
  const more = { ...(description == null ? {} : { description }), ...(strict == null ? {} : { strict }) };
  return { type: "json_schema", json_schema: { name, schema, ...more } };
}

const unsupportedTool = (type: string, param: string) =>
  new ApiError(
    "unsupported_tool",
    `The tool '${type.slice(0, 64)}' is not supported: this platform hosts no tools; use functions.`,
    {
      param,
    },
  );
