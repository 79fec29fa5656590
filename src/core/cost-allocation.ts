/**
 * Divides a cost that several share (a GPU by the hour, a support contract) among them in proportion to their shares.
 * Whole micro-dollars by the method of largest remainders: what is divided is exactly what there was. Those who took
 * nothing pay nothing; where nobody took anything, nothing is divided.
 * @param amount whole micro-dollars, ≥ 0
 * @param shares by name, whole numbers ≥ 0
 */
export function allocate(amount: number, shares: ReadonlyMap<string, number>): Map<string, number> {
  const total = [...shares.values()].reduce((sum, share) => sum + BigInt(share), 0n);
  if (total === 0n) return new Map([...shares.keys()].map((name) => [name, 0]));
  // Products of money and tokens are beyond what a number counts exactly.
  const parts = [...shares].map(([name, share]) => {
    const product = BigInt(amount) * BigInt(share);
    return { name, whole: Number(product / total), rest: product % total };
  });
  let left = amount - parts.reduce((sum, { whole }) => sum + whole, 0);
  const result = new Map<string, number>();
  // Of equal remainders the name decides, so that the same books always give the same bill.
  for (const { name, whole, rest } of parts.sort((a, b) => compare(b.rest, a.rest) || compare(a.name, b.name))) {
    const more = left > 0 && rest > 0n ? 1 : 0;
    left -= more;
    result.set(name, whole + more);
  }
  return result;
}

const compare = <T extends bigint | string>(a: T, b: T) => (a < b ? -1 : a > b ? 1 : 0);

/** What a call weighs when a model's cost is shared: an output token is twice the work of an input token. */
export const weightOf = ({ inputTokens, outputTokens }: { inputTokens: number; outputTokens: number }) =>
  inputTokens + 2 * outputTokens;
