import { BUCKET_MS, type Bucket, MinuteWindow, WINDOW_MS } from "./minute-window";

export interface RateRule {
  /** Names the window; unique within a tenant. */
  readonly key: string;
  readonly name: "requests_per_minute" | "tokens_per_minute" | "end_user_requests_per_minute";
  readonly unit: "requests" | "tokens";
  readonly limit: number;
}

/** What a call takes from its rates. */
export interface Draw {
  /** All of them must have room. */
  readonly rates: readonly RateRule[];
  /** Upper bound of the prompt. */
  readonly promptTokens: number;
  /** Cap per choice. */
  readonly outputTokens: number;
  readonly choices: number;
  /** The caller named no cap, so it may be lowered to what the token limits still allow. */
  readonly outputLowerable: boolean;
}

export interface RateRefusal {
  readonly rule: RateRule["name"];
  readonly key: string;
  readonly limit: number;
  /** Counted, and claimed by those who wait. */
  readonly used: number;
  readonly requested: number;
  readonly retryAfterMs: number;
  /** Larger than the limit itself: waiting does not help. */
  readonly neverFits: boolean;
}

/** Where a draw's tokens were counted. */
export type Counted = readonly { readonly rule: string; readonly bucketMs: number }[];
export type RuleBucket = Bucket & { readonly rule: string };

/** A cap is never lowered below this: a shorter answer helps nobody. */
export const MIN_OUTPUT_TOKENS = 16;
const NO_CLAIMS: ReadonlyMap<string, number> = new Map();

/**
 * The rates of one tenant: a window per rule, and what waiting requests claim of it. All share one clock, which
 * {@link tick} moves and which never goes back. Windows that ran empty are dropped.
 */
export class RateWindows {
  readonly #windows = new Map<string, MinuteWindow>(); // in the order in which they run empty
  readonly #claims = new Map<string, number>();
  readonly #touched = new Set<string>();
  #left: { rule: string; bucketMs: number }[] = [];
  #atMs = 0;

  /**
   * @param buckets what {@link takeDirty} persisted
   * @param atMs when the clock was last known to be, at least; it goes on from there
   */
  static restore(buckets: readonly RuleBucket[], atMs: number): RateWindows {
    const rates = new RateWindows();
    const inOrder = [...buckets].sort((a, b) => b.bucketMs - a.bucketMs);
    const newestFirst = [...Map.groupBy(inOrder, (bucket) => bucket.rule)];
    for (const [rule, own] of newestFirst.reverse()) rates.#windows.set(rule, MinuteWindow.restore(own));
    rates.#atMs = Math.max(atMs, inOrder[0]?.bucketMs ?? 0);
    return rates;
  }

