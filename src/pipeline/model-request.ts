import type { ServiceTier } from "../core/records";
import type { ChatCall, EmbeddingCall } from "../inference/provider";

/** A chat request after validation, in our words; `model` is what the caller wrote. */
export interface ChatRequest extends Omit<ChatCall, "model" | "maxOutputTokens"> {
  readonly kind: "completions";
  readonly model: string;
  /** Per choice; undefined when the caller named no cap. */
  readonly maxOutputTokens?: number;
  readonly serviceTier: ServiceTier;
  /** The messages are texts to be labelled, each by itself; one choice for each. */
  readonly classification?: Classification;
}

export interface Classification {
  readonly inputs: readonly string[];
  readonly labels: readonly string[];
  readonly instructions?: string;
}

export interface EmbeddingRequest extends Omit<EmbeddingCall, "model"> {
  readonly kind: "embeddings";
  readonly model: string;
  readonly dimensions?: number;
  readonly serviceTier: ServiceTier;
  readonly stream: false;
}

export interface ModerationRequest {
  readonly kind: "moderations";
  readonly model: string;
  readonly inputs: readonly string[];
  readonly serviceTier: ServiceTier;
  readonly stream: false;
}

export type ModelRequest = ChatRequest | EmbeddingRequest | ModerationRequest;

export const choicesOf = (request: ModelRequest): number => (request.kind === "completions" ? request.choices : 1);

/** What a model would run at once for it: each choice is a sequence, while inputs are taken one after another. */
export const sequencesOf = (request: ModelRequest): number =>
  request.kind === "completions" && request.classification ? 1 : choicesOf(request);

/** Tokens that a chat template may add to a message, and to a conversation. */
const TEMPLATE_TOKENS = 16;

/**
 * An upper bound of the prompt's tokens that holds for every tokenizer with byte fall-back: a token covers at least
 * one byte of the text. What was reserved too much is given back when the call is settled.
 */
export function promptTokenBound(request: ModelRequest): number {
  if (request.kind !== "completions") {
    return request.inputs.reduce((sum, input) => sum + bytesOf(input) + 2, 0);
  }
  if (request.classification) return classificationBound(request.classification);
  const messages = request.messages.reduce((sum, message) => sum + bytesOf(message) + TEMPLATE_TOKENS, TEMPLATE_TOKENS);
  const format = request.responseFormat ? bytesOf(request.responseFormat) : 0;
  return messages + format + (request.tools ? bytesOf(request.tools) : 0);
}

/** Each input is read with the instructions and the labels. */
const classificationBound = ({ inputs, labels, instructions = "" }: Classification): number =>
  inputs.reduce((sum, input) => sum + bytesOf(input), 0) +
  inputs.length * (bytesOf(labels) * 3 + bytesOf(instructions) + 16 * TEMPLATE_TOKENS);

const encoder = new TextEncoder();
const bytesOf = (value: unknown) =>
  encoder.encode(typeof value === "string" ? value : JSON.stringify(value)).byteLength;
