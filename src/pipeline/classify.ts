import type { ChatModel } from "../inference/catalogue";
import { type ChatMessage, type Provider, ProviderError, type ProviderUsage } from "../inference/provider";
import type { Output, Reservation } from "./model-call";
import type { Classification } from "./model-request";

/**
 * Labels one input after another: by how likely the model answers with each label, where it tells; else by an answer
 * that its schema holds to one of the labels. The same input has the same label again.
 */
export async function* classify(
  provider: Provider,
  model: ChatModel,
  { inputs, labels, instructions }: Classification,
  { outputTokens }: Pick<Reservation, "outputTokens">,
  signal: AbortSignal,
): AsyncGenerator<Output> {
  if (model.classifier !== null && provider.classify) {
    const instruction = instructions === undefined ? {} : { instruction: instructions };
    for (const [input, text] of inputs.entries()) {
      const scores = await provider.classify({ model, text, labels, ...instruction }, signal);
      const best = scores.indexOf(Math.max(...scores));
      yield { type: "label", input, label: labels[best] as string, scores };
    }
    return;
  }
  const usages: ProviderUsage[] = [];
  for (const [input, text] of inputs.entries()) {
    const messages = promptOf(text, labels, instructions);
    const call = { model, messages, maxOutputTokens: outputTokens, choices: 1, stream: false, temperature: 0 };
    let answer = "";
    for await (const delta of await provider.chat({ ...call, responseFormat: formatOf(labels) }, signal)) {
      if (delta.type === "text") answer += delta.text;
      else if (delta.type === "usage") usages.push(delta);
    }
    yield { type: "label", input, label: labelIn(answer, labels), scores: null };
  }
  if (usages.length === inputs.length) yield { type: "usage", ...summed(usages) };
}

const promptOf = (text: string, labels: readonly string[], instructions: string | undefined): ChatMessage[] => [
  {
    role: "system",
    content: `${instructions ?? "Classify the user's message."}\nAnswer in JSON with the one label that fits best, of these: ${JSON.stringify(labels)}`,
  },
  { role: "user", content: text },
];

const formatOf = (labels: readonly string[]) => ({
  type: "json_schema" as const,
  json_schema: {
    name: "classification",
    strict: true,
    schema: {
      ...{ type: "object", additionalProperties: false, required: ["label"] },
      properties: { label: { type: "string", enum: labels } },
    },
  },
});

function labelIn(answer: string, labels: readonly string[]): string {
  let label: unknown;
  try {
    label = (JSON.parse(answer) as { label?: unknown }).label;
  } catch {
    // told below
  }
  if (typeof label === "string" && labels.includes(label)) return label;
  throw new ProviderError("broken", "the model did not keep to the labels' schema");
}

const summed = (usages: readonly ProviderUsage[]): ProviderUsage => {
  const sum = (of: (usage: ProviderUsage) => number) => usages.reduce((total, usage) => total + of(usage), 0);
  return {
    promptTokens: sum((usage) => usage.promptTokens),
    completionTokens: sum((usage) => usage.completionTokens),
    cachedTokens: sum((usage) => usage.cachedTokens),
  };
};
