import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { buildCounted, measureOperations } from "../operations/measure";
import { type Cost, costTable, sequentialTrips } from "../operations/operations";

const README = join(import.meta.dirname, "../../README.md");
/** Between these lines stands what is measured. */
const [BEGIN, END] = ["<!-- operations: written by `npm run operations` -->\n\n", "\n\n<!-- end of operations -->"];
const ATTEMPTS = 3;

let costs: Cost[];
const of = (part: string) => {
  const found = costs.find(({ call }) => call.includes(part));
  if (!found) throw new Error(`no call ${part}`);
  return found;
};
/** The README before the table, the table, and what follows. */
function readme(): readonly [string, string, string] {
  const [head = "", rest = ""] = readFileSync(README, "utf8").split(BEGIN);
  const [shown = "", tail = ""] = rest.split(END);
  return [head, shown, tail];
}

beforeAll(async () => {
  buildCounted();
  costs = await measureOperations();
  const [head, shown, tail] = readme();
  if (process.env.UPDATE_README) writeFileSync(README, head + BEGIN + costTable(costs) + END + tail);
  // On a machine that is busy a lease may end in the middle of a count; counts that nothing disturbs are always the same.
  else for (let tried = 1; tried < ATTEMPTS && costTable(costs) !== shown; tried++) costs = await measureOperations();
});

describe("what a call costs", () => {
  it("is one round trip before the model for none that is on a lease, two at most for one that nobody knows", () => {
    expect(of("busy key: on its lease").tripsBefore).toBe(0);
    expect(of("away for a second").tripsBefore).toBe(1);
    expect(of("first of a key").tripsBefore).toBe(2);
    expect(of("scarce").tripsBefore).toBe(1);
  });

  it("is one call of the gate afterwards, which settles and records it", () => {
    expect(of("busy key: on its lease").gateCalls).toBe(1);
    expect(of("first of a key").gateCalls).toBe(2);
  });

  it("writes no row of a database, and reads one only where the key is unknown", () => {
    for (const cost of costs) expect(cost.d1RowsWritten, cost.call).toBe(0);
    expect(costs.map(({ d1RowsRead }) => d1RowsRead)).toEqual([1, 0, 0, 0, 0, 0]);
  });

  it("is what the README says", () => {
    expect(readme()[1]).toBe(costTable(costs));
  });
});

describe("round trips that follow each other", () => {
  const at = (begin: number, end: number) => ({ of: "DB", begin, end, rowsRead: 0, rowsWritten: 0 });

  it("are counted along the longest chain, side by side ones once", () => {
    expect(sequentialTrips([])).toBe(0);
    expect(sequentialTrips([at(0, 3), at(1, 4), at(2, 5)])).toBe(1);
    expect(sequentialTrips([at(0, 9), at(1, 2), at(3, 4), at(5, 6)])).toBe(3);
  });
});
