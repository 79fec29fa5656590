import { z } from "zod";
import type { ModelCall } from "../pipeline/model-call";
import type { ChatRequest, Classification } from "../pipeline/model-request";
import { list } from "./bounded";
import { MAX_CLASSES, MAX_CLASSIFIED } from "./bounds";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint, type ParsedCall } from "./model-call";
import { parse } from "./parse";

/** Of an answer in JSON, beside its label. */
const ANSWER_TOKENS = 32;

const Input = z.string().min(1, "an input must not be empty");
const Body = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union([Input, list(Input, { min: 1, max: MAX_CLASSIFIED })], "a text or a list of texts is accepted"),
  labels: list(z.string().trim().min(1).max(128), { min: 2, max: MAX_CLASSES }).refine(
    (labels) => new Set(labels).size === labels.length,
    "labels must differ",
  ),
  instructions: z.string().min(1).max(10_000).optional(),
  user: z.string().max(512).optional(),
});

export interface ParsedClassification extends ParsedCall {
  readonly labels: readonly string[];
}

/** Labels texts: an addition of this platform, deterministic for the same texts. */
export const classifications: ModelEndpoint<ParsedClassification> = {
  parse: parseClassification,
  paramNames: { messages: "input" },
  reply,
};

export function parseClassification(body: unknown): ParsedClassification {
  const { model, input, labels, instructions } = parse(Body, body);
  const inputs = typeof input === "string" ? [input] : input;
  const classification: Classification = { inputs, labels, ...(instructions === undefined ? {} : { instructions }) };
  const longest = Math.max(...labels.map((label) => new TextEncoder().encode(label).byteLength));
  const request: ChatRequest = {
    kind: "completions",
    model,
    messages: inputs.map((content) => ({ role: "user", content })),
    classification,
    choices: inputs.length,
    maxOutputTokens: longest + ANSWER_TOKENS,
    stream: false,
    serviceTier: "default",
  };
  return { request, labels };
}

async function reply(c: AppContext, call: ModelCall, { labels }: ParsedClassification): Promise<Response> {
  const data: object[] = [];
  for await (const output of call.output) {
    if (output.type !== "label") continue;
    const { input: index, label, scores } = output;
    data.push({ index, label, scores: scores && Object.fromEntries(labels.map((name, at) => [name, scores[at]])) });
  }
  const { promptTokens, completionTokens } = call.told;
  const usage = {
    ...{ prompt_tokens: promptTokens, completion_tokens: completionTokens },
    total_tokens: promptTokens + completionTokens,
  };
  return c.json({ object: "list", model: call.model.name, data, usage }, 200, callHeaders(call));
}
