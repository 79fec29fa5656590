import { z } from "zod";
import { ApiError } from "../errors";
import { CATEGORIES, type Category, FLAGGED_FROM, type Verdict } from "../guard/moderation";
import type { ModelCall } from "../pipeline/model-call";
import type { ModerationRequest } from "../pipeline/model-request";
import { newId } from "../tenancy/ids";
import { list } from "./bounded";
import { MAX_JUDGED } from "./bounds";
import type { AppContext } from "./handler";
import { callHeaders, type ModelEndpoint, type ParsedCall } from "./model-call";
import { parse } from "./parse";

/** The contract's default; a catalogue gives its safety model this alias. */
const DEFAULT_MODEL = "omni-moderation-latest";

const Part = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text"), text: z.string() }),
  z.strictObject({ type: z.literal("image_url"), image_url: z.looseObject({ url: z.string() }) }),
]);
const Body = z.strictObject({
  model: z.string().min(1).max(256).default(DEFAULT_MODEL),
  input: z.union([z.string(), list(z.string(), { min: 1, max: MAX_JUDGED }), list(Part, { min: 1, max: MAX_JUDGED })]),
});

export const moderations: ModelEndpoint<ParsedCall> = {
  parse: parseModeration,
  paramNames: { messages: "input" },
  reply,
};

export function parseModeration(body: unknown): ParsedCall {
  const { model, input } = parse(Body, body);
  const request: ModerationRequest = {
    kind: "moderations",
    model,
    inputs: typeof input === "string" ? [input] : textsOf(input),
    serviceTier: "default",
    stream: false,
  };
  return { request };
}

/** Parts are one thing that is judged as a whole; texts are judged each by itself. */
function textsOf(input: readonly (string | z.output<typeof Part>)[]): string[] {
  const texts = input.filter((entry) => typeof entry === "string");
  if (texts.length === input.length) return texts;
  const parts = input.map((entry, index) => {
    if (typeof entry === "string" || entry.type === "text") return typeof entry === "string" ? entry : entry.text;
    const param = `input[${index}]`;
    throw new ApiError("unsupported_modality", "This platform's safety models do not look at images.", { param });
  });
  return [parts.join("\n")];
}

async function reply(c: AppContext, call: ModelCall): Promise<Response> {
  const results: object[] = [];
  for await (const output of call.output)
    if (output.type === "verdicts") results.push(...output.verdicts.map(verdictToWire));
  return c.json({ id: newId("moderation"), model: call.model.name, results }, 200, callHeaders(call));
}

function verdictToWire({ scores, reasons }: Verdict) {
  const each = <T>(of: (category: Category) => T) =>
    Object.fromEntries(CATEGORIES.map((category) => [category, of(category)]));
  const scoreOf = (category: Category) => scores[category] ?? 0;
  return {
    flagged: CATEGORIES.some((category) => scoreOf(category) >= FLAGGED_FROM),
    categories: each((category) => scoreOf(category) >= FLAGGED_FROM),
    category_scores: each(scoreOf),
    category_applied_input_types: each(() => ["text"]),
    reasons,
  };
}
