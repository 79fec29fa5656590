/**
 * Prices of models. Money is integer micro-dollars; a price is whole micro-dollars per million tokens. A call is
 * priced by what was in force when it was admitted, whatever changes meanwhile.
 */
export interface ModelPrice {
  readonly input: number;
  /** Of prompt tokens that the provider had cached. */
  readonly cachedInput: number;
  readonly output: number;
}

/** Two ledgers: what the tenant pays, and what the provider asks. Each has its version. */
export interface PriceBook {
  readonly priceVersion: string;
  readonly costVersion: string;
  /** By public model name; a model that is missing, or null, is not priced. */
  readonly models: Readonly<Record<string, { readonly price: ModelPrice | null; readonly cost: ModelPrice | null }>>;
}

/** The prices of one call, as they were when it was admitted. */
export interface CallPrices {
  readonly price: ModelPrice | null;
  readonly priceVersion: string | null;
  readonly cost: ModelPrice | null;
  readonly costVersion: string | null;
}

const PER_MILLION = 1_000_000;

export function pricesOf(book: PriceBook, model: string): CallPrices {
  const { price, cost } = (Object.hasOwn(book.models, model) ? book.models[model] : undefined) ?? NOTHING;
  return {
    price,
    priceVersion: price && book.priceVersion,
    cost,
    costVersion: cost && book.costVersion,
  };
}
const NOTHING = { price: null, cost: null };
export const UNPRICED: CallPrices = { price: null, priceVersion: null, cost: null, costVersion: null };

interface PricedTokens {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

/** What tokens cost exactly, in picodollars: whole, since a price is whole micro-dollars per million tokens. */
export function picodollarsOf(price: ModelPrice, tokens: PricedTokens): number {
  const cached = Math.min(tokens.cachedTokens, tokens.promptTokens);
  const fresh = tokens.promptTokens - cached;
  // Cached tokens never cost more than fresh ones, or a worst case would not be one.
  const cachedInput = Math.min(price.cachedInput, price.input);
  return fresh * price.input + cached * cachedInput + tokens.completionTokens * price.output;
}

/** The same rounded to the nearest micro-dollar: never above the worst case, which is rounded up. */
export const microdollarsOf = (price: ModelPrice, tokens: PricedTokens): number =>
  Math.round(picodollarsOf(price, tokens) / PER_MILLION);
