import { createHash } from "node:crypto";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { vi } from "vitest";
import type { z } from "zod";
import { decideChange } from "../../../durable-objects/changes";
import { admissionStatements } from "../../../durable-objects/gate-admission-statements";
import { GateAdmissions } from "../../../durable-objects/gate-admissions";
import { GateCalls } from "../../../durable-objects/gate-calls";
import { GateUpkeep } from "../../../durable-objects/gate-upkeep";
import { GateWriter } from "../../../durable-objects/gate-writer";
import { GroupCommit } from "../../../durable-objects/group-commit";
import { GateJournal } from "../../../durable-objects/journal";
import { JournalTail } from "../../../durable-objects/journal-tail";
import type { GatePorts } from "../../../durable-objects/ports";
import { SealedReceipts } from "../../../durable-objects/sealed-receipts";
import { storedBook } from "../../../durable-objects/stored-book";
import { GateWindows } from "../../../durable-objects/stored-windows";
import {
  AdmitRequest,
  type ChangeCommand,
  FinishRequest,
  type ReturnRequest,
} from "../../../durable-objects/tenant-gate.messages";
import { migrate, statements } from "../../../durable-objects/tenant-gate-statements";
import { TenantStore } from "../../../durable-objects/tenant-store";
import { EndedRequests } from "../../../src/core/ended-requests";
import type { UsageEvent } from "../../../src/core/records";

const ADDRESS = { region: "global", tenantId: "proj_test" };
/** A token is a micro-dollar. */
const PRICE = { input: 1_000_000, cachedInput: 1_000_000, output: 1_000_000 };
/** Tokens of these cost a fiftieth and a thirtieth of a micro-dollar, and what the provider asks is less again. */
const CHEAP = { input: 20_000, cachedInput: 20_000, output: 20_000 };
const CHEAPER = { input: 33_333, cachedInput: 33_333, output: 33_333 };
const PORTS = {
  prices: {
    ...{ priceVersion: "1", costVersion: "1" },
    models: {
      m: { price: PRICE, cost: PRICE },
      c: { price: CHEAP, cost: CHEAPER },
      d: { price: CHEAPER, cost: CHEAP },
    },
  },
  maxDraws: 15,
  sha256: (text: string) => createHash("sha256").update(text).digest("hex"),
} as unknown as GatePorts;

/**
 * A gate's calls over a real SQLite, without the runtime around it: the clock is vitest's, memory can be thrown away at
 * any time, and what a commit costs or whether it fails is the test's to say.
 */
export class SimulatedGate {
  readonly database = new DatabaseSync(":memory:");
  /** Why memory had to be thrown away. */
  readonly failures: unknown[] = [];
  #wakes = 0;
  #now!: ReturnType<SimulatedGate["open"]>;

  constructor(limits: Partial<Record<"requestsPerMinute" | "tokensPerMinute" | "inFlight", number>> = {}) {
    migrate(this.sql);
    this.wake();
    this.change({ type: "create_tenant", name: "Test", residency: "GLOBAL", externalKeyId: null });
    this.change({ type: "create_service_account", id: "svc", name: "test" });
    this.createKey();
    const { inFlight, ...model } = limits;
    this.change({ type: "set_model_limits", model: "m", ...model });
    this.change({ type: "set_monthly_spend", microdollars: 1_000_000_000 });
    if (inFlight !== undefined) this.change({ type: "set_limits", inFlight });
  }

  get sql(): SqlStorage {
    const exec = (query: string, ...bindings: SQLInputValue[]) => {
      const rows = this.database.prepare(query).all(...bindings);
      return { toArray: () => rows, one: () => rows[0] };
    };
    return { exec } as unknown as SqlStorage;
  }
  get calls(): GateCalls {
    return this.#now.calls;
  }
  get book() {
    return this.#now.book;
  }

  /** What an eviction or a crash leaves: storage. */
  wake(): void {
    this.#wakes++;
    this.#now = this.open();
  }

