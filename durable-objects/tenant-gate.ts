import { DurableObject } from "cloudflare:workers";
import type { AdmissionBook } from "../src/core/admission-book";
import { EndedRequests } from "../src/core/ended-requests";
import { type ObjectAddress, parseObjectName } from "../src/core/object-name";
import type { PolicySnapshot } from "../src/core/policy";
import type { CallFacts } from "../src/core/records";
import { copiesOf, decideChange } from "./changes";
import { readDecisions } from "./decision-reader";
import { eraseObject } from "./erasure";
import { admissionStatements } from "./gate-admission-statements";
import { GateAdmissions } from "./gate-admissions";
import { GateCalls, type Principal, principalOf } from "./gate-calls";
import { GatePurge } from "./gate-purge";
import { GateUpkeep } from "./gate-upkeep";
import { GateWriter } from "./gate-writer";
import { GroupCommit } from "./group-commit";
import { GateJournal } from "./journal";
import { journalSums } from "./journal-sums";
import { JournalTail } from "./journal-tail";
import { limitStates } from "./limits-view";
import type { GatePorts, ObjectHome, WrappedKey } from "./ports";
import { nextPurgeMs } from "./retention";
import { SealedReceipts } from "./sealed-receipts";
import { JournalSegments } from "./segments";
import { storedBook } from "./stored-book";
import { GateWindows } from "./stored-windows";
import {
  type AdmitReply,
  AdmitRequest,
  type BindReply,
  BindRequest,
  type ChangeReply,
  ChangeRequest,
  type FinishReply,
  FinishRequest,
  type HourlyUsage,
  type JournalPage,
  JournalQuery,
  type JournalSums,
  type LimitsReply,
  type OpeningCall,
  ReturnRequest,
  type TenantGateRpc,
} from "./tenant-gate.messages";
import { migrate, type Statements, statements } from "./tenant-gate-statements";
import { TenantStore } from "./tenant-store";
import { flushUsage } from "./usage-flush";

/** After the data key was asked for, what is beyond its time is looked for this late. */
const SWEEP_AFTER_KEY_MS = 60 * 60 * 1000;
/** One look follows another after this pause at least. */
const SWEEP_PAUSE_MS = 30_000;
/** Models of one look at the limits. */
const MAX_MODELS = 1_000;

/**
 * One per tenant: the single writer of its hot path. It decides by `src/core`, keeps what it decided in its own
 * SQLite, and answers only when that is durable. No `await` stands between reading its state and changing it.
 */