  /**
   * Moves the clock. @returns the time that counts: `nowMs`, or later where the clock went back
   * @throws RangeError for what is no time: one NaN would stop the clock forever
   */
  tick(nowMs: number): number {
    if (!Number.isFinite(nowMs)) throw new RangeError(`${nowMs} is no time`);
    this.#atMs = Math.max(this.#atMs, nowMs);
    for (const [rule, window] of this.#windows) {
      window.total(this.#atMs);
      if (!window.isEmpty) break;
      for (const bucketMs of window.takeDirty().remove) this.#left.push({ rule, bucketMs });
      this.#windows.delete(rule);
    }
    return this.#atMs;
  }

  /**
   * The cap for which every rate has room beside what is counted and claimed, or the refusal of the rate that keeps
   * the caller away longest. Its wait is exact as long as nothing else happens; where only those who wait stand in
   * the way, it is a full window, an estimate.
   */
  fit(draw: Draw, nowMs: number): { outputTokens: number } | RateRefusal {
    return this.#fit(draw, this.#claims, nowMs);
  }

  /** As {@link fit}, for one whose turn it is: the claims of those behind it do not stand in its way. */
  fitFirst(draw: Draw, nowMs: number): { outputTokens: number } | RateRefusal {
    return this.#fit(draw, NO_CLAIMS, nowMs);
  }

  /** Counts a draw now. @returns where its tokens went */
  count(draw: Draw): Counted {
    const counted: { rule: string; bucketMs: number }[] = [];
    for (const rule of draw.rates) {
      const window = this.#windows.get(rule.key) ?? new MinuteWindow();
      const bucketMs = window.add(costOf(rule, draw), this.#atMs);
      this.#windows.delete(rule.key); // to the end: it runs empty last now
      this.#windows.set(rule.key, window);
      this.#touched.add(rule.key);
      if (rule.unit === "tokens") counted.push({ rule: rule.key, bucketMs });
    }
    return counted;
  }

  /** Gives tokens back to the buckets that counted them, as far as these still count. */
  giveBack(counted: Counted, tokens: number): void {
    for (const { rule, bucketMs } of counted) {
      this.#windows.get(rule)?.correct(bucketMs, -tokens);
      this.#touched.add(rule);
    }
  }

  claim(draw: Draw): void {
    this.#addClaims(draw, 1);
  }

  unclaim(draw: Draw): void {
    this.#addClaims(draw, -1);
  }

  /** Each rule's state now; `used` is counted and claimed, `resetMs` the wait until nothing counts any more. */
  state(rules: readonly RateRule[], nowMs: number) {
    return rules.map(({ key, name, unit, limit }) => {
      const used = this.#counted(key) + (this.#claims.get(key) ?? 0);
      const resetMs = this.#windows.get(key)?.resetMs(nowMs) ?? 0;
      return { key, name, unit, limit, used, remaining: Math.max(0, limit - used), resetMs };
    });
  }

  /** What must be written so that {@link restore} finds it. */
  takeDirty(): { upsert: RuleBucket[]; remove: { rule: string; bucketMs: number }[] } {
    const upsert: RuleBucket[] = [];
    const remove = this.#left;
    this.#left = [];
    for (const rule of this.#touched) {
      const dirty = this.#windows.get(rule)?.takeDirty();
      for (const bucket of dirty?.upsert ?? []) upsert.push({ rule, ...bucket });
      for (const bucketMs of dirty?.remove ?? []) remove.push({ rule, bucketMs });
    }
    this.#touched.clear();
    return { upsert, remove };
  }

  #counted(rule: string): number {
    const window = this.#windows.get(rule);
    if (!window) return 0;
    this.#touched.add(rule); // a look, too, lets buckets leave
    return window.total(this.#atMs);
  }

  #fit(draw: Draw, claims: ReadonlyMap<string, number>, nowMs: number): { outputTokens: number } | RateRefusal {
    const rates = draw.rates.map((rule) => {
      const claimed = claims.get(rule.key) ?? 0;
      return { rule, claimed, used: this.#counted(rule.key) + claimed };
    });
    let { outputTokens } = draw;
    for (const { rule, used } of rates) {
      if (rule.unit !== "tokens" || !draw.outputLowerable) continue;
      const affordable = Math.floor((rule.limit - used - draw.promptTokens) / draw.choices);
      outputTokens = Math.min(outputTokens, Math.max(affordable, MIN_OUTPUT_TOKENS));
    }
    let longest: RateRefusal | undefined;
    for (const { rule, claimed, used } of rates) {
      const cost = costOf(rule, { ...draw, outputTokens });
      if (used + cost <= rule.limit) continue;
      const refusal = this.#refusal(rule, cost, used, claimed, nowMs);
      if (!longest || keepsAwayMs(refusal) > keepsAwayMs(longest)) longest = refusal;
    }
    return longest ?? { outputTokens };
  }

  #refusal(rule: RateRule, cost: number, used: number, claimed: number, nowMs: number): RateRefusal {
    const { name, key, limit } = rule;
    const refusal = { rule: name, key, limit, used, requested: cost };
    if (cost > limit) return { ...refusal, retryAfterMs: 0, neverFits: true };
    const window = this.#windows.get(key);
    const exact = window && cost + claimed <= limit;
    const retryAfterMs = exact ? window.retryAfterMs(cost + claimed, limit, nowMs) : WINDOW_MS + BUCKET_MS;
    return { ...refusal, retryAfterMs, neverFits: false };
  }

  #addClaims(draw: Draw, sign: 1 | -1): void {
    for (const rule of draw.rates) {
      const claimed = (this.#claims.get(rule.key) ?? 0) + sign * costOf(rule, draw);
      if (claimed === 0) this.#claims.delete(rule.key);
      else this.#claims.set(rule.key, claimed);
    }
  }
}

const keepsAwayMs = (refusal: RateRefusal) => (refusal.neverFits ? Number.POSITIVE_INFINITY : refusal.retryAfterMs);

/** @throws RangeError for numbers that cannot be counted, before anything is */
function costOf(rule: RateRule, draw: Draw): number {
  const cost = rule.unit === "requests" ? 1 : draw.promptTokens + draw.outputTokens * draw.choices;
  if (!Number.isSafeInteger(cost) || cost < 0) throw new RangeError(`a cost of ${cost} cannot be counted`);
  return cost;
}
