/**
 * Compares what was booked with what somebody else counted. Every difference is either explained by calls whose usage
 * nobody reported, or by rounding, or it is not: an event that was lost, booked twice, or mispriced. Money is integer
 * micro-dollars. Pure.
 */
export interface Counted {
  readonly requests: number;
  readonly tokens: number;
  readonly costMicrodollars: number;
}

/** What excuses a difference: mostly calls whose provider reported no usage, booked by an estimate. */
export interface Estimates {
  readonly requests: number;
  readonly tokens: number;
  readonly costMicrodollars: number;
  readonly unseenTokens: number;
  readonly unseenCostMicrodollars: number;
  /** Above the reservation: in the provider's count and in the cost, never among the tenant's tokens. */
  readonly overrunTokens: number;
}

export const NO_ESTIMATES: Estimates = {
  requests: 0,
  tokens: 0,
  costMicrodollars: 0,
  unseenTokens: 0,
  unseenCostMicrodollars: 0,
  overrunTokens: 0,
};

export const addEstimates = (a: Estimates, b: Estimates): Estimates => ({
  requests: a.requests + b.requests,
  tokens: a.tokens + b.tokens,
  costMicrodollars: a.costMicrodollars + b.costMicrodollars,
  unseenTokens: a.unseenTokens + b.unseenTokens,
  unseenCostMicrodollars: a.unseenCostMicrodollars + b.unseenCostMicrodollars,
  overrunTokens: a.overrunTokens + b.overrunTokens,
});

/** `difference` is booked less metered; what of it is `unexplained` has the same sign. */
export interface Compared {
  readonly booked: number;
  readonly metered: number;
  readonly difference: number;
  readonly unexplained: number;
}

/** How far the meter may lie from the books without anything being wrong. */
interface Slack {
  /** Booked, but perhaps never taken. */
  readonly tooMuch: number;
  /** Taken, but perhaps never booked. */
  readonly tooLittle: number;
}

export function compare(booked: number, metered: number, { tooMuch, tooLittle }: Slack): Compared {
  const difference = booked - metered;
  const unexplained = difference > 0 ? Math.max(0, difference - tooMuch) : Math.min(0, difference + tooLittle);
  return { booked, metered, difference, unexplained };
}

/** Two ledgers of the same events: nothing excuses a difference. */
export const compareExactly = (booked: number, metered: number) =>
  compare(booked, metered, { tooMuch: 0, tooLittle: 0 });

/**
 * A model's books beside its provider's own meter. A call without a reported usage is booked by an estimate: its
 * provider may have done nothing, or up to its worst case.
 */
export function compareWithMeter(
  booked: Counted,
  estimates: Estimates,
  metered: Counted,
): Record<keyof Counted, Compared> {
  // Each tenant carries less than a micro-dollar of a model into these hours, and out of them.
  const rounding = booked.requests;
  return {
    // One that failed may never have reached the provider.
    requests: compare(booked.requests, metered.requests, { tooMuch: estimates.requests, tooLittle: 0 }),
    tokens: compare(booked.tokens, metered.tokens, {
      tooMuch: estimates.tokens,
      tooLittle: estimates.unseenTokens + estimates.overrunTokens,
    }),
    costMicrodollars: compare(booked.costMicrodollars, metered.costMicrodollars, {
      tooMuch: estimates.costMicrodollars + rounding,
      tooLittle: estimates.unseenCostMicrodollars + rounding,
    }),
  };
}
