import { type Bucket, CountingWindow } from "./counting-window";
import { MINUTE, type Period, periodNamed } from "./periods";

export type RateUnit = "requests" | "tokens" | "microdollars";
/** `shadow` counts what it would refuse, `alert` marks the first time it is passed; neither refuses anything. */
export type RateMode = "hard" | "shadow" | "alert";

export interface RateRule {
  /** Names the window; unique within a tenant. What it counts over is part of it, see {@link periodOfKey}. */
  readonly key: string;
  /** What a refusal calls it. */
  readonly name: string;
  readonly unit: RateUnit;
  readonly limit: number;
  /** Hard without it. */
  readonly mode?: RateMode;
}

/** Micro-dollars per million tokens. */
export interface TokenPrice {
  readonly input: number;
  readonly output: number;
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
  /** The caller named no cap, so it may be lowered to what token limits and budgets still allow. */
  readonly outputLowerable: boolean;
  /** Without it nothing can be counted in micro-dollars. */
  readonly price?: TokenPrice | null;
}

/** Whether a refusal may be another one when fewer tokens are asked for. */
export const dependsOnTokens = (unit: RateRefusal["unit"]): boolean => unit === "tokens" || unit === "microdollars";

export interface RateRefusal {
  readonly rule: string;
  readonly key: string;
  readonly unit: RateUnit | "slots";
  readonly limit: number;
  /** Counted, and claimed by those who wait. */
  readonly used: number;
  readonly requested: number;
  readonly retryAfterMs: number;
  /** Larger than the limit itself: waiting does not help. */
  readonly neverFits: boolean;
}

/** Where a draw was counted, and how much, in each window that a settlement corrects. */
export type Counted = readonly {
  readonly rule: string;
  readonly bucketMs: number;
  /** Missing in what earlier versions stored: tokens, at the worst case of the hold. */
  readonly unit?: "tokens" | "microdollars";
  readonly amount?: number;
}[];
export type RuleBucket = Bucket & { readonly rule: string };

/** A rule's window as it stands. */
export interface WindowState {
  readonly used: number;
  readonly resetMs: number;
  /** What a shadow rule would have refused in its period. */
  readonly wouldRefuse: number;
  /** Whether an alert rule was passed in its period. */
  readonly isAlerted: boolean;
}

/** A cap is never lowered below this: a shorter answer helps nobody. */
export const MIN_OUTPUT_TOKENS = 16;
const NO_CLAIMS: ReadonlyMap<string, number> = new Map();
/** Windows beside a rule's own, in front of its key, where no name of an end user can stand; they share its period. */
const WOULD_REFUSE = "!would_refuse/";
const ALERTED = "!alerted/";

/**
 * Keys of these kinds have their period as their second part (`spend/month@Europe.Berlin/project/`), slashes of a
 * time zone written as dots. All others, those of the first version (`rpm/…`, `tpm/…`), count minutes.
 */
const WITH_PERIOD: ReadonlySet<string> = new Set(["requests", "tokens", "spend"]);

export function periodOfKey(key: string): Period {
  const [kind = "", period = ""] = key.replace(WOULD_REFUSE, "").replace(ALERTED, "").split("/", 2);
  return WITH_PERIOD.has(kind) ? periodNamed(period.replaceAll(".", "/")) : MINUTE;
}

/** Windows as storage has them: everything that {@link RateWindows.takeDirty} gave out. */
export interface StoredWindows {
  buckets(rule: string): readonly Bucket[];
  /** Rules with buckets whose keys begin so, in order, those after `after`, at most `limit`. */
  rules(prefix: string, after: string, limit: number): readonly string[];
}

/** About 1 KB each. */
const MAX_WINDOWS = 4_096;
/** Stored rules that one listing looks at. */
const MAX_LISTED_RULES = 1_000;
const PAGE_RULES = 100;

interface RestoredWindows {
  /** All there are; or {@link stored}, where they are read when they are asked for. */
  readonly buckets?: readonly RuleBucket[];
  readonly stored?: StoredWindows | undefined;
  /** When the clock was last known to be, at least; it goes on from there. */
  readonly atMs: number;
  /** How far ahead of the clock leases may have counted. */
  readonly aheadMs?: number;
  /** Windows that stay in memory although nobody asks for them. */
  readonly maxWindows?: number;
}

/**
 * The rates and budgets of one tenant: a window per rule, and what waiting requests claim of it. All share one clock,
 * which {@link tick} moves and which never goes back. Windows that ran empty are dropped; where they are stored, those
 * that were asked for longest ago leave memory too, and come back when somebody asks.
 */
