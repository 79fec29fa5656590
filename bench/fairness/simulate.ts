import { BURST, FairShare } from "../../src/core/fair-share";
import { type Arrival, arrivalsOf, type Scenario } from "./traces";

/** Continuous batching: each of the slots makes one token a step, after its prompt was read. */
export interface Server {
  readonly slots: number;
  readonly stepMs: number;
  readonly prefillMsPerToken: number;
}

export type Policy = "fcfs" | "caps" | "fair";
export const POLICIES: readonly Policy[] = ["fcfs", "caps", "fair"];

export interface TenantResult {
  readonly tenant: string;
  readonly requests: number;
  readonly p50FirstTokenMs: number;
  readonly p95FirstTokenMs: number;
  /** Of the service that the model gave in this time: 1 × input + 2 × output tokens. */
  readonly share: number;
}
export interface Result {
  readonly scenario: string;
  readonly policy: Policy;
  /** Work that was asked for in proportion to what the server can do. */
  readonly load: number;
  readonly tokensPerSecond: number;
  readonly tenants: readonly TenantResult[];
}

const serviceMs = ({ prefillMsPerToken, stepMs }: Server, { input, output }: Arrival) =>
  input * prefillMsPerToken + output * stepMs;

/** Requests of the scenario's size that the server can do in a second. */
export const capacityOf = (server: Server, { input, output }: { readonly input: number; readonly output: number }) =>
  (server.slots * 1000) / (input * server.prefillMsPerToken + output * server.stepMs);

/** Tokens between two reports of progress. */
const REPORT_TOKENS = 32;

interface Running {
  readonly arrival: Arrival;
  readonly startMs: number;
  readonly endMs: number;
}

/** What decides who goes next. */
interface Line {
  ask(arrival: Arrival, nowMs: number): boolean;
  next(nowMs: number): string[];
  ended(arrival: Arrival, nowMs: number): void;
  progress(arrival: Arrival, outputTokens: number, nowMs: number): void;
}

/** Runs a scenario in virtual time under one policy, until its last arrival; what waits then has waited in vain. */
export function simulate(scenario: Scenario, server: Server, policy: Policy): Result {
  const arrivals = arrivalsOf(scenario);
  const byId = new Map(arrivals.map((arrival) => [arrival.id, arrival]));
  const line =
    policy === "fair"
      ? fairLine(server)
      : cappedLine(server, policy === "caps" ? capOf(arrivals, server) : server.slots);
  const running = new Map<string, Running>();
  const firstTokenMs = new Map<string, number>();
  const served = new Map<string, number>();
  const endMs = scenario.seconds * 1000;
  let tokens = 0;
  const start = (id: string, nowMs: number) => {
    const arrival = byId.get(id);
    if (!arrival) return;
    running.set(id, { arrival, startMs: nowMs, endMs: nowMs + serviceMs(server, arrival) });
    firstTokenMs.set(id, nowMs + arrival.input * server.prefillMsPerToken + server.stepMs - arrival.atMs);
  };
  const serve = ({ arrival, startMs, endMs: until }: Running, nowMs: number) => {
    const done = Math.min(1, Math.max(0, (nowMs - startMs) / (until - startMs)));
    served.set(arrival.tenant, (served.get(arrival.tenant) ?? 0) + done * (arrival.input + 2 * arrival.output));
    tokens += done * (arrival.input + arrival.output);
  };
  const reports: { id: string; outputTokens: number; atMs: number }[] = [];
  let arrived = 0;
  for (;;) {
    const nextArrivalMs = arrivals[arrived]?.atMs ?? Number.POSITIVE_INFINITY;
    const nextEnd = [...running.values()].reduce<Running | undefined>(
      (a, b) => (!a || b.endMs < a.endMs ? b : a),
      undefined,
    );
    const report = reports[0];
    const nowMs = Math.min(
      nextArrivalMs,
      nextEnd?.endMs ?? Number.POSITIVE_INFINITY,
      report?.atMs ?? Number.POSITIVE_INFINITY,
    );
    if (nowMs > endMs) break;
    if (report && report.atMs === nowMs) {
      reports.shift();
      const call = running.get(report.id);
      if (call) line.progress(call.arrival, report.outputTokens, nowMs);
    } else if (nextEnd && nextEnd.endMs === nowMs) {
      running.delete(nextEnd.arrival.id);
      serve(nextEnd, nowMs);
      line.ended(nextEnd.arrival, nowMs);
    } else {
      const arrival = arrivals[arrived++];
      if (arrival && line.ask(arrival, nowMs)) start(arrival.id, nowMs);
    }
    for (const id of line.next(nowMs)) start(id, nowMs);
    for (const { arrival, startMs } of running.values()) {
      if (startMs !== nowMs) continue;
      for (let made = REPORT_TOKENS; made < arrival.output; made += REPORT_TOKENS) {
        const atMs = startMs + arrival.input * server.prefillMsPerToken + made * server.stepMs;
        insert(reports, { id: arrival.id, outputTokens: made, atMs });
      }
    }
  }
  for (const call of running.values()) serve(call, endMs);
  // Who was never served has waited until the end.
  for (const { id, atMs } of arrivals) if (!firstTokenMs.has(id)) firstTokenMs.set(id, endMs - atMs);
  const work = arrivals.reduce((sum, arrival) => sum + serviceMs(server, arrival), 0);
  const whole = [...served.values()].reduce((sum, of) => sum + of, 0);
  const tenants = [...new Set(arrivals.map(({ tenant }) => tenant))].sort().map((tenant) => {
    const waits = arrivals.filter((arrival) => arrival.tenant === tenant).map(({ id }) => firstTokenMs.get(id) ?? 0);
    const sorted = waits.sort((a, b) => a - b);
    const at = (part: number) => Math.round(sorted[Math.floor(part * (sorted.length - 1))] ?? 0);
    const share = (served.get(tenant) ?? 0) / whole;
    return { tenant, requests: waits.length, p50FirstTokenMs: at(0.5), p95FirstTokenMs: at(0.95), share };
  });
  const load = work / (server.slots * endMs);
  return { scenario: scenario.name, policy, load, tokensPerSecond: tokens / scenario.seconds, tenants };
}

