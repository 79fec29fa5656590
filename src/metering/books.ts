import { addEstimates, type Estimates, NO_ESTIMATES } from "../core/reconciliation";
import { CALL_KINDS } from "../core/records";
import { allRollups, type ProjectUsage } from "../data/ledger";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";

const HOUR_MS = 3_600_000;

/** Whole hours, so that rollups say all of it. */
export interface BookPeriod {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The hours that a time touches. */
export const wholeHours = (fromMs: number, toMs: number): BookPeriod => ({
  fromMs: fromMs - (fromMs % HOUR_MS),
  toMs: Math.ceil(toMs / HOUR_MS) * HOUR_MS,
});

/** What the ledger says of one project and one model. */
export interface Booked {
  requests: number;
  inputTokens: number;
  outputTokens: number;
  priceMicrodollars: number;
  costMicrodollars: number;
  estimates: Estimates;
}

/** Everything that the ledger has of a time, by project and model. */
export async function readBooks(
  ports: TenancyPorts,
  operator: TenantContext,
  period: BookPeriod,
  projectIds: readonly string[] | null,
): Promise<{ readonly projectId: string; readonly model: string; readonly booked: Booked }[]> {
  const books = new Map<string, { projectId: string; model: string; booked: Booked }>();
  for (const kind of CALL_KINDS) {
    for await (const row of allRollups(ports.data(operator), { ...period, kind, projectIds })) {
      const { projectId, model } = row;
      const name = JSON.stringify([projectId, model]);
      const known = books.get(name) ?? { projectId, model, booked: nothing() };
      add(known.booked, row);
      books.set(name, known);
    }
  }
  return [...books.values()];
}

export const nothing = (): Booked => ({
  requests: 0,
  inputTokens: 0,
  outputTokens: 0,
  priceMicrodollars: 0,
  costMicrodollars: 0,
  estimates: NO_ESTIMATES,
});

export function add(to: Booked, more: Booked | ProjectUsage): void {
  to.requests += more.requests;
  to.inputTokens += more.inputTokens;
  to.outputTokens += more.outputTokens;
  to.priceMicrodollars += more.priceMicrodollars;
  to.costMicrodollars += more.costMicrodollars;
  to.estimates = addEstimates(to.estimates, more.estimates);
}
