import { bytesOf } from "../core/tokens/encoding";
import type { Tokenizers } from "../core/tokens/tokenizers";
import type { Model } from "../inference/catalogue";
import type { ChatMessage, ContentPart } from "../inference/provider";
import type { Classification, ModelRequest } from "./model-request";

/** Tokens that a chat template may add to a message, and to a conversation. */
const TEMPLATE_TOKENS = 16;

/** What a model reads of a request. */
interface Prompt {
  readonly texts: readonly Read[];
  /** Of templates and images. */
  readonly moreTokens: number;
}
/** A text, and how often it is read. */
interface Read {
  readonly text: string;
  readonly times: number;
}

/**
 * An upper bound of the prompt's tokens that costs next to nothing: each of a text's bytes as a token, which holds for
 * every tokenizer that falls back to bytes. What was reserved too much is given back when the call is settled.
 */
export function byteBound(request: ModelRequest, model: Model): number {
  const { texts, moreTokens } = promptOf(request, model);
  return texts.reduce((sum, { text, times }) => sum + bytesOf(text) * times, moreTokens);
}

/**
 * The bound that is asked for where bytes would refuse: counted by the model's tokenizer.
 * @param enough counting may stop beyond this many; what it says then is above them
 */
export function tokenBound(request: ModelRequest, model: Model, tokenizers: Tokenizers, enough: number): number {
  const { texts, moreTokens } = promptOf(request, model);
  let tokens = moreTokens;
  for (const { text, times } of texts) {
    if (tokens > enough) return tokens;
    tokens += tokenizers.atMost(text, model.tokenizer, enough - tokens) * times;
  }
  return tokens;
}

/**
 * What a prompt has in tokens where its provider does not say: what is written in it, calls and tools too, and never
 * above an ordinary count. To weigh labels, a model reads each of them after each input.
 */
export function promptGuess(request: ModelRequest, model: Model, tokenizers: Tokenizers): number {
  const guess = (text: string) => tokenizers.guess(text, model.tokenizer);
  const sum = (texts: readonly string[]) => texts.reduce((tokens, text) => tokens + guess(text), 0);
  if (request.kind !== "completions") return sum(request.inputs);
  if (request.classification) {
    const { inputs, labels, instructions = "" } = request.classification;
    return sum(inputs) + inputs.length * (guess(instructions) + sum(labels));
  }
  const { messages, tools = [] } = request;
  const images = messages.flatMap(({ content }) => (Array.isArray(content) ? content.filter(isImage) : [])).length;
  const seen = model.task === "chat" ? images * model.imageTokens.low : 0;
  return seen + sum(messages.flatMap(writtenIn)) + sum(tools.map((tool) => JSON.stringify(tool.function)));
}

function writtenIn({ content, tool_calls: calls = [] }: ChatMessage): string[] {
  const texts = typeof content === "string" ? [content] : (content ?? []).map(textOf);
  return [...texts, ...calls.flatMap(({ function: called }) => [called.name, called.arguments])];
}

const isImage = (part: ContentPart) => part.type === "image_url";

function promptOf(request: ModelRequest, model: Model): Prompt {
  if (request.kind !== "completions") return { texts: request.inputs.map(once), moreTokens: 2 * request.inputs.length };
  if (request.classification) return classificationPrompt(request.classification);
  const { messages, tools = [], responseFormat } = request;
  const parts = messages.flatMap(({ content }) => (Array.isArray(content) ? (content as ContentPart[]) : []));
  const images = parts.reduce((sum, part) => sum + imageTokens(part, model), 0);
  const templates = (1 + messages.length + tools.length) * TEMPLATE_TOKENS;
  const others = [...tools, ...(responseFormat ? [responseFormat] : [])].map(writtenOut);
  const indents = others.reduce((sum, other) => sum + other.indents, 0);
  return {
    texts: [...messages.flatMap(textsOf), ...others.map(({ text }) => text)].map(once),
    moreTokens: templates + images + indents,
  };
}

function textsOf({ role: _, content, ...rest }: ChatMessage): string[] {
  const texts = typeof content === "string" ? [content] : (content ?? []).map(textOf);
  return Object.keys(rest).length === 0 ? texts : [...texts, written(rest)];
}

const textOf = (part: ContentPart): string =>
  part.type === "text" ? part.text : part.type === "refusal" ? part.refusal : "";

/** An image costs by how closely it is looked at, whatever its address or its bytes are. */
function imageTokens(part: ContentPart, model: Model): number {
  if (part.type !== "image_url" || model.task !== "chat") return 0;
  return model.imageTokens[part.image_url.detail === "low" ? "low" : "high"];
}

/** Templates write objects out as JSON, some of them with indents. */
const written = (value: unknown): string => writtenOut(value).text;

/** Indents of an ordinary object, in times of its other characters, at most. */
const ORDINARY_INDENTS = 3;

/**
 * Nested so deep that a small body would ask for very much text, an object is written without its indents: a token for
 * each character of them bounds what any tokenizer makes of them.
 */
function writtenOut(value: unknown): { readonly text: string; readonly indents: number } {
  const plain = JSON.stringify(value);
  const indents = indentsOf(value, 1);
  return indents > ORDINARY_INDENTS * plain.length
    ? { text: plain, indents }
    : { text: JSON.stringify(value, null, 4), indents: 0 };
}

/** Line ends and indents of four, in characters. */
function indentsOf(value: unknown, depth: number): number {
  if (typeof value !== "object" || value === null) return 0;
  let sum = 4 * depth - 3; // before its end
  const each = 1 + 4 * depth;
  if (Array.isArray(value)) for (const inner of value) sum += each + indentsOf(inner, depth + 1);
  else for (const key in value) sum += each + indentsOf((value as Record<string, unknown>)[key], depth + 1);
  return sum;
}

/** Each input is read with the instructions and the labels. */
function classificationPrompt({ inputs, labels, instructions = "" }: Classification): Prompt {
  const times = inputs.length;
  const beside = [
    { text: instructions, times },
    { text: JSON.stringify(labels), times: 3 * times },
  ];
  return { texts: [...inputs.map(once), ...beside], moreTokens: times * 16 * TEMPLATE_TOKENS };
}

const once = (text: string): Read => ({ text, times: 1 });
