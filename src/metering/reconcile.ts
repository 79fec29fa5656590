import { microdollarsOf, type PriceBook, pricesOf } from "../core/prices";
import { type Compared, compareExactly, compareWithMeter } from "../core/reconciliation";
import type { ModelCatalogue } from "../inference/catalogue";
import type { TenantContext } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import type { TenancyPorts } from "../tenancy/ports";
import { enterProject } from "../tenancy/projects";
import { add, type Booked, type BookPeriod, nothing, readBooks } from "./books";

/** What a provider's own meter says of one of its models. */
export interface MeterReading {
  readonly providerModel: string;
  readonly requests: number;
  readonly inputTokens: number;
  /** Of the input tokens. */
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** What it asks for that; null to be computed from the tokens, by the costs in force. */
  readonly costMicrodollars: number | null;
}

export interface ReconcilePorts extends TenancyPorts {
  readonly pipeline: { readonly catalogue: ModelCatalogue };
  readonly prices: PriceBook;
}

/** One project's journal beside what the ledger reports, and so what `/v1/organization/costs` adds up. */
export interface ProjectBalance {
  readonly projectId: string;
  readonly events: Compared;
  readonly price: Compared;
  readonly cost: Compared;
}
export interface ModelBalance {
  readonly providerModel: string;
  readonly requests: Compared;
  readonly tokens: Compared;
  readonly cost: Compared;
}
export interface Reconciliation {
  readonly projects: readonly ProjectBalance[];
  readonly models: readonly ModelBalance[];
}

/** Projects that are asked at once. */
const AT_ONCE = 10;

/**
 * Compares, for whole hours, each project's journal with the ledger, and the ledger with the providers' own meters.
 * The journals are asked first: each hands what the ledger does not have yet to it before it answers.
 */
export async function reconcile(
  ports: ReconcilePorts,
  operator: TenantContext,
  period: BookPeriod,
  projectIds: readonly string[],
  readings: readonly MeterReading[],
): Promise<Reconciliation> {
  const journals: { projectId: string; events: number; priceMicrodollars: number; costMicrodollars: number }[] = [];
  for (let from = 0; from < projectIds.length; from += AT_ONCE) {
    const asked = projectIds.slice(from, from + AT_ONCE).map(async (projectId) => {
      const gate = ports.gate(await enterProject(ports, operator, projectId));
      const sums = await askGate(() => gate.journalSums(period.fromMs, period.toMs), "storage_unavailable");
      return { projectId, ...sums };
    });
    journals.push(...(await Promise.all(asked)));
  }
  const books = await readBooks(ports, operator, period, null);
  const projects = journals.map(({ projectId, events, priceMicrodollars, costMicrodollars }) => {
    const own = totalOf(books.filter((book) => book.projectId === projectId));
    return {
      projectId,
      events: compareExactly(own.requests, events),
      price: compareExactly(own.priceMicrodollars, priceMicrodollars),
      cost: compareExactly(own.costMicrodollars, costMicrodollars),
    };
  });
  const { catalogue } = ports.pipeline;
  const models = readings.map((reading) => {
    const { providerModel } = reading;
    const booked = totalOf(books.filter((book) => providerModelOf(catalogue, book.model) === providerModel));
    return balanceOf(booked, reading, costOf(ports, reading));
  });
  return { projects, models };
}

function balanceOf(booked: Booked, { providerModel, ...read }: MeterReading, costMicrodollars: number): ModelBalance {
  const { requests, inputTokens, outputTokens, estimates } = booked;
  const compared = compareWithMeter(
    { requests, tokens: inputTokens + outputTokens, costMicrodollars: booked.costMicrodollars },
    estimates,
    { requests: read.requests, tokens: read.inputTokens + read.outputTokens, costMicrodollars },
  );
  return { providerModel, requests: compared.requests, tokens: compared.tokens, cost: compared.costMicrodollars };
}

/** Where the meter counts no money: its tokens at the costs in force. */
function costOf({ pipeline, prices }: ReconcilePorts, reading: MeterReading): number {
  if (reading.costMicrodollars !== null) return reading.costMicrodollars;
  const model = pipeline.catalogue.models.find(({ providerModel }) => providerModel === reading.providerModel);
  const { cost } = pricesOf(prices, model?.name ?? "");
  const { inputTokens: promptTokens, outputTokens: completionTokens, cachedTokens } = reading;
  return cost ? microdollarsOf(cost, { promptTokens, completionTokens, cachedTokens }) : 0;
}

/** A model that the catalogue has no more is known by the name it had. */
const providerModelOf = (catalogue: ModelCatalogue, name: string) => catalogue.find(name)?.providerModel ?? name;

function totalOf(books: readonly { readonly booked: Booked }[]): Booked {
  const total = nothing();
  for (const { booked } of books) add(total, booked);
  return total;
}