function insert<T extends { readonly atMs: number }>(sorted: T[], item: T): void {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle]?.atMs ?? 0) <= item.atMs) low = middle + 1;
    else high = middle;
  }
  sorted.splice(low, 0, item);
}

/** The product's own scheduler. */
function fairLine({ slots }: Server): Line {
  const share = new FairShare({
    slots,
    queueLength: Number.MAX_SAFE_INTEGER,
    slotMs: Number.MAX_SAFE_INTEGER,
    burst: BURST,
  });
  return {
    ask({ id, tenant, key, weight, input }, nowMs) {
      const request = { id, tenant, key, weight, inputTokens: input, giveUpAtMs: Number.MAX_SAFE_INTEGER };
      return share.ask(request, nowMs).verdict === "granted";
    },
    next: (nowMs) => share.grantWaiting(nowMs).map(({ id }) => id),
    ended: ({ id, input, output }, nowMs) => void share.finish(id, { inputTokens: input, outputTokens: output }, nowMs),
    progress: ({ id }, outputTokens, nowMs) => void share.progress(id, outputTokens, nowMs),
  };
}

/** What a gateway does that limits each tenant to its part of the slots: fair when all are busy, idle when one is not. */
const capOf = (arrivals: readonly Arrival[], { slots }: Server) =>
  Math.max(1, Math.floor(slots / new Set(arrivals.map(({ tenant }) => tenant)).size));

/** First come, first served, at most `cap` calls of a tenant at once. */
function cappedLine({ slots }: Server, cap: number): Line {
  const waiting: Arrival[] = [];
  const runs = new Map<string, number>();
  let running = 0;
  const enter = ({ tenant }: Arrival) => {
    running++;
    runs.set(tenant, (runs.get(tenant) ?? 0) + 1);
  };
  const mayRun = ({ tenant }: Arrival) => running < slots && (runs.get(tenant) ?? 0) < cap;
  return {
    ask(arrival) {
      const isFirst = !waiting.some((other) => cap === slots || other.tenant === arrival.tenant);
      if (isFirst && mayRun(arrival)) {
        enter(arrival);
        return true;
      }
      waiting.push(arrival);
      return false;
    },
    next() {
      const started: string[] = [];
      for (let at = waiting.findIndex(mayRun); at >= 0; at = waiting.findIndex(mayRun)) {
        const [arrival] = waiting.splice(at, 1);
        if (!arrival) break;
        enter(arrival);
        started.push(arrival.id);
      }
      return started;
    },
    ended({ tenant }) {
      running--;
      runs.set(tenant, (runs.get(tenant) ?? 1) - 1);
    },
    progress() {},
  };
}
