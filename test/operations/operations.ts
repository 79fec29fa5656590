/** Something that is billed, or a round trip; `begin` and `end` count events, so they tell what followed what. */
export interface Operation {
  /** `TENANT_GATE.admit`, `DIRECTORY`, `TENANT_GATE rows`, `provider`. */
  readonly of: string;
  readonly begin: number;
  readonly end: number;
  readonly rowsRead: number;
  readonly rowsWritten: number;
}

/** So many calls fail: before they are made, or after, so that only their answer is lost. */
export interface Fault {
  readonly of: string;
  readonly where: "request" | "reply";
  times: number;
}

/** What one kind of call costs. */
export interface Cost {
  readonly call: string;
  readonly gateCalls: number;
  readonly dispatcherCalls: number;
  readonly objectRowsWritten: number;
  readonly d1RowsRead: number;
  readonly d1RowsWritten: number;
  /** Round trips that follow each other before the provider is asked, or before a refusal. */
  readonly tripsBefore: number;
}

const isTrip = ({ of }: Operation) => !of.endsWith(" rows") && of !== "provider";

/** The longest chain of operations of which each began after the one before it had ended. */
export function sequentialTrips(operations: readonly Operation[]): number {
  let trips = 0;
  let endOfLast = -1;
  // Taking always the one that ends first leaves room for most of the others.
  for (const { begin, end } of [...operations].sort((a, b) => a.end - b.end)) {
    if (begin <= endOfLast) continue;
    trips++;
    endOfLast = end;
  }
  return trips;
}

export function costOf(call: string, operations: readonly Operation[]): Cost {
  const provider = operations.find(({ of }) => of === "provider");
  const sum = (prefix: string, rows: "rowsRead" | "rowsWritten") =>
    operations.filter(({ of }) => of.startsWith(prefix)).reduce((total, operation) => total + operation[rows], 0);
  const calls = (prefix: string) => operations.filter(({ of }) => of.startsWith(`${prefix}.`)).length;
  const before = operations.filter((one) => isTrip(one) && (!provider || one.end < provider.begin));
  return {
    call,
    gateCalls: calls("TENANT_GATE"),
    dispatcherCalls: calls("MODEL_DISPATCHER"),
    objectRowsWritten: sum("TENANT_GATE rows", "rowsWritten") + sum("MODEL_DISPATCHER rows", "rowsWritten"),
    d1RowsRead: sum("DIRECTORY", "rowsRead") + sum("DB", "rowsRead"),
    d1RowsWritten: sum("DIRECTORY", "rowsWritten") + sum("DB", "rowsWritten"),
    tripsBefore: sequentialTrips(before),
  };
}

/** As the README shows it. */
export function costTable(costs: readonly Cost[]): string {
  const head = [
    "call",
    "TenantGate calls",
    "ModelDispatcher calls",
    "object rows written",
    "D1 rows read",
    "D1 rows written",
    "trips before the model",
  ];
  const rows = costs.map((cost) => Object.values(cost).map(String));
  const widths = head.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}
