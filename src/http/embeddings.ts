import { Buffer } from "node:buffer";
import { z } from "zod";
import type { EmbeddingRequest } from "../pipeline/model-request";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { callHeaders, startCall } from "./model-call";
import { parse } from "./parse";

/** The contract's bound on inputs of one request. */
const MAX_INPUTS = 2_048;

const Input = z.string().min(1, "an input must not be empty");
const EmbeddingBody = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union([Input, z.array(Input).min(1).max(MAX_INPUTS)], "a text or a list of texts is accepted, no token ids"),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).optional(),
  user: z.string().max(512).optional(),
});

export const createEmbedding: Handler = async (c) => {
  const { model, input, encoding_format, dimensions } = parse(EmbeddingBody, await readJson(c.req.raw));
  const request: EmbeddingRequest = {
    kind: "embeddings",
    model,
    inputs: typeof input === "string" ? [input] : input,
    serviceTier: "default",
    stream: false,
    ...(dimensions === undefined ? {} : { dimensions }),
  };
  const call = await startCall(c, request);
  const vectors: (readonly number[])[] = [];
  for await (const output of call.output) if (output.type === "vectors") vectors.push(...output.vectors);
  const data = vectors.map((vector, index) => ({
    object: "embedding",
    index,
    embedding: encoding_format === "base64" ? float32ToBase64(vector) : vector,
  }));
  const tokens = call.usage.promptTokens;
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return c.json({ object: "list", model: call.model.name, data, usage }, 200, callHeaders(call));
};

/** Little-endian float32, as the official clients ask for by default. */
const float32ToBase64 = (vector: readonly number[]) => Buffer.from(new Float32Array(vector).buffer).toString("base64");
