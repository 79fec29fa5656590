import { type ChatDelta, type ProviderUsage, usageOfOnePrompt } from "../provider";

/**
 * Runs as one output: deltas as they come, then all ends, then one usage. Each run works on at most one delta ahead
 * of the reader. The first failure is the output's own; whoever reads then stops what is left of the runs.
 */
export async function* sideBySide(runs: readonly AsyncGenerator<ChatDelta>[]): AsyncGenerator<ChatDelta> {
  const ready: { readonly choice: number; readonly step: IteratorResult<ChatDelta> }[] = [];
  const ends: ChatDelta[] = [];
  const usages: ProviderUsage[] = [];
  let rejected: ChatDelta | undefined;
  let failure: { readonly error: unknown } | undefined;
  let wake = () => {};
  const advance = (choice: number) =>
    void runs[choice]?.next().then(
      (step) => {
        ready.push({ choice, step });
        wake();
      },
      (error) => {
        failure ??= { error };
        wake();
      },
    );
  for (const choice of runs.keys()) advance(choice);
  for (let running = runs.length; running > 0; ) {
    if (failure) throw failure.error;
    const next = ready.shift();
    if (!next) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      continue;
    }
    const { choice, step } = next;
    if (step.done) {
      running--;
      continue;
    }
    if (step.value.type === "usage") usages.push(step.value);
    else if (step.value.type === "usage_rejected") rejected = step.value;
    else if (step.value.type === "finish") ends.push({ ...step.value, choice });
    else yield { ...step.value, choice };
    advance(choice);
  }
  yield* ends;
  // A run that did not say makes the sum worthless: the tap's own count stands in.
  if (usages.length === runs.length) yield { type: "usage", ...usageOfOnePrompt(usages) };
  else if (rejected) yield rejected;
}