export class RateWindows {
  /** Where they are stored, in the order in which they were asked for. */
  readonly #windows = new Map<string, CountingWindow>();
  /** Rules that have nothing stored. */
  readonly #absent = new Set<string>();
  #stored: StoredWindows | undefined;
  #maxWindows = MAX_WINDOWS;
  #aheadMs = 0;
  /** Keys by period, each in the order in which its windows run empty. */
  readonly #order = new Map<string, Set<string>>();
  readonly #claims = new Map<string, number>();
  readonly #touched = new Set<string>();
  readonly #alerts: RateRule[] = [];
  #left: { rule: string; bucketMs: number }[] = [];
  #atMs = 0;

  static restore({ buckets = [], stored, atMs, aheadMs = 0, maxWindows }: RestoredWindows): RateWindows {
    const rates = new RateWindows();
    rates.#stored = stored;
    rates.#aheadMs = aheadMs;
    rates.#maxWindows = maxWindows ?? MAX_WINDOWS;
    const inOrder = [...buckets].sort((a, b) => b.bucketMs - a.bucketMs);
    const newestFirst = [...Map.groupBy(inOrder, (bucket) => bucket.rule)];
    for (const [rule, own] of newestFirst.reverse())
      rates.#keep(rule, CountingWindow.restore(own, periodOfKey(rule), aheadMs));
    rates.#atMs = Math.max(atMs, (inOrder[0]?.bucketMs ?? 0) - aheadMs);
    return rates;
  }

