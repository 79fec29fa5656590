/** Money of one model that was not booked yet because it is less than a micro-dollar: picodollars, 0 to 999,999. */
export interface Remainder {
  readonly price: number;
  readonly cost: number;
}

const PICO_PER_MICRO = 1_000_000;
const NONE: Remainder = { price: 0, cost: 0 };

/**
 * Books whole micro-dollars and carries the rest to the model's next call, so that the sum of many small calls is
 * right to one micro-dollar. A call is never booked above its exact price rounded up, which is what was reserved.
 */
export class Remainders {
  readonly #byModel = new Map<string, Remainder>();

  /** What a model carried when it was last booked. */
  restore(model: string, remainder: Remainder): void {
    this.#byModel.set(model, remainder);
  }

  has(model: string): boolean {
    return this.#byModel.has(model);
  }

  of(model: string): Remainder {
    return this.#byModel.get(model) ?? NONE;
  }

  /**
   * @param price exact, in picodollars; null where the model has none
   * @returns whole micro-dollars
   */
  book(
    model: string,
    { price, cost }: { readonly price: number | null; readonly cost: number | null },
  ): { readonly price: number | null; readonly cost: number | null } {
    const before = this.of(model);
    const priced = carry(price, before.price);
    const costing = carry(cost, before.cost);
    this.#byModel.set(model, { price: priced.rest, cost: costing.rest });
    return { price: priced.whole, cost: costing.whole };
  }
}

function carry(exact: number | null, rest: number): { readonly whole: number | null; readonly rest: number } {
  if (exact === null) return { whole: null, rest };
  const total = exact + rest;
  return { whole: Math.floor(total / PICO_PER_MICRO), rest: total % PICO_PER_MICRO };
}
