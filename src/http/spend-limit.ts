import { z } from "zod";
import { ApiError } from "../errors";
import { readMonthlySpend, setMonthlySpend } from "../tenancy/limits";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

/** The contract counts whole cents. */
const MICRODOLLARS_PER_CENT = 10_000;
const Body = z.strictObject({
  threshold_amount: z.int().min(1).max(100_000_000_000),
  currency: z.literal("USD"),
  interval: z.literal("month"),
});

export const getSpendLimit: Handler = async (c) => c.json(await spendLimitToWire(c));

export const postSpendLimit: Handler = async (c) => {
  const { threshold_amount } = parse(Body, await readJson(c.req.raw));
  await setMonthlySpend(c.var.services, c.var.tenant, projectId(c), threshold_amount * MICRODOLLARS_PER_CENT);
  return c.json(await spendLimitToWire(c));
};

export const removeSpendLimit: Handler = async (c) => {
  await setMonthlySpend(c.var.services, c.var.tenant, projectId(c), null);
  return c.json({ object: "project.spend_limit.deleted", deleted: true });
};

async function spendLimitToWire(c: AppContext) {
  const { microdollars, isEnforcing } = await readMonthlySpend(c.var.services, c.var.tenant, projectId(c));
  if (microdollars === null) throw new ApiError("not_found", "This project has no spend limit.");
  return {
    object: "project.spend_limit" as const,
    threshold_amount: microdollars / MICRODOLLARS_PER_CENT,
    currency: "USD",
    interval: "month",
    enforcement: { status: isEnforcing ? "enforcing" : "inactive" },
  };
}
