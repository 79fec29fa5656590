import { chainHash, GENESIS, receipt } from "../src/core/hash-chain";
import { type Estimates, NO_ESTIMATES } from "../src/core/reconciliation";
import type { DecisionRecord, UsageEvent } from "../src/core/records";
import type { HourlyUsage, JournalRow } from "./tenant-gate.messages";
import type { JournalDbRow, Statements } from "./tenant-gate-statements";

/** In the place of an end user where there is none: no subject is empty. */
const NOBODY = "";
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/**
 * The journal's tail in a gate: decisions in a hash chain, usage events beside them, and usage by hour. Appending
 * changes memory; `save` writes what was appended since, inside the group's transaction.
 */
export class GateJournal {
  readonly #sql: Statements;
  readonly #sha256: (text: string) => string;
  #lastSeq: number;
  #lastHash: string;
  #unsaved: JournalDbRow[] = [];
  readonly #hours = new Map<string, HourlyUsage>(); // those touched since the last save
  readonly #lastUsedMs = new Map<string, number>();

  constructor(sql: Statements, sha256: (text: string) => string) {
    this.#sql = sql;
    this.#sha256 = sha256;
    const last = sql.lastJournalRow();
    const sealed = sql.segments().at(-1);
    this.#lastSeq = last?.seq ?? sealed?.last_seq ?? 0;
    this.#lastHash = last?.hash ?? sealed?.last_hash ?? GENESIS;
  }

  /** @returns the receipt of the appended decision */
  append(decision: DecisionRecord, event: UsageEvent | null): string {
    const seq = this.#lastSeq + 1;
    // The event is part of what is chained: a changed bill breaks the chain as a changed decision does.
    const hash = chainHash(this.#lastHash, seq, { decision, event }, this.#sha256);
    this.#unsaved.push({
      seq,
      id: decision.id,
      at_ms: decision.atMs,
      hash,
      event: event && JSON.stringify(event),
      decision: JSON.stringify(decision),
    });
    this.#lastSeq = seq;
    this.#lastHash = hash;
    if (event) this.#count(event);
    return receipt(seq, hash);
  }

  /** The receipt of a call that is already recorded, so that settling twice answers as settling once. */
  recorded(requestId: string): { readonly receipt: string; readonly event: UsageEvent } | undefined {
    const unsaved = this.#unsaved.find((row) => row.id === requestId && row.event !== null);
    const row = unsaved ?? this.#sql.eventRow(requestId);
    if (!row?.event) return undefined;
    return { receipt: receipt(row.seq, row.hash), event: JSON.parse(row.event) as UsageEvent };
  }

  /** @param park takes a row that storage does not */
  save(park: (row: JournalDbRow, error: unknown) => void): void {
    for (const row of this.#unsaved) {
      try {
        this.#sql.appendJournal(row);
      } catch (error) {
        park(row, error);
      }
    }
    for (const usage of this.#hours.values()) this.#sql.putUsageHour(usageKey(usage), JSON.stringify(usage));
    this.#unsaved = [];
    this.#hours.clear();
  }

  /** Durable hours that the ledger may not have yet. */
  unsynced(): { readonly usage: HourlyUsage; readonly markSynced: () => void }[] {
    return this.#sql.unsyncedUsage().map(({ body }) => {
      const usage = usageOf(body);
      return { usage, markSynced: () => this.#sql.markSynced(usageKey(usage), body) };
    });
  }

  /** When each key was last used, since the last time somebody asked. */
  takeLastUsed(): Record<string, number> {
    const taken = Object.fromEntries(this.#lastUsedMs);
    this.#lastUsedMs.clear();
    return taken;
  }

  #count(event: UsageEvent): void {
    const hourMs = event.atMs - (event.atMs % HOUR_MS);
    const { kind, model, keyId, serviceTier, batch, endUser } = event;
    const empty: HourlyUsage = { hourMs, kind, model, keyId, serviceTier, batch, endUser, ...ZERO };
    const key = usageKey(empty);
    const name = JSON.stringify(key);
    const stored = this.#hours.get(name) ?? this.#storedHour(key) ?? empty;
    this.#hours.set(name, counted(stored, event));
    this.#lastUsedMs.set(keyId, event.atMs);
  }

  #storedHour(key: ReturnType<typeof usageKey>): HourlyUsage | undefined {
    const row = this.#sql.usageHour(key);
    return row && usageOf(row.body);
  }
}

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
const usageOf = (body: string): HourlyUsage => {
  const stored = JSON.parse(body) as Omit<HourlyUsage, "endUser" | "estimates"> & Partial<HourlyUsage>;
  return { ...stored, endUser: stored.endUser ?? null, estimates: stored.estimates ?? NO_ESTIMATES };
};

function counted(usage: HourlyUsage, event: UsageEvent): HourlyUsage {
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
  };
}

function withEstimates(before: Estimates, event: UsageEvent): Estimates {
  const overrunTokens = before.overrunTokens + event.overrunTokens;
  if (!event.estimated) return { ...before, overrunTokens };
  return {
    requests: before.requests + 1,
    tokens: before.tokens + event.promptTokens + event.completionTokens,
    costMicrodollars: before.costMicrodollars + (event.costMicrodollars ?? 0),
    unseenTokens: before.unseenTokens + (event.unseen?.tokens ?? 0),
    unseenCostMicrodollars: before.unseenCostMicrodollars + (event.unseen?.costMicrodollars ?? 0),
    overrunTokens,
  };
}

const usageKey = (usage: HourlyUsage) =>
  [
    usage.hourMs,
    usage.kind,
    usage.model,
    usage.keyId,
    usage.serviceTier,
    usage.batch ? 1 : 0,
    usage.endUser ?? NOBODY,
  ] as const;

export const journalRowOf = (row: JournalDbRow): JournalRow => ({
  seq: row.seq,
  hash: row.hash,
  decision: JSON.parse(row.decision) as DecisionRecord,
});
