/** Of one model: money that no call was booked for yet, since it is less than a micro-dollar. Picodollars, below 10⁶. */
export interface Remainder {
  readonly price: number;
  readonly cost: number;
}

export const NO_REMAINDER: Remainder = { price: 0, cost: 0 };
const PICO_PER_MICRO = 1_000_000;

/**
 * Whole micro-dollars of an exact amount together with what was left before, and what is left now: so the sum of many
 * small calls is right to one micro-dollar. Never above the exact amount rounded up, which is what was reserved.
 * @param picodollars exact, whole; null where nothing is priced
 */
export function booked(
  picodollars: number | null,
  restBefore: number,
): { readonly microdollars: number | null; readonly rest: number } {
  if (picodollars === null) return { microdollars: null, rest: restBefore };
  const total = picodollars + restBefore;
  return { microdollars: Math.floor(total / PICO_PER_MICRO), rest: total % PICO_PER_MICRO };
}
