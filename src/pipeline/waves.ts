import { type ChatDelta, type ProviderUsage, usageOfOnePrompt } from "../inference/provider";

/** Runs some of a call's choices: `choices` of them, from the one numbered `first` on. */
export type AskForChoices = (first: number, choices: number) => Promise<AsyncIterable<ChatDelta>>;

/**
 * A call's choices, at most `width` at once: wave after wave as one output, deltas as they come, then all ends, then
 * one usage. The prompt counts once, whatever each wave reads of it.
 */
export async function* inWaves(ask: AskForChoices, choices: number, width: number): AsyncGenerator<ChatDelta> {
  if (width >= choices) {
    yield* await ask(0, choices);
    return;
  }
  const ends: ChatDelta[] = [];
  const usages: ProviderUsage[] = [];
  let rejected: ChatDelta | undefined;
  let waves = 0;
  for (let first = 0; first < choices; first += width, waves++) {
    for await (const delta of await ask(first, Math.min(width, choices - first))) {
      if (delta.type === "usage") usages.push(delta);
      else if (delta.type === "usage_rejected") rejected = delta;
      else if (delta.type === "finish") ends.push({ ...delta, choice: first + delta.choice });
      else yield { ...delta, choice: first + delta.choice };
    }
  }
  yield* ends;
  // A wave that did not say makes the sum worthless: the meter's own count stands in.
  if (usages.length === waves) yield { type: "usage", ...usageOfOnePrompt(usages) };
  else if (rejected) yield rejected;
}
