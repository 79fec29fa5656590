import { Buffer } from "node:buffer";
import { z } from "zod";
import { ApiError } from "../errors";
import type { ModelCall } from "../pipeline/model-call";
import type { EmbeddingRequest } from "../pipeline/model-request";
import { list } from "./bounded";
import { MAX_EMBEDDED, MAX_TOKEN_IDS } from "./bounds";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint, type ParsedCall } from "./model-call";
import { parse } from "./parse";

const Input = z.string().min(1, "an input must not be empty");
/** Token ids, which some clients send in place of texts. */
const Tokens = list(z.int().nonnegative(), { min: 1, max: MAX_TOKEN_IDS });
const EmbeddingBody = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union(
    [Input, list(Input, { min: 1, max: MAX_EMBEDDED }), Tokens, list(Tokens, { min: 1, max: MAX_EMBEDDED })],
    "a text, a list of texts, or token ids are accepted",
  ),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).optional(),
  user: z.string().max(512).optional(),
});

export interface ParsedEmbedding extends ParsedCall {
  readonly request: EmbeddingRequest;
  readonly encoding: "float" | "base64";
  /** In place of texts. */
  readonly tokens?: readonly (readonly number[])[];
}

export const embeddings: ModelEndpoint<ParsedEmbedding> = {
  parse: parseEmbedding,
  prepare,
  paramNames: { messages: "input" },
  reply,
};

export function parseEmbedding(body: unknown): ParsedEmbedding {
  const { model, input, encoding_format, dimensions } = parse(EmbeddingBody, body);
  const { texts, tokens } = inputsOf(input);
  const request: EmbeddingRequest = {
    kind: "embeddings",
    model,
    inputs: texts,
    serviceTier: "default",
    stream: false,
    ...(dimensions === undefined ? {} : { dimensions }),
  };
  const parsed = { request, encoding: encoding_format };
  return tokens ? { ...parsed, tokens, needsMore: true } : parsed;
}

function inputsOf(input: z.output<typeof EmbeddingBody>["input"]) {
  if (typeof input === "string") return { texts: [input] };
  const texts = input.filter((one) => typeof one === "string");
  if (texts.length > 0) return { texts };
  return { texts, tokens: isOneInput(input) ? [input] : (input as number[][]) };
}
const isOneInput = (input: unknown): input is number[] => Array.isArray(input) && typeof input[0] === "number";

/** Ids become the texts that they stand for: no model here has the tokenizer that made them. */
async function prepare({ var: { services } }: AppContext, parsed: ParsedEmbedding): Promise<ParsedEmbedding> {
  const { tokens, request } = parsed;
  if (!tokens) return parsed;
  const inputs = tokens.map((ids, index) => {
    const text = services.pipeline.tokenizers.textOf(ids);
    if (text !== undefined && text !== "") return text;
    const param = tokens.length === 1 ? "input" : `input[${index}]`;
    const message = `'${param}' are no token ids of cl100k_base that make a text. Send the text itself.`;
    throw new ApiError("invalid_value", message, { param });
  });
  return { ...parsed, request: { ...request, inputs }, needsMore: false };
}

async function reply(c: AppContext, call: ModelCall, { encoding }: ParsedEmbedding): Promise<Response> {
  const vectors: (readonly number[])[] = [];
  for await (const output of call.output)
    if (output.type === "vectors") for (const vector of output.vectors) vectors.push(vector);
  const data = vectors.map((vector, index) => ({
    object: "embedding",
    index,
    embedding: encoding === "base64" ? float32ToBase64(vector) : vector,
  }));
  const { promptTokens: tokens, billed } = call.told;
  const paid = billed ? { billed: { prompt_tokens: billed.promptTokens } } : {};
  const usage = { prompt_tokens: tokens, total_tokens: tokens, ...paid };
  return c.json({ object: "list", model: call.model.name, data, usage }, 200, callHeaders(call));
}

/** Little-endian float32, as the official clients ask for by default. */
const float32ToBase64 = (vector: readonly number[]) => Buffer.from(new Float32Array(vector).buffer).toString("base64");
