import { z } from "zod";
import { ApiError } from "../errors";
import type { ChatMessage, ContentPart, ToolCall } from "../inference/provider";
import { list, typedList } from "./bounded";
import { MAX_ITEMS, MAX_PARTS, MAX_UNREAD } from "./bounds";
import { FunctionName } from "./chat-request";

/** Bounds of one item; the body's size bounds the rest. */
const MAX_TEXT = 10_485_760;
const CallId = z.string().min(1).max(64);
const ItemId = z.string().min(1).max(128).nullish();
const Status = z.enum(["in_progress", "completed", "incomplete"]).nullish();

const InputText = z.strictObject({
  type: z.literal("input_text"),
  text: z.string().max(MAX_TEXT),
  prompt_cache_breakpoint: z.unknown().optional(),
});
const InputImage = z.strictObject({
  type: z.literal("input_image"),
  detail: z.enum(["auto", "low", "high", "original"]).nullish(),
  image_url: z.string().nullish(),
  file_id: z.string().nullish(),
  prompt_cache_breakpoint: z.unknown().optional(),
});
/** Known to the contract; no model here reads it, so what is inside is not looked at. */
const InputFile = z.looseObject({ type: z.literal("input_file") });
const InputAudio = z.looseObject({ type: z.literal("input_audio") });
const OutputText = z.strictObject({
  type: z.literal("output_text"),
  text: z.string().max(MAX_TEXT),
  annotations: list(z.unknown(), { max: MAX_UNREAD }).nullish(),
  logprobs: list(z.unknown(), { max: MAX_UNREAD }).nullish(),
});
const Refusal = z.strictObject({ type: z.literal("refusal"), refusal: z.string().max(MAX_TEXT) });

const Message = z.strictObject({
  type: z.literal("message").optional(),
  id: ItemId,
  role: z.enum(["user", "assistant", "system", "developer"]),
  content: z.union([
    z.string().max(MAX_TEXT),
    list(z.discriminatedUnion("type", [InputText, InputImage, InputFile, InputAudio, OutputText, Refusal]), {
      max: MAX_PARTS,
    }),
  ]),
  status: Status,
  phase: z.unknown().optional(),
});
const FunctionCall = z.strictObject({
  type: z.literal("function_call"),
  id: ItemId,
  call_id: CallId,
  name: FunctionName,
  arguments: z.string().max(MAX_TEXT),
  status: Status,
  namespace: z.string().nullish(),
  caller: z.unknown().optional(),
  created_by: z.string().nullish(),
});
const FunctionCallOutput = z.strictObject({
  type: z.literal("function_call_output"),
  id: ItemId,
  call_id: CallId,
  output: z.union([
    z.string().max(MAX_TEXT),
    list(z.discriminatedUnion("type", [InputText, InputImage, InputFile]), { max: MAX_PARTS }),
  ]),
  status: Status,
  name: z.string().nullish(),
  namespace: z.string().nullish(),
  caller: z.unknown().optional(),
  created_by: z.string().nullish(),
});
/** What a model thought earlier; it goes back to a model whose server wants it. */
const Reasoning = z.looseObject({ type: z.literal("reasoning"), id: ItemId });
const ReasoningContent = z.array(z.looseObject({ text: z.string().max(MAX_TEXT) }));
function thoughtOf(item: z.output<typeof Reasoning>): string {
  const { data = [] } = ReasoningContent.safeParse(item.content);
  return data.map(({ text }) => text).join("");
}
const ItemReference = z.strictObject({ type: z.literal("item_reference").nullish(), id: z.string().min(1).max(128) });

/** By their type; what has none is a message, or a reference. */
const ITEMS = new Map<unknown, typeof Message | typeof FunctionCall | typeof FunctionCallOutput | typeof Reasoning>([
  ["message", Message],
  ["function_call", FunctionCall],
  ["function_call_output", FunctionCallOutput],
  ["reasoning", Reasoning],
]);
/** Item types of the contract that belong to tools which OpenAI hosts, or to features that are not here. */
const HOSTED =
  /^(file_search|computer|web_search|image_generation|code_interpreter|local_shell|shell|apply_patch|mcp|custom_tool|tool_search|additional_tools|compaction|program)/;

export type InputItem = z.output<
  typeof Message | typeof FunctionCall | typeof FunctionCallOutput | typeof Reasoning | typeof ItemReference
>;
export type ReferredItem = z.output<typeof ItemReference>;
/** What was said, by whomever. */
export type SaidItem = Exclude<InputItem, ReferredItem>;

