import { z } from "zod";
import type { Compared } from "../core/reconciliation";
import { ApiError } from "../errors";
import { allocateCosts, type ProjectCosts } from "../metering/allocation";
import { type BookPeriod, wholeHours } from "../metering/books";
import { reconcile } from "../metering/reconcile";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { seconds } from "./lists";
import { parse } from "./parse";

const MICRODOLLARS = 1_000_000;
/** More hours than a quarter of a year are asked for in parts. */
const MAX_SECONDS = 100 * 86_400;

const Seconds = z.int().min(0).max(1e11);
const Count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const Dollars = z.number().min(0).max(1e9);
const Name = z.string().min(1).max(256);
const Period = { start_time: Seconds, end_time: Seconds.optional() };

const Reconciliation = z.strictObject({
  ...Period,
  project_ids: z.array(Name).max(100).default([]),
  meters: z
    .array(
      z.strictObject({
        provider_model: Name,
        requests: Count,
        input_tokens: Count,
        output_tokens: Count,
        /** Of the input tokens, those at the price of cached ones. */
        input_cached_tokens: Count.default(0),
        /** Dollars that the provider asks; from the tokens, at the costs in force, where it is missing. */
        cost: Dollars.nullish(),
      }),
    )
    .max(1_000)
    .default([]),
});

/** Books beside books and beside the providers' meters; what nothing explains stands in `unexplained`. */
export const postReconciliation: Handler = async (c) => {
  const asked = parse(Reconciliation, await readJson(c.req.raw));
  const period = periodOf(asked);
  const readings = asked.meters.map(({ cost, ...meter }) => ({
    providerModel: meter.provider_model,
    requests: meter.requests,
    inputTokens: meter.input_tokens,
    cachedTokens: meter.input_cached_tokens,
    outputTokens: meter.output_tokens,
    costMicrodollars: cost == null ? null : Math.round(cost * MICRODOLLARS),
  }));
  const { services, tenant } = c.var;
  const { projects, models } = await reconcile(services, tenant, period, asked.project_ids, readings);
  const projectRows = projects.map(({ projectId, events, price, cost }) => ({
    ...{ project_id: projectId, events, price: dollars(price), cost: dollars(cost) },
  }));
  const modelRows = models.map(({ providerModel, requests, tokens, cost }) => ({
    ...{ provider_model: providerModel, requests, tokens, cost: dollars(cost) },
  }));
  const compared = [
    ...projects.flatMap(({ events, price, cost }) => [events, price, cost]),
    ...models.flatMap(({ requests, tokens, cost }) => [requests, tokens, cost]),
  ];
  return c.json({
    object: "tenantry.reconciliation",
    ...periodToWire(period),
    is_balanced: compared.every(({ unexplained }) => unexplained === 0),
    projects: projectRows,
    models: modelRows,
  });
};

const Allocation = z.strictObject({
  ...Period,
  shared_costs: z
    .array(z.strictObject({ name: Name, cost: Dollars, models: z.array(Name).min(1).max(1_000).optional() }))
    .max(100)
    .default([]),
});

/** What each project brought and what it cost, its part of shared costs included. */
export const postCostAllocation: Handler = async (c) => {
  const asked = parse(Allocation, await readJson(c.req.raw));
  const names = asked.shared_costs.map(({ name }) => name);
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (twice >= 0) {
    const param = `shared_costs[${twice}].name`;
    throw new ApiError("invalid_value", `'${param}' stands there twice.`, { param });
  }
  const { catalogue } = c.var.services.pipeline;
  const shared = asked.shared_costs.map(({ name, cost, models }) => ({
    name,
    microdollars: Math.round(cost * MICRODOLLARS),
    models: models?.map((model) => catalogue.find(model)?.name ?? model) ?? null,
  }));
  const period = periodOf(asked);
  const projects = await allocateCosts(c.var.services, c.var.tenant, period, shared);
  const data = projects.map(projectToWire);
  return c.json({ object: "list", ...periodToWire(period), data, has_more: false });
};

function projectToWire({ projectId, requests, priceMicrodollars, directMicrodollars, shared }: ProjectCosts) {
  const sharedMicrodollars = [...shared.values()].reduce((sum, part) => sum + part, 0);
  return {
    object: "tenantry.project_costs" as const,
    ...{ project_id: projectId, requests },
    price: priceMicrodollars / MICRODOLLARS,
    direct_cost: directMicrodollars / MICRODOLLARS,
    shared_costs: [...shared].map(([name, part]) => ({ name, cost: part / MICRODOLLARS })),
    margin: (priceMicrodollars - directMicrodollars - sharedMicrodollars) / MICRODOLLARS,
  };
}

function periodOf(asked: { readonly start_time: number; readonly end_time?: number | undefined }): BookPeriod {
  const end = asked.end_time ?? seconds(Date.now());
  if (end <= asked.start_time) {
    throw new ApiError("invalid_value", "'end_time' must be after 'start_time'.", { param: "end_time" });
  }
  if (end - asked.start_time > MAX_SECONDS) {
    throw new ApiError("invalid_value", "Ask for at most 100 days at once.", { param: "start_time" });
  }
  return wholeHours(asked.start_time * 1000, end * 1000);
}

const periodToWire = ({ fromMs, toMs }: BookPeriod) => ({ start_time: seconds(fromMs), end_time: seconds(toMs) });

const dollars = ({ booked, metered, difference, unexplained }: Compared): Compared => ({
  booked: booked / MICRODOLLARS,
  metered: metered / MICRODOLLARS,
  difference: difference / MICRODOLLARS,
  unexplained: unexplained / MICRODOLLARS,
});
