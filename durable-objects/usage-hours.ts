import { type Estimates, NO_ESTIMATES } from "../src/core/reconciliation";
import type { UsageEvent } from "../src/core/records";
import { NO_REMAINDER, type Remainder } from "../src/core/remainders";
import type { HourlyUsage } from "./tenant-gate.messages";
import type { Statements, UsageKey } from "./tenant-gate-statements";

/** In the place of an end user where there is none: no subject is empty. */
const NOBODY = "";
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** Usage of one hour as the gate stores it. */
export interface StoredHour extends HourlyUsage {
  /** Stamp of the newest event; missing in hours of earlier versions. */
  readonly lastEventMs?: number;
  /** What its newest event left of its model's money, and that event's number in the journal. */
  readonly remainder?: Remainder & { readonly seq: number };
}

/** An hour that the ledger may not have yet. */
export interface UnsyncedHour {
  readonly key: UsageKey;
  readonly usage: StoredHour;
  /** The ledger has it now; does nothing where the hour grew meanwhile. */
  readonly markSynced: () => void;
}

/** A gate's usage by hour and combination, in absolute numbers. Counting changes memory; `save` writes what changed. */
export class UsageHours {
  readonly #sql: Statements;
  readonly #changed = new Map<string, StoredHour>(); // since the last save
  /** By model, as its last event left it; read when a model is first called after a start. */
  readonly #remainders = new Map<string, Remainder>();

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  /** What the model's last call left: no row of its own, the hour of that call has it. */
  remainderOf(model: string): Remainder {
    const known = this.#remainders.get(model) ?? this.#storedRemainder(model);
    this.#remainders.set(model, known);
    return known;
  }

  /** @param seq the event's number in the journal */
  count(event: UsageEvent, seq: number, remainder: Remainder): void {
    const hourMs = event.atMs - (event.atMs % HOUR_MS);
    const { kind, model, keyId, serviceTier, batch, endUser } = event;
    const empty: StoredHour = { hourMs, kind, model, keyId, serviceTier, batch, endUser, ...ZERO };
    const key = usageKey(empty);
    const name = JSON.stringify(key);
    const stored = this.#changed.get(name) ?? this.#stored(key) ?? empty;
    this.#changed.set(name, { ...counted(stored, event), remainder: { ...remainder, seq } });
    this.#remainders.set(model, remainder);
  }

  save(): void {
    for (const usage of this.#changed.values()) this.#sql.putUsageHour(usageKey(usage), JSON.stringify(usage));
    this.#changed.clear();
  }

  /** Durable hours that the ledger may not have yet, in the order of their keys. */
  unsynced(after: UsageKey | null, limit: number): UnsyncedHour[] {
    return this.#sql.unsyncedUsage(after, limit).map(({ body }) => {
      const usage = usageOf(body);
      const key = usageKey(usage);
      return { key, usage, markSynced: () => this.#sql.markSynced(key, body) };
    });
  }

  #storedRemainder(model: string): Remainder {
    const hours = this.#sql.newestHoursOf(model).map(({ body }) => usageOf(body).remainder);
    const newest = hours.reduce((latest, one) => ((one?.seq ?? 0) > (latest?.seq ?? 0) ? one : latest), undefined);
    return newest ? { price: newest.price, cost: newest.cost } : NO_REMAINDER;
  }

  #stored(key: UsageKey): StoredHour | undefined {
    const row = this.#sql.usageHour(key);
    return row && usageOf(row.body);
  }
}

/** When each key was last used, by the hours given. */
export function lastUsed(hours: readonly StoredHour[]): Record<string, number> {
  const byKey = new Map<string, number>();
  for (const hour of hours) byKey.set(hour.keyId, Math.max(byKey.get(hour.keyId) ?? 0, lastEventOf(hour)));
  return Object.fromEntries(byKey);
}

/** Hours of earlier versions know the minute alone. */
const lastEventOf = ({ lastEventMs, hourMs, minutes }: StoredHour): number =>
  lastEventMs ?? hourMs + Math.max(0, ...Object.keys(minutes).map(Number)) * MINUTE_MS;

const ZERO = {
  requests: 0,
  inputTokens: 0,
  cachedTokens: 0,
  outputTokens: 0,
  priceMicrodollars: 0,
  costMicrodollars: 0,
  minutes: {},
  estimates: NO_ESTIMATES,
} as const;

/** Hours of earlier versions know no end users and no estimates. */
const usageOf = (body: string): StoredHour => {
  const stored = JSON.parse(body) as Omit<StoredHour, "endUser" | "estimates"> & Partial<StoredHour>;
  return { ...stored, endUser: stored.endUser ?? null, estimates: stored.estimates ?? NO_ESTIMATES };
};

function counted(usage: StoredHour, event: UsageEvent): StoredHour {
  const minute = String(Math.floor((event.atMs - usage.hourMs) / MINUTE_MS));
  const [requests, input, cached, output] = usage.minutes[minute] ?? [0, 0, 0, 0];
  const { promptTokens, cachedTokens, completionTokens } = event;
  return {
    ...usage,
    requests: usage.requests + 1,
    inputTokens: usage.inputTokens + promptTokens,
    cachedTokens: usage.cachedTokens + cachedTokens,
    outputTokens: usage.outputTokens + completionTokens,
    priceMicrodollars: usage.priceMicrodollars + (event.priceMicrodollars ?? 0),
    costMicrodollars: usage.costMicrodollars + (event.costMicrodollars ?? 0),
    minutes: {
      ...usage.minutes,
      [minute]: [requests + 1, input + promptTokens, cached + cachedTokens, output + completionTokens],
    },
    estimates: withEstimates(usage.estimates, event),
    lastEventMs: Math.max(usage.lastEventMs ?? 0, event.atMs),
  };
}

function withEstimates(before: Estimates, event: UsageEvent): Estimates {
  if (!event.estimated) return before;
  return {
    ...before,
    requests: before.requests + 1,
    tokens: before.tokens + event.promptTokens + event.completionTokens,
    costMicrodollars: before.costMicrodollars + (event.costMicrodollars ?? 0),
    unseenTokens: before.unseenTokens + (event.unseen?.tokens ?? 0),
    unseenCostMicrodollars: before.unseenCostMicrodollars + (event.unseen?.costMicrodollars ?? 0),
  };
}

const usageKey = (usage: HourlyUsage): UsageKey => [
  usage.hourMs,
  usage.kind,
  usage.model,
  usage.keyId,
  usage.serviceTier,
  usage.batch ? 1 : 0,
  usage.endUser ?? NOBODY,
];
