import { DECISION_VERSION, type DecisionRecord } from "../src/core/records";

/** What a refusal says of the request that met it. */
export interface RefusedRequest {
  readonly requestId: string;
  readonly route: string;
  readonly keyId: string;
  readonly endUser: string | null;
  readonly model: string;
  readonly stream: boolean;
  readonly region: string;
  readonly policyVersion: number;
}

/**
 * Refusals as records: one for each (key, rule, second) with a count, so that a flood costs at most one row a second
 * for each rule. They are held in memory for that second; a crash may lose it, which the documents say.
 */
export class RefusalTally {
  readonly #counts = new Map<string, { first: RefusedRequest; rule: string; atMs: number; count: number }>();

  /** @returns whether this one opened a new second, so that somebody must come back for it */
  add(refused: RefusedRequest, rule: string, nowMs: number): boolean {
    const name = JSON.stringify([refused.keyId, rule]);
    const known = this.#counts.get(name);
    if (known) {
      known.count++;
      return false;
    }
    const isFirst = this.#counts.size === 0;
    this.#counts.set(name, { first: refused, rule, atMs: nowMs, count: 1 });
    return isFirst;
  }

  /** The records of the second that has passed. */
  take(): DecisionRecord[] {
    const records = [...this.#counts.values()].map(({ first, rule, atMs, count }) =>
      recordOf(first, rule, atMs, count),
    );
    this.#counts.clear();
    return records;
  }
}

/** What an alert says of the call that it stands beside. */
export function alertedBy({ id, ...decision }: DecisionRecord): RefusedRequest {
  const { route, keyId, endUser, model, stream, region, policyVersion } = decision;
  return { requestId: id, route, keyId, endUser, model, stream, region, policyVersion };
}

/** The record of a limit that only alerts, beside that of the call that passed it. */
export const alertRecord = (facts: RefusedRequest, rule: string, nowMs: number): DecisionRecord => ({
  ...recordOf(facts, rule, nowMs, 1),
  kind: "alert",
  outcome: "alerted",
});

function recordOf(first: RefusedRequest, rule: string, atMs: number, count: number): DecisionRecord {
  const { requestId, ...who } = first;
  return {
    v: DECISION_VERSION,
    id: requestId,
    atMs,
    kind: "refusal",
    outcome: "refused",
    rule,
    count,
    ...who,
    provider: null,
    providerModel: null,
    adapterDigest: null,
    promptVersion: null,
    featuresRead: [],
    guardVerdict: null,
    promptTokens: 0,
    completionTokens: 0,
    queuedMs: 0,
    firstTokenMs: null,
    totalMs: null,
  };
}
