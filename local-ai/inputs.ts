import { z } from "zod";
import type { TemplateMessage } from "./chat-template";
import { badInput, noLora } from "./errors";

const MAX_STOP_STRINGS = 16;
const MAX_STOP_CHARACTERS = 256;
const MAX_MESSAGES = 256; // each takes three tokens at least: more never fit the context
const MAX_TEXTS = 100; // as Workers AI's embedding models

const Content = z.union([
  z.string(),
  z
    .array(z.object({ type: z.literal("text"), text: z.string() }))
    .transform((parts) => parts.map((part) => part.text).join("")),
]);
const Message = z.object({ role: z.enum(["system", "developer", "user", "assistant"]), content: Content });
const Stop = z.string().max(MAX_STOP_CHARACTERS);

/** Inputs of Workers AI's text generation, with its defaults. */
const TextGeneration = z
  .object({
    messages: z.array(Message).min(1).max(MAX_MESSAGES).optional(),
    prompt: z.string().min(1).optional(),
    raw: z.boolean().default(false),
    stream: z.boolean().default(false),
    max_tokens: z.int().min(1).default(256),
    temperature: z.number().min(0).max(5).default(0.6),
    top_p: z.number().min(0).max(2).default(1),
    top_k: z.int().min(0).default(0),
    seed: z.int().optional(),
    repetition_penalty: z.number().gt(0).max(10).default(1),
    frequency_penalty: z.number().min(-2).max(2).default(0),
    presence_penalty: z.number().min(-2).max(2).default(0),
    stop: z.union([Stop, z.array(Stop).max(MAX_STOP_STRINGS)]).default([]),
    lora: z.unknown().optional(),
    tools: z.unknown().optional(),
    response_format: z.unknown().optional(),
  })
  .refine(
    ({ messages, prompt }) => (messages === undefined) !== (prompt === undefined),
    "exactly one of 'messages' and 'prompt' is required",
  );
const Embeddings = z.object({ text: z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(MAX_TEXTS)]) });

export type TextGenerationInput = Omit<z.output<typeof TextGeneration>, "messages" | "stop"> & {
  readonly messages?: readonly TemplateMessage[];
  readonly stop: readonly string[];
};

/** @throws InferenceUpstreamError */
export function parseTextGeneration(inputs: unknown): TextGenerationInput {
  const { messages, stop, lora, tools, response_format, ...rest } = parse(TextGeneration, inputs);
  if (lora !== undefined) throw noLora();
  if (tools !== undefined) throw badInput("'tools' is not supported by this model");
  if (response_format !== undefined) throw badInput("'response_format' is not supported by this model");
  const stops = (typeof stop === "string" ? [stop] : stop).filter((text) => text !== "");
  return { ...rest, stop: stops, ...(messages === undefined ? {} : { messages }) };
}

/** @throws InferenceUpstreamError */
export function parseEmbeddings(inputs: unknown): string[] {
  const { text } = parse(Embeddings, inputs);
  return typeof text === "string" ? [text] : text;
}

function parse<T>(schema: z.ZodType<T>, inputs: unknown): T {
  const parsed = schema.safeParse(inputs);
  if (parsed.success) return parsed.data;
  const findings = parsed.error.issues.map(({ path, message }) => `'/${path.join("/")}' ${message}`);
  throw badInput(findings.slice(0, 3).join("; "));
}
