import { z } from "zod";
import type { TemplateMessage } from "./chat-template";
import { badInput } from "./errors";

const MAX_STOP_STRINGS = 16;
const MAX_STOP_CHARACTERS = 256;
const MAX_MESSAGES = 256; // each takes three tokens at least: more never fit the context
const MAX_TEXTS = 100; // as Workers AI's embedding models
const MAX_LABELS = 100;
const MAX_REQUESTS = 1_000;

const Content = z.union([
  z.string(),
  z
    .array(z.object({ type: z.literal("text"), text: z.string() }))
    .transform((parts) => parts.map((part) => part.text).join("")),
]);
const Message = z.object({ role: z.enum(["system", "developer", "user", "assistant"]), content: Content });
const Stop = z.string().max(MAX_STOP_CHARACTERS);

const JsonSchema = z.record(z.string(), z.unknown());
/** Workers AI, "JSON Mode"; a schema also in OpenAI's envelope of name and schema, as newer models take it. */
const ResponseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    json_schema: z.union([
      z.object({ name: z.string(), schema: JsonSchema }).transform(({ schema }) => schema),
      JsonSchema,
    ]),
  }),
]);
export type JsonFormat = Exclude<z.output<typeof ResponseFormat>, { type: "text" }>;

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
    lora: z.string().min(1).max(256).optional(),
    tools: z.unknown().optional(),
    response_format: ResponseFormat.optional(),
  })
  .refine(
    ({ messages, prompt }) => (messages === undefined) !== (prompt === undefined),
    "exactly one of 'messages' and 'prompt' is required",
  );
const Embeddings = z.object({ text: z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(MAX_TEXTS)]) });
const Classification = z.object({
  text: z.string().min(1),
  labels: z.array(z.string().min(1).max(256)).min(2).max(MAX_LABELS),
  /** The system prompt; without it the one that the model was trained with. */
  instruction: z.string().min(1).optional(),
  lora: z.string().min(1).max(256).optional(),
});
const Batch = z.object({
  requests: z
    .array(z.looseObject({ external_reference: z.string().max(256).optional() }))
    .min(1)
    .max(MAX_REQUESTS),
});
const Poll = z.object({ request_id: z.string().min(1).max(64) });

export type TextGenerationInput = Omit<
  z.output<typeof TextGeneration>,
  "messages" | "stop" | "tools" | "response_format"
> & {
  readonly messages?: readonly TemplateMessage[];
  readonly stop: readonly string[];
  readonly json?: JsonFormat;
};
export type ClassificationInput = z.output<typeof Classification>;
export type BatchRequest = z.output<typeof Batch>["requests"][number];

/** @throws InferenceUpstreamError */
export function parseTextGeneration(inputs: unknown): TextGenerationInput {
  const { messages, stop, tools, response_format: format, ...rest } = parse(TextGeneration, inputs);
  if (tools !== undefined) throw badInput("'tools' is not supported by this model");
  const json = format === undefined || format.type === "text" ? undefined : format;
  if (json && rest.stream) throw badInput("'/stream' JSON mode does not stream");
  const stops = (typeof stop === "string" ? [stop] : stop).filter((text) => text !== "");
  return { ...rest, stop: stops, ...(messages === undefined ? {} : { messages }), ...(json ? { json } : {}) };
}

/** @throws InferenceUpstreamError */
export function parseEmbeddings(inputs: unknown): string[] {
  const { text } = parse(Embeddings, inputs);
  return typeof text === "string" ? [text] : text;
}

/** @throws InferenceUpstreamError */
export const parseClassification = (inputs: unknown): ClassificationInput => parse(Classification, inputs);

/** @throws InferenceUpstreamError */
export const parseBatch = (inputs: unknown): readonly BatchRequest[] => parse(Batch, inputs).requests;

/** @returns the id of a batch that is asked after, or undefined for any other call */
export const polledId = (inputs: unknown): string | undefined => Poll.safeParse(inputs).data?.request_id;

/** Of each list, looked at before anything that is in it: one caller's flood is no work for the others' model. */
const LONGEST: Readonly<Record<string, number>> = {
  messages: MAX_MESSAGES,
  stop: MAX_STOP_STRINGS,
  text: MAX_TEXTS,
  labels: MAX_LABELS,
  requests: MAX_REQUESTS,
};

function parse<T>(schema: z.ZodType<T>, inputs: unknown): T {
  for (const [name, most] of Object.entries(LONGEST)) {
    const list = (inputs as Readonly<Record<string, unknown>> | null | undefined)?.[name];
    if (Array.isArray(list) && list.length > most) throw badInput(`'/${name}' has more than ${most} elements`);
  }
  const parsed = schema.safeParse(inputs);
  if (parsed.success) return parsed.data;
  const findings = parsed.error.issues.map(({ path, message }) => `'/${path.join("/")}' ${message}`);
  throw badInput(findings.slice(0, 3).join("; "));
}
