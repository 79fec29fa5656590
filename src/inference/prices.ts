import { z } from "zod";
import type { PriceBook } from "../core/prices";

/** US dollars per million tokens, as price lists write them; counted in whole micro-dollars. */
const Dollars = z
  .number()
  .min(0)
  .max(1_000_000)
  .transform((dollars) => Math.round(dollars * 1_000_000));
const ModelPrice = z
  .strictObject({ input: Dollars, cached_input: Dollars.optional(), output: Dollars })
  .transform(({ input, output, cached_input }) => ({ input, output, cachedInput: cached_input ?? input }))
  .nullable()
  .default(null);

/** Versioned configuration: `price` is what tenants pay, `cost` what the provider asks. */
const Document = z.strictObject({
  price_version: z.string().min(1),
  cost_version: z.string().min(1),
  models: z.record(z.string(), z.strictObject({ price: ModelPrice, cost: ModelPrice })),
});

/** @throws ZodError when the configuration is no price book */
export function parsePrices(document: unknown): PriceBook {
  const { price_version, cost_version, models } = Document.parse(document);
  return { priceVersion: price_version, costVersion: cost_version, models };
}