  /**
   * Moves the clock. @returns the time that counts: `nowMs`, or later where the clock went back
   * @throws RangeError for what is no time: one NaN would stop the clock forever
   */
  tick(nowMs: number): number {
    if (!Number.isFinite(nowMs)) throw new RangeError(`${nowMs} is no time`);
    this.#atMs = Math.max(this.#atMs, nowMs);
    for (const keys of this.#order.values()) {
      for (const rule of keys) {
        const window = this.#windows.get(rule);
        window?.total(this.#atMs);
        if (window && !window.isEmpty) break;
        for (const bucketMs of window?.takeDirty().remove ?? []) this.#left.push({ rule, bucketMs });
        this.#windows.delete(rule);
        keys.delete(rule);
      }
    }
    return this.#atMs;
  }

  /**
   * The cap for which every hard rate has room beside what is counted and claimed, or the refusal of the rate that
   * keeps the caller away longest. Its wait is exact as long as nothing else happens; where only those who wait stand
   * in the way, it is a full window, an estimate.
   */
  fit(draw: Draw, nowMs: number): { outputTokens: number } | RateRefusal {
    return this.#fit(draw, this.#claims, nowMs);
  }

  /** As {@link fit}, for one whose turn it is: the claims of those behind it do not stand in its way. */
  fitFirst(draw: Draw, nowMs: number): { outputTokens: number } | RateRefusal {
    return this.#fit(draw, NO_CLAIMS, nowMs);
  }

  /** Counts a draw now. @returns where its tokens and its money went */
  count(draw: Draw): Counted {
    const counted: { rule: string; bucketMs: number; unit: "tokens" | "microdollars"; amount: number }[] = [];
    for (const rule of draw.rates) this.#watch(rule, costOf(rule, draw));
    for (const rule of onceEach(draw.rates)) {
      const amount = costOf(rule, draw);
      const bucketMs = this.#add(rule.key, amount);
      if (rule.unit !== "requests") counted.push({ rule: rule.key, bucketMs, unit: rule.unit, amount });
    }
    return counted;
  }

  /** Counts so many draws at once, where their draw time ends. */
  countLease(
    draw: Draw,
    draws: number,
    untilMs: number,
  ): { readonly counted: Counted; readonly requestsCounted: { rule: string; bucketMs: number }[] } {
    const counted: { rule: string; bucketMs: number; unit: "tokens" | "microdollars"; amount: number }[] = [];
    const requestsCounted: { rule: string; bucketMs: number }[] = [];
    for (const rule of draw.rates) this.#watch(rule, costOf(rule, draw) * draws);
    for (const rule of onceEach(draw.rates)) {
      const amount = costOf(rule, draw) * draws;
      const bucketMs = this.#add(rule.key, amount, Math.max(0, untilMs - this.#atMs));
      if (rule.unit === "requests") requestsCounted.push({ rule: rule.key, bucketMs });
      else counted.push({ rule: rule.key, bucketMs, unit: rule.unit, amount });
    }
    return { counted, requestsCounted };
  }

  /** How often a draw like this fits beside everything else, at most `max`. */
  timesItFits(draw: Draw, max: number): number {
    let times = max;
    for (const rule of draw.rates) {
      const cost = costOf(rule, draw);
      if ((rule.mode ?? "hard") !== "hard" || cost === 0) continue;
      const room = rule.limit - this.#counted(rule.key) - (this.#claims.get(rule.key) ?? 0);
      times = Math.min(times, Math.floor(room / cost));
    }
    return Math.max(0, times);
  }

  /** Gives back amounts that are known, as far as their buckets still count. */
  giveBackUnused(counted: Counted, unused: { readonly tokens: number; readonly microdollars: number }): void {
    for (const { rule, bucketMs, unit = "tokens" } of counted) this.#correct(rule, bucketMs, -unused[unit]);
  }

  /** Gives back requests that were never made. */
  giveBackRequests(counted: readonly { readonly rule: string; readonly bucketMs: number }[], requests: number): void {
    for (const { rule, bucketMs } of counted) this.#correct(rule, bucketMs, -requests);
  }

  /**
   * Gives back to the buckets that counted them what was not used of tokens and money, as far as these still count.
   * What came on top of the worst case is the platform's loss.
   */
  giveBack(
    counted: Counted,
    worstTokens: number,
    used: { readonly tokens: number; readonly microdollars: number },
  ): void {
    for (const { rule, bucketMs, unit = "tokens", amount = worstTokens } of counted) {
      this.#correct(rule, bucketMs, -Math.max(0, amount - Math.max(0, used[unit])));
    }
  }

  claim(draw: Draw): void {
    this.#addClaims(draw, 1);
  }

  unclaim(draw: Draw): void {
    this.#addClaims(draw, -1);
  }

  /** Alert rules that were passed for the first time in their period since the last call. */
  takeAlerts(): RateRule[] {
    return this.#alerts.splice(0);
  }

  /** A window's state now; `used` is counted and claimed, `resetMs` the wait until nothing counts any more. */
  state(key: string, nowMs: number): WindowState {
    const used = this.#counted(key) + (this.#claims.get(key) ?? 0);
    const resetMs = this.#window(key)?.resetMs(nowMs) ?? 0;
    return {
      used,
      resetMs,
      wouldRefuse: this.#counted(WOULD_REFUSE + key),
      isAlerted: this.#counted(ALERTED + key) > 0,
    };
  }

  /** What a window has counted, without the claims of those who wait. */
  settledOf(key: string): number {
    return this.#counted(key);
  }

  /** How many are in memory. */
  get size(): number {
    return this.#windows.size;
  }

  /** Windows whose keys begin so and that count something, at most `limit`; of those that are stored, the first. */
  keys(prefix: string, limit: number): string[] {
    const found = new Set<string>();
    const counts = (key: string) => this.#counted(key) > 0 || this.#windows.get(key)?.isEmpty === false;
    for (const key of [...this.#windows.keys()].filter((one) => one.startsWith(prefix))) {
      if (found.size < limit && counts(key)) found.add(key);
    }
    let after = prefix;
    for (let listed = 0; found.size < limit && listed < MAX_LISTED_RULES; listed += PAGE_RULES) {
      const page = this.#stored?.rules(prefix, after, PAGE_RULES) ?? [];
      for (const key of page) if (found.size < limit && !found.has(key) && counts(key)) found.add(key);
      after = page.at(-1) ?? after;
      if (page.length < PAGE_RULES) break;
    }
    return [...found];
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
    this.#makeRoom();
    return { upsert, remove };
  }

  /** From memory, or from storage. */
  #window(key: string): CountingWindow | undefined {
    const known = this.#windows.get(key);
    if (!this.#stored || this.#absent.has(key)) return known;
    if (known) {
      this.#windows.delete(key);
      this.#windows.set(key, known);
      return known;
    }
    const buckets = this.#stored.buckets(key);
    const [newest] = [...buckets].sort((a, b) => b.bucketMs - a.bucketMs);
    if (!newest) {
      if (this.#absent.size >= this.#maxWindows) this.#absent.clear();
      this.#absent.add(key);
      return undefined;
    }
    this.#makeRoom();
    const window = CountingWindow.restore(buckets, periodOfKey(key), this.#aheadMs);
    this.#atMs = Math.max(this.#atMs, newest.bucketMs - this.#aheadMs);
    this.#keep(key, window);
    return window;
  }

  /** Those that were asked for longest ago leave, except what storage does not know yet. */
  #makeRoom(): void {
    if (!this.#stored) return;
    for (const [key, window] of this.#windows) {
      if (this.#windows.size < this.#maxWindows) return;
      if (window.isDirty) continue;
      this.#windows.delete(key);
      this.#order.get(window.period.name)?.delete(key);
      this.#touched.delete(key);
    }
  }

  #correct(rule: string, bucketMs: number, delta: number): void {
    this.#window(rule)?.correct(bucketMs, delta);
    this.#touched.add(rule);
  }

  #add(key: string, amount: number, aheadMs = 0): number {
    const window = this.#window(key) ?? new CountingWindow(periodOfKey(key));
    const bucketMs = window.add(amount, this.#atMs, aheadMs);
    this.#keep(key, window);
    this.#touched.add(key);
    return bucketMs;
  }

  /** At the end of its period's order: it runs empty last now. */
  #keep(key: string, window: CountingWindow): void {
    const { name } = window.period;
    const keys = this.#order.get(name) ?? new Set();
    this.#order.set(name, keys);
    keys.delete(key);
    keys.add(key);
    this.#absent.delete(key);
    this.#windows.set(key, window);
  }

  #watch(rule: RateRule, amount: number): void {
    if ((rule.mode ?? "hard") === "hard" || this.#counted(rule.key) + amount <= rule.limit) return;
    if (rule.mode === "shadow") this.#add(WOULD_REFUSE + rule.key, 1);
    else if (this.#counted(ALERTED + rule.key) === 0) {
      this.#add(ALERTED + rule.key, 1);
      this.#alerts.push(rule);
    }
  }

  #counted(rule: string): number {
    const window = this.#window(rule);
    if (!window) return 0;
    this.#touched.add(rule); // a look, too, lets buckets leave
    return window.total(this.#atMs);
  }

  #fit(draw: Draw, claims: ReadonlyMap<string, number>, nowMs: number): { outputTokens: number } | RateRefusal {
    const rates = draw.rates
      .filter(({ mode = "hard" }) => mode === "hard")
      .map((rule) => {
        const claimed = claims.get(rule.key) ?? 0;
        return { rule, claimed, used: this.#counted(rule.key) + claimed };
      });
    let { outputTokens } = draw;
    for (const { rule, used } of rates) {
      if (rule.unit === "requests" || !draw.outputLowerable) continue;
      outputTokens = Math.min(outputTokens, Math.max(affordable(rule, used, draw), MIN_OUTPUT_TOKENS));
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
    const { name, key, unit, limit } = rule;
    const refusal = { rule: name, key, unit, limit, used, requested: cost };
    if (cost > limit) return { ...refusal, retryAfterMs: 0, neverFits: true };
    const window = this.#window(key);
    const exact = window && cost + claimed <= limit;
    const retryAfterMs = exact ? window.retryAfterMs(cost + claimed, limit, nowMs) : periodOfKey(key).longestMs;
    return { ...refusal, retryAfterMs, neverFits: false };
  }

  #addClaims(draw: Draw, sign: 1 | -1): void {
    for (const rule of onceEach(draw.rates)) {
      const claimed = (this.#claims.get(rule.key) ?? 0) + sign * costOf(rule, draw);
      if (claimed === 0) this.#claims.delete(rule.key);
      else this.#claims.set(rule.key, claimed);
    }
  }
}

/** A shadow beside the hard limit of the same kind shares its window, which counts each call once. */
function onceEach(rates: readonly RateRule[]): RateRule[] {
  const byKey = new Map(rates.map((rule) => [rule.key, rule]));
  return byKey.size === rates.length ? [...rates] : [...byKey.values()];
}

const keepsAwayMs = (refusal: RateRefusal) => (refusal.neverFits ? Number.POSITIVE_INFINITY : refusal.retryAfterMs);

/** Output tokens per choice that a limit on tokens or money still has room for beside the prompt. */
function affordable(rule: RateRule, used: number, { promptTokens, choices, price }: Draw): number {
  const room = rule.limit - used;
  if (rule.unit === "tokens") return Math.floor((room - promptTokens) / choices);
  if (!price || price.output === 0) return Number.POSITIVE_INFINITY;
  return Math.floor((room * PER_MILLION - promptTokens * price.input) / price.output / choices);
}

const PER_MILLION = 1_000_000;

/** A worst case in whole micro-dollars, rounded up: what is settled never exceeds it. */
export const worstCaseMicrodollars = (price: TokenPrice, promptTokens: number, outputTokens: number): number =>
  Math.ceil((promptTokens * price.input + outputTokens * price.output) / PER_MILLION);

/** @throws RangeError for numbers that cannot be counted, before anything is */
function costOf(rule: RateRule, draw: Draw): number {
  const cost = amountOf(rule.unit, draw);
  if (!Number.isSafeInteger(cost) || cost < 0) throw new RangeError(`a cost of ${cost} cannot be counted`);
  return cost;
}

function amountOf(unit: RateUnit, { promptTokens, outputTokens, choices, price }: Draw): number {
  switch (unit) {
    case "requests":
      return 1;
    case "tokens":
      return promptTokens + outputTokens * choices;
    case "microdollars":
      return price ? worstCaseMicrodollars(price, promptTokens, outputTokens * choices) : 0;
  }
}
