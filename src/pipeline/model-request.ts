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
