import type { ChatDelta, ProviderUsage } from "../provider";
import { fieldsOf } from "./reply-shapes";
import { reportedUsage, TokenCount } from "./token-count";

type Counts = Partial<Record<"prompt" | "completion" | "cached" | "reasoning", number>>;

/**
 * Puts together what a provider says of its usage, wherever it says it: once, as running totals, or in parts. The last
 * word on each count stands; a zero does not take back what was counted.
 */
export class UsageReader {
  #counts: Counts = {};
  #rejected: unknown;

  /** @param zeroPromptIsUncounted a prompt of zero tokens stands for a count that was not made */
  constructor(readonly zeroPromptIsUncounted: boolean) {}

  /** What is missing leaves what was told before; what cannot be true is kept, to be told. */
  read(usage: unknown): void {
    if (usage === undefined || usage === null) return;
    const counts = countsIn(usage);
    if (!counts) {
      this.#rejected = usage;
      return;
    }
    if (counts.prompt === 0 && this.zeroPromptIsUncounted) return;
    for (const [name, count] of Object.entries(counts) as [keyof Counts, number | undefined][])
      if (count !== undefined && (count > 0 || this.#counts[name] === undefined)) this.#counts[name] = count;
  }

  get usage(): ProviderUsage | undefined {
    const { prompt, completion, cached = 0, reasoning } = this.#counts;
    if (prompt === undefined || completion === undefined) return undefined;
    const thought = reasoning === undefined ? {} : { reasoningTokens: Math.min(reasoning, completion) };
    return { promptTokens: prompt, completionTokens: completion, cachedTokens: Math.min(cached, prompt), ...thought };
  }

  *told(): Generator<ChatDelta> {
    const { usage } = this;
    if (usage) yield { type: "usage", ...usage };
    else if (this.#rejected !== undefined) yield { type: "usage_rejected", reported: reportedUsage(this.#rejected) };
  }
}

class Absurd extends Error {}

/** Undefined where a number cannot be true. */
function countsIn(value: unknown): Counts | undefined {
  const usage = fieldsOf(value);
  if (!usage) return undefined;
  const { prompt_tokens_details, input_tokens_details, completion_tokens_details, output_tokens_details } = usage;
  const read = fieldsOf(prompt_tokens_details ?? input_tokens_details) ?? {};
  const written = fieldsOf(completion_tokens_details ?? output_tokens_details) ?? {};
  try {
    const prompt = first(usage.prompt_tokens, usage.input_tokens, usage.prompt_eval_count);
    const completion = first(usage.completion_tokens, usage.output_tokens, usage.eval_count);
    const total = first(usage.total_tokens);
    const cached = first(read.cached_tokens, usage.cached_tokens, usage.prompt_cache_hit_tokens);
    const reasoning = first(written.reasoning_tokens, usage.reasoning_tokens);
    return withoutUndefined(balanced({ prompt, completion, cached, reasoning }, total));
  } catch (error) {
    if (error instanceof Absurd) return undefined;
    throw error;
  }
}

type Optional = Record<"prompt" | "completion" | "cached" | "reasoning", number | undefined>;

/** Some leave out what the total tells; some leave the thinking out of the completion, and only the total has it. */
function balanced(counts: Optional, total: number | undefined): Optional {
  const { prompt, completion, reasoning } = counts;
  if (total === undefined) return counts;
  if (prompt !== undefined && completion === undefined && total >= prompt)
    return { ...counts, completion: total - prompt };
  if (prompt === undefined && completion !== undefined && total >= completion)
    return { ...counts, prompt: total - completion };
  if (prompt === undefined || completion === undefined || !reasoning) return counts;
  return total === prompt + completion + reasoning ? { ...counts, completion: completion + reasoning } : counts;
}

const withoutUndefined = (counts: Optional): Counts =>
  Object.fromEntries(Object.entries(counts).filter(([, count]) => count !== undefined));

/** The first count that is there at all. */
function first(...values: readonly unknown[]): number | undefined {
  const value = values.find((candidate) => candidate !== undefined && candidate !== null);
  if (value === undefined) return undefined;
  const parsed = TokenCount.safeParse(typeof value === "string" && /^\d{1,9}$/.test(value) ? Number(value) : value);
  if (!parsed.success) throw new Absurd();
  return parsed.data;
}