  open() {
    const wake = this.#wakes;
    const isCurrent = () => wake === this.#wakes;
    const sql = statements(this.sql);
    const admissionStore = admissionStatements(this.sql);
    const tail = new JournalTail(sql);
    const journal = new GateJournal(sql, PORTS.sha256, tail, new SealedReceipts(sql));
    const windows = new GateWindows(sql, admissionStore);
    const book = storedBook(sql, admissionStore, windows, PORTS.maxDraws);
    const store = new TenantStore(sql);
    const ended = new EndedRequests();
    const writer = new GateWriter({ sql, statements: admissionStore, book, windows, ended, journal });
    const parts = { address: ADDRESS, ports: PORTS, store, book, ended, statements: admissionStore, journal };
    const commit = new GroupCommit(
      () => {
        if (!isCurrent()) return;
        this.transaction(() => {
          writer.write(Date.now());
          upkeep.save();
        });
      },
      () => (isCurrent() ? Promise.resolve() : new Promise(() => {})), // memory that is gone answers nobody
      (error) => {
        if (!isCurrent()) return;
        this.failures.push(error);
        this.wake();
      },
    );
    const expire = async () => {
      if (!isCurrent()) return;
      calls.expire();
      await commit.durable();
    };
    const nothing = async () => {};
    const work = { expire, outbox: nothing, purge: nothing, rollup: nothing, segment: nothing, sweep: nothing };
    const storage = this.storage(isCurrent, () => upkeep.runDue(Date.now()));
    const upkeep: GateUpkeep = new GateUpkeep({ storage, sql, tail, work }, Date.now());
    upkeep.keepPromise("expire", book.nextHoldExpiryMs());
    const holdDue = (dueMs: number) => upkeep.keepPromise("expire", dueMs);
    const admissions = new GateAdmissions(book, { holdDue, expire: () => void expire().catch(() => {}) });
    const calls = new GateCalls({ ...parts, admissions, upkeep, commit });
    if (calls.dropRecorded()) void commit.durable().catch(() => {});
    return { calls, book, store };
  }

  storage(isCurrent: () => boolean, runDue: () => Promise<void>): DurableObjectStorage {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const setAlarm = async (dueMs: number) => {
      clearTimeout(timer);
      timer = setTimeout(() => isCurrent() && void runDue().catch(() => {}), Math.max(0, dueMs - Date.now()));
    };
    return {
      setAlarm,
      transactionSync: (work: () => void) => isCurrent() && this.transaction(work), // a life that is over writes nothing
    } as unknown as DurableObjectStorage;
  }

  transaction(work: () => void): void {
    this.database.exec("begin");
    try {
      work();
      this.database.exec("commit");
    } catch (error) {
      this.database.exec("rollback");
      throw error;
    }
  }

  change(command: ChangeCommand): void {
    const { store } = this.#now;
    const change = decideChange(ADDRESS, store.facts, command, Date.now());
    if ("refused" in change) throw new Error(change.refused);
    store.apply(change, [], null);
  }

  createKey(): void {
    const key = { hash: "0".repeat(64), redactedValue: "…", name: "k", serviceAccountId: "svc", expiresAtMs: null };
    this.change({ type: "create_key", id: "key", ...key, scopes: ["data"] });
  }

  admit(requestId: string, more: Partial<z.input<typeof AdmitRequest>> = {}) {
    return this.calls.admit(AdmitRequest.parse({ ...REQUEST, requestId, ...more }));
  }
  finish(requestId: string, tokens: number | null, leaseId?: string, worst = 30) {
    const end = tokens === null ? null : { ...END, promptTokens: 0, completionTokens: tokens };
    const draw = { ...DRAW, promptTokens: 0, outputTokens: worst, leaseId: leaseId ?? "" };
    return this.calls.finish(FinishRequest.parse({ requestId, end, draw: leaseId ? draw : null }));
  }
  returnLease(leaseId: string, running: ReturnRequest["running"] = []) {
    return this.calls.returnLease({ leaseId, running });
  }
  leave(requestId: string) {
    return this.calls.leave(requestId);
  }

  /** What is recorded, oldest first. */
  events(): UsageEvent[] {
    const rows = this.database.prepare("select event from journal where event is not null order by seq").all();
    return rows.map((row) => JSON.parse(String(row.event)) as UsageEvent);
  }
  rows(table: string): Record<string, unknown>[] {
    return this.database.prepare(`select * from ${table}`).all();
  }
  /** Micro-dollars of the month. */
  spend() {
    const rule = { key: "spend/month@UTC/project/", name: "monthly_spend", unit: "microdollars", limit: 1e9 } as const;
    const [state] = this.book.rates([rule], Date.now());
    return { settled: state?.settled, held: state?.held };
  }
  /** Whatever can happen without time passing. */
  settle = () => vi.advanceTimersByTimeAsync(0);
}

const REQUEST: Omit<z.input<typeof AdmitRequest>, "requestId"> = {
  ...{ kind: "completions", route: "/v1/chat/completions", model: "m", provider: "p", providerModel: "pm" },
  ...{ keyId: "key", endUser: null, serviceTier: "default", stream: false, promptTokens: 10, outputTokens: 20 },
  ...{ outputLowerable: false, choices: 1, patienceMs: 5_000, holdMs: 60_000 },
};
const DRAW = { kind: "completions", route: "/v1/chat/completions", stream: false } as const;
const END = {
  ...{ outcome: "completed" as const, cachedTokens: 0, estimated: false, adapterDigest: null, promptVersion: null },
  ...{ firstTokenMs: 1, totalMs: 2 },
};
