import { encodeChat } from "./chat-template";
import { type Engine, score, type Variant } from "./generate";
import type { ClassificationInput } from "./inputs";

/** What the model was trained with, and knows best. */
const INSTRUCTION = "Classify the customer message. Answer with the category name only.";

export interface Label {
  readonly label: string;
  /** Of all labels together 1. */
  readonly score: number;
}

/** The prompt that a label answers. */
export const classificationPrompt = ({ tokenizer }: Engine, { text, instruction = INSTRUCTION }: ClassificationInput) =>
  encodeChat(tokenizer, [
    { role: "system", content: instruction },
    { role: "user", content: text },
  ]);

/**
 * How likely the model answers with each label, its end included, so that "refund" is not a beginning of "refunds".
 * @returns the likeliest first
 */
export async function classify(
  engine: Engine,
  prompt: readonly number[],
  labels: readonly string[],
  variant: Variant,
  signal: AbortSignal,
): Promise<Label[]> {
  const { tokenizer } = engine;
  const end = tokenizer.special("<|end|>");
  // Each label reads the same prompt: what the first computed of it, the others find.
  const shared = { ...variant, root: variant.root ?? `classification ${crypto.randomUUID()}` };
  const judged: { readonly label: string; readonly nats: number }[] = [];
  for (const label of labels) {
    judged.push({ label, nats: await score(engine, prompt, [...tokenizer.encode(label), end], shared, signal) });
  }
  judged.sort((a, b) => b.nats - a.nats || (a.label < b.label ? -1 : 1)); // the sum, too, knows one order only
  const weights = judged.map(({ nats }) => Math.exp(nats - (judged[0]?.nats ?? 0)));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return judged.map(({ label }, index) => ({ label, score: (weights[index] as number) / sum }));
}
