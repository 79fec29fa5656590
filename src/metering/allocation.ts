import { allocate, weightOf } from "../core/cost-allocation";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { add, type Booked, type BookPeriod, nothing, readBooks } from "./books";

/** A cost that no single call made. */
export interface SharedCost {
  readonly name: string;
  readonly microdollars: number;
  /** Public names of the models that it is for; null for all of them. */
  readonly models: readonly string[] | null;
}

/** What one project brought and cost. */
export interface ProjectCosts {
  readonly projectId: string;
  readonly requests: number;
  readonly priceMicrodollars: number;
  /** Of the providers, for its own calls. */
  readonly directMicrodollars: number;
  /** Its part of each shared cost, by name. */
  readonly shared: ReadonlyMap<string, number>;
}

/**
 * What each project cost in whole hours. A shared cost is divided by weighted tokens (input + 2 × output) of the
 * models that it is for; its parts add up to exactly what it was.
 */
export async function allocateCosts(
  ports: TenancyPorts,
  operator: TenantContext,
  period: BookPeriod,
  shared: readonly SharedCost[],
): Promise<ProjectCosts[]> {
  const books = await readBooks(ports, operator, period, null);
  const totals = new Map<string, Booked>();
  for (const { projectId, booked } of books) {
    const total = totals.get(projectId) ?? nothing();
    add(total, booked);
    totals.set(projectId, total);
  }
  const parts = shared.map(({ name, microdollars, models }) => {
    const shares = new Map<string, number>();
    for (const { projectId, model, booked } of books) {
      if (models !== null && !models.includes(model)) continue;
      shares.set(projectId, (shares.get(projectId) ?? 0) + weightOf(booked));
    }
    return { name, of: allocate(microdollars, shares) };
  });
  return [...totals].map(([projectId, total]) => ({
    projectId,
    requests: total.requests,
    priceMicrodollars: total.priceMicrodollars,
    directMicrodollars: total.costMicrodollars,
    shared: new Map(parts.map(({ name, of }) => [name, of.get(projectId) ?? 0])),
  }));
}