export const tenantGate = (portsOf: (env: object) => GatePorts) =>
  class TenantGate extends DurableObject<object> implements TenantGateRpc {
    readonly #address: ObjectAddress;
    readonly #sql: Statements;
    readonly #ports: GatePorts;
    readonly #store: TenantStore;
    readonly #book: AdmissionBook<CallFacts>;
    readonly #admissions: GateAdmissions;
    readonly #purge: GatePurge;
    readonly #journal: GateJournal;
    readonly #segments: JournalSegments;
    readonly #commit: GroupCommit;
    readonly #upkeep: GateUpkeep;
    readonly #calls: GateCalls;

    constructor(ctx: DurableObjectState, env: object) {
      super(ctx, env);
      // An alarm after a restart may not know the object's name, so it is kept.
      migrate(ctx.storage.sql);
      this.#sql = statements(ctx.storage.sql);
      const name = this.#sql.meta("name") ?? ctx.id.name;
      if (!name || (ctx.id.name && ctx.id.name !== name)) throw new TypeError("a gate that is not the one meant");
      this.#sql.putMeta("name", name);
      this.#address = parseObjectName(name);
      this.#ports = portsOf(env);
      this.#store = new TenantStore(this.#sql);
      const tail = new JournalTail(this.#sql);
      const receipts = new SealedReceipts(this.#sql);
      this.#journal = new GateJournal(this.#sql, this.#ports.sha256, tail, receipts);
      const admissionStore = admissionStatements(ctx.storage.sql);
      const windows = new GateWindows(this.#sql, admissionStore);
      this.#book = storedBook(this.#sql, admissionStore, windows, this.#ports.maxDraws);
      const transaction = (work: () => void) => ctx.storage.transactionSync(work);
      const { segments, dataKeys } = this.#ports;
      const sealing = { home: () => this.#home, dataKey: () => this.#store.dataKey, segments, dataKeys };
      this.#segments = new JournalSegments({ ...sealing, sql: this.#sql, receipts, transaction });
      const ended = new EndedRequests();
      const writer = new GateWriter({
        ...{ sql: this.#sql, statements: admissionStore, book: this.#book, windows, ended, journal: this.#journal },
      });
      this.#commit = new GroupCommit(
        () =>
          transaction(() => {
            writer.write(Date.now());
            this.#upkeep.save();
          }),
        () => ctx.storage.sync(),
        (error) => this.#throwAway(error),
      );
      const work = {
        expire: () => this.#expire(),
        outbox: () => this.#flushOutbox(),
        purge: () => this.#runPurge(),
        rollup: () => this.#flushUsage(),
        segment: () => this.#sealJournal(),
        sweep: () => this.#sweep(),
      };
      this.#upkeep = new GateUpkeep({ storage: ctx.storage, sql: this.#sql, tail, work }, Date.now());
      this.#upkeep.keepPromise("expire", this.#book.nextHoldExpiryMs());
      this.#admissions = new GateAdmissions(this.#book, {
        holdDue: (dueMs) => this.#upkeep.keepPromise("expire", dueMs),
        expire: () => void this.#expire(),
      });
      this.#calls = new GateCalls({
        address: this.#address,
        ports: this.#ports,
        store: this.#store,
        book: this.#book,
        admissions: this.#admissions,
        ended,
        statements: admissionStore,
        journal: this.#journal,
        upkeep: this.#upkeep,
        commit: this.#commit,
      });
      if (this.#calls.dropRecorded()) void this.#commit.durable();
      this.#purge = new GatePurge(this.#store, this.#ports, {
        home: () => this.#home,
        transaction: (work) => this.#changeStore(work),
        flush: async () => {
          await this.#upkeep.runNow("outbox");
          await this.#upkeep.runNow("rollup");
        },
        erase: () => this.erase(),
      });
    }

    async bind(raw: BindRequest): Promise<BindReply> {
      const { credential, knownPolicyVersion, call } = BindRequest.parse(raw);
      const first = principalOf(this.#store, credential);
      if ("reason" in first) return { bound: false, ...first };
      const admission = call && mayCall(first, call) ? await this.#calls.admit({ ...call, keyId: first.key.id }) : null;
      // It may have waited: who it is, and under which policy, is answered as of now.
      const now = admission ? principalOf(this.#store, credential) : first;
      if ("reason" in now) {
        if (call && admission) await this.#calls.leave(call.requestId);
        return { bound: false, ...now };
      }
      const { policy, key } = now;
      const { id, serviceAccountId, scopes } = key;
      return {
        bound: true,
        key: { id, serviceAccountId, scopes },
        policyVersion: policy.version,
        policy: policy.version === knownPolicyVersion ? null : policy,
        admission,
      };
    }

    async admit(raw: AdmitRequest): Promise<AdmitReply> {
      return this.#calls.admit(AdmitRequest.parse(raw));
    }

    async leave(requestId: string): Promise<void> {
      await this.#calls.leave(String(requestId));
    }

    async finish(raw: FinishRequest): Promise<FinishReply> {
      return this.#calls.finish(FinishRequest.parse(raw));
    }

    async returnLease(raw: ReturnRequest): Promise<void> {
      await this.#calls.returnLease(ReturnRequest.parse(raw));
    }

    async change(raw: ChangeRequest): Promise<ChangeReply> {
      const { command, actorKeyId, auditId } = ChangeRequest.parse(raw);
      const isNew = command.type === "create_tenant" && !this.#store.hasDataKey;
      const dataKey = isNew ? await this.#ports.dataKeys.create(this.#address) : null;
      const nowMs = Date.now();
      const change = decideChange(this.#address, this.#store.facts, command, nowMs);
      if ("refused" in change) return { changed: false, reason: change.refused };
      const copies = copiesOf(change, this.#store.facts, { id: auditId, actorKeyId }, nowMs);
      this.#changeStore(() => this.#store.apply(change, copies, dataKey));
      this.#upkeep.keepPromise("outbox", nowMs);
      this.#upkeep.keepPromise("purge", nextPurgeMs(this.#store.facts));
      const { policy } = this.#store;
      if (!policy) throw new TypeError("a changed tenant without a policy");
      this.#admissions.relimit(policy);
      await this.#commit.durable();
      // The change is made; its copies follow at once, or by the alarm where a database does not answer.
      await this.#upkeep.tryNow("outbox");
      return { changed: true, policy: this.#store.policy ?? policy, nowMs };
    }

    async policy(): Promise<PolicySnapshot | null> {
      return this.#store.policy;
    }

    async dataKey(): Promise<WrappedKey | null> {
      if (!this.#store.hasDataKey) return null;
      // Whoever asks is about to store something, or to read it: some day it is to be removed.
      this.#upkeep.keepPromise("sweep", Date.now() + SWEEP_AFTER_KEY_MS);
      await this.#commit.durable();
      return this.#store.dataKey;
    }

    async limits(models: readonly string[]): Promise<LimitsReply | null> {
      const { policy } = this.#store;
      if (!policy) return null;
      const limits = limitStates(policy, this.#book, models.slice(0, MAX_MODELS).map(String), Date.now());
      const { inFlight: running, waiting } = this.#book;
      return { policy, limits, inFlight: { limit: policy.limits.inFlight, running, waiting } };
    }

    async isEmpty(): Promise<boolean> {
      await this.#commit.durable();
      return this.#store.facts.isEmpty;
    }

    async decisions(raw: JournalQuery): Promise<JournalPage> {
      await this.#commit.durable(); // what was just recorded is part of the answer
      return readDecisions(this.#sql, this.#segments, JournalQuery.parse(raw));
    }

    async journalSums(fromMs: number, toMs: number): Promise<JournalSums> {
      if (!(await this.#upkeep.tryNow("rollup"))) throw new Error("the ledger does not answer");
      return journalSums(this.#sql, this.#segments, Number(fromMs), Number(toMs));
    }

    async unsyncedUsage(): Promise<readonly HourlyUsage[]> {
      await this.#commit.durable();
      return this.#journal.usage.unsynced(null, Number.MAX_SAFE_INTEGER).map(({ usage }) => usage);
    }

    async countRows(): Promise<number> {
      await this.#commit.durable();
      return this.#sql.countRows();
    }

    async erase(): Promise<void> {
      this.#upkeep.stop();
      await eraseObject(this.ctx);
    }

    override async alarm(): Promise<void> {
      await this.#upkeep.runDue(Date.now());
    }

    get #home(): ObjectHome {
      return { ...this.#address, isolation: this.#store.policy?.isolation ?? "pool" };
    }

    /** Memory and storage change together or, where storage does not, neither. */
    #changeStore(work: () => void): void {
      try {
        this.ctx.storage.transactionSync(work);
      } catch (error) {
        this.#throwAway(error);
        throw error;
      }
    }

    /** Memory is ahead of storage: the next call finds what storage has. */
    #throwAway(error: unknown): void {
      this.ctx.abort(`a commit failed, memory is ahead of storage: ${String(error)}`);
    }

    async #expire(): Promise<void> {
      this.#calls.expire();
      await this.#commit.durable();
    }

    async #flushOutbox(): Promise<void> {
      for (;;) {
        const rows = this.#sql.outbox(100);
        const last = rows.at(-1);
        if (!last) return;
        await this.#ports.copies.apply(
          this.#home,
          rows.map((row) => JSON.parse(row.body)),
        );
        this.#sql.removeOutbox(last.seq);
      }
    }

    async #sweep(): Promise<void> {
      const { policy } = this.#store;
      if (!policy || policy.status === "purged") return;
      const nowMs = Date.now();
      const nextMs = await this.#ports.sweep(this.#home, nowMs, policy.retentionDays * 86_400_000);
      this.#upkeep.keepPromise("sweep", nextMs === undefined ? undefined : Math.max(nextMs, nowMs + SWEEP_PAUSE_MS));
    }

    async #runPurge(): Promise<void> {
      const isGone = await this.#purge.run(Date.now());
      if (!isGone) this.#upkeep.keepPromise("purge", nextPurgeMs(this.#store.facts));
    }

    async #flushUsage(): Promise<void> {
      await this.#commit.durable();
      const { usage } = this.#journal;
      const transaction = (work: () => void) => this.ctx.storage.transactionSync(work);
      const floorMs = () => this.#journal.floorMs;
      const deps = { sql: this.#sql, usage, ledger: this.#ports.ledger, transaction, floorMs };
      await flushUsage(deps, this.#home, Date.now());
    }

    async #sealJournal(): Promise<void> {
      this.#upkeep.keepPromise("segment", await this.#segments.sealDue(Date.now()));
    }
  };

/** Whether the call that came along with a credential is one that its key may make. */
const mayCall = ({ policy, key }: Principal, { endUser, model }: Pick<OpeningCall, "endUser" | "model">) =>
  (endUser ? ["account", "data"] : ["data"]).every((scope) => key.scopes.includes(scope)) &&
  (policy.allowedModels?.includes(model) ?? true);