export const InputItems = typedList(MAX_ITEMS, (type, index, item) => {
  if (typeof type === "string" && HOSTED.test(type)) throw unsupportedItem(type, index);
  if (type === "item_reference" || type === null) return ItemReference;
  const refers = type === undefined && typeof item === "object" && item !== null && !("role" in item) && "id" in item;
  return refers ? ItemReference : (ITEMS.get(type) ?? Message);
});

const unsupportedItem = (type: string, index: number) =>
  new ApiError(
    "unsupported_tool",
    `Items of type '${type.slice(0, 64)}' are not supported: this platform hosts no tools.`,
    {
      param: `input[${index}].type`,
    },
  );

export const isReference = (item: InputItem): item is ReferredItem =>
  item.type === "item_reference" || (!("role" in item) && (item.type === undefined || item.type === null));

/**
 * The conversation as chat messages: calls of functions belong to the assistant's message before them, their outputs
 * follow as messages of the tool. @throws ApiError `unsupported_modality` for what is no text and no image by URL
 */
export function messagesOf(items: readonly SaidItem[]): ChatMessage[] {
  const messages: Said[] = [];
  let thought = "";
  for (const [index, item] of items.entries()) {
    if (item.type === "reasoning") {
      thought += thoughtOf(item);
      continue;
    }
    const reasoning = thought === "" ? {} : { reasoning: thought };
    thought = "";
    if (item.type === "function_call") addCall(messages, callOf(item), reasoning);
    else if (item.type === "function_call_output") {
      const content = typeof item.output === "string" ? item.output : partsOf(item.output, `input[${index}].output`);
      messages.push({ role: "tool", content, tool_call_id: item.call_id });
    } else {
      const content =
        typeof item.content === "string" ? item.content : partsOf(item.content, `input[${index}].content`);
      messages.push({ role: item.role, content, ...(item.role === "assistant" ? reasoning : {}) });
    }
  }
  return messages;
}

const callOf = (item: z.output<typeof FunctionCall>): ToolCall => ({
  id: item.call_id,
  type: "function",
  function: { name: item.name, arguments: item.arguments },
});

/** Calls of one turn are counted in the thousands by nobody but an attacker: each is added where it belongs, once. */
function addCall(messages: Said[], call: ToolCall, reasoning: Pick<ChatMessage, "reasoning">): void {
  const last = messages.at(-1);
  if (last?.role !== "assistant") messages.push({ role: "assistant", content: null, tool_calls: [call], ...reasoning });
  else {
    Object.assign(last, reasoning);
    if (last.tool_calls) last.tool_calls.push(call);
    else last.tool_calls = [call];
  }
}
/** A message in the making. */
type Said = Omit<ChatMessage, "tool_calls"> & { tool_calls?: ToolCall[] };

type Part = Exclude<z.output<typeof Message>["content"], string>[number];

function partsOf(parts: readonly Part[], at: string): ContentPart[] {
  return parts.map((part, index) => partOf(part, `${at}[${index}]`));
}

function partOf(part: Part, param: string): ContentPart {
  switch (part.type) {
    case "input_text":
    case "output_text":
      return { type: "text", text: part.text };
    case "refusal":
      return part;
    case "input_image": {
      if (!part.image_url) throw unsupportedModality("images by file id; pass 'image_url'", param);
      const detail = part.detail && part.detail !== "original" ? { detail: part.detail } : {};
      return { type: "image_url", image_url: { url: part.image_url, ...detail } };
    }
    case "input_file":
      throw unsupportedModality("files as input", param);
    case "input_audio":
      throw unsupportedModality("audio", param);
  }
}

const unsupportedModality = (what: string, param: string) =>
  new ApiError("unsupported_modality", `This platform's models do not take ${what}.`, { param });

/** As they are stored and listed: each with an id, a status, and its content in parts. */
export function storedItems(items: readonly SaidItem[], idOf: (index: number) => string): SaidItem[] {
  return items.map((item, index) => {
    const id = item.id ?? idOf(index);
    if (item.type === "reasoning") return { ...item, id };
    if (item.type === "function_call" || item.type === "function_call_output")
      return { ...item, id, status: item.status ?? "completed" };
    const type = item.role === "assistant" ? ("output_text" as const) : ("input_text" as const);
    const parts = typeof item.content === "string" ? [{ type, text: item.content } as Part] : item.content;
    const content = parts.map((part) =>
      part.type === "output_text"
        ? { ...part, annotations: part.annotations ?? [], logprobs: part.logprobs ?? [] }
        : part,
    );
    return { ...item, type: "message" as const, id, status: item.status ?? "completed", content };
  });
}
