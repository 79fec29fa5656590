import { Buffer } from "node:buffer";
import { z } from "zod";
import type { ModelCall } from "../pipeline/model-call";
import type { EmbeddingRequest } from "../pipeline/model-request";
import { list } from "./bounded";
import { MAX_EMBEDDED } from "./bounds";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint, type ParsedCall } from "./model-call";
import { parse } from "./parse";

const Input = z.string().min(1, "an input must not be empty");
const EmbeddingBody = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union(
    [Input, list(Input, { min: 1, max: MAX_EMBEDDED })],
    "a text or a list of texts is accepted, no token ids",
  ),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).optional(),
  user: z.string().max(512).optional(),
});

export interface ParsedEmbedding extends ParsedCall {
  readonly encoding: "float" | "base64";
}

export const embeddings: ModelEndpoint<ParsedEmbedding> = { parse: parseEmbedding, reply };

export function parseEmbedding(body: unknown): ParsedEmbedding {
  const { model, input, encoding_format, dimensions } = parse(EmbeddingBody, body);
  const request: EmbeddingRequest = {
    kind: "embeddings",
    model,
    inputs: typeof input === "string" ? [input] : input,
    serviceTier: "default",
    stream: false,
    ...(dimensions === undefined ? {} : { dimensions }),
  };
  return { request, encoding: encoding_format };
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
  const tokens = call.billed.promptTokens;
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return c.json({ object: "list", model: call.model.name, data, usage }, 200, callHeaders(call));
}

/** Little-endian float32, as the official clients ask for by default. */
const float32ToBase64 = (vector: readonly number[]) => Buffer.from(new Float32Array(vector).buffer).toString("base64");
