import { createHash } from "node:crypto";
import { GateJournal } from "../../../durable-objects/journal";
import { JournalTail, type SegmentLimits } from "../../../durable-objects/journal-tail";
import type { ObjectHome, Segment, SegmentStore } from "../../../durable-objects/ports";
import { SealedReceipts } from "../../../durable-objects/sealed-receipts";
import { JournalSegments } from "../../../durable-objects/segments";
import { migrate, type Statements, statements } from "../../../durable-objects/tenant-gate-statements";
import { DECISION_VERSION, type DecisionRecord, USAGE_EVENT_VERSION, type UsageEvent } from "../../../src/core/records";
import { dataKeys } from "../../../src/storage/sealing";
import { SqliteStorage } from "../../sqlite-storage";

export const HOME: ObjectHome = { region: "global", tenantId: "proj_ada", isolation: "pool" };
export const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
export const SMALL: SegmentLimits = { rows: 5, bytes: 1_000_000, ageMs: 86_400_000, youngMs: 900_000, hotBytes: 1e12 };

/** Object storage that fails or waits when a test says so. */
export class MemorySegments implements SegmentStore {
  readonly objects = new Map<string, Uint8Array>();
  readonly puts: Segment[] = [];
  beforePut: () => Promise<void> = async () => {};
  beforeGet: () => Promise<void> = async () => {};

  async put(_: ObjectHome, segment: Segment, sealed: Uint8Array): Promise<void> {
    await this.beforePut();
    this.puts.push(segment);
    this.objects.set(segment.objectKey, sealed);
  }
  async get(_: unknown, { objectKey }: Segment): Promise<Uint8Array> {
    await this.beforeGet();
    const sealed = this.objects.get(objectKey);
    if (!sealed) throw new Error(`${objectKey} is missing`);
    return sealed;
  }
}

export const keys = dataKeys(new Map([[1, new Uint8Array(32).fill(1)]]));
const wrapped = await keys.create(HOME);

/** A gate's journal on a real SQLite, with real sealing, whose memory can be thrown away. */
export class TestGate {
  readonly storage = new SqliteStorage();
  readonly store = new MemorySegments();
  readonly sql: Statements;
  readonly limits: SegmentLimits;
  tail!: JournalTail;
  journal!: GateJournal;
  receipts!: SealedReceipts;
  segments!: JournalSegments;

  constructor(limits: SegmentLimits = SMALL) {
    this.limits = limits;
    migrate(this.storage.sql);
    this.sql = statements(this.storage.sql);
    this.restart();
  }

  /** What an eviction, a deploy or a crash leaves. */
  restart(): void {
    const { sql, limits } = this;
    this.tail = new JournalTail(sql, limits);
    this.receipts = new SealedReceipts(sql);
    this.journal = new GateJournal(sql, sha256, this.tail, this.receipts);
    this.segments = new JournalSegments({
      sql,
      home: () => HOME,
      segments: this.store,
      dataKeys: keys,
      dataKey: () => wrapped,
      receipts: this.receipts,
      transaction: this.storage.transactionSync,
      limits,
    });
  }

  append(id: string, atMs: number, more: Partial<UsageEvent> = {}): string {
    const event = { ...EVENT, id, atMs, ...more };
    const { model, keyId } = event;
    const receipt = this.journal.append({ ...DECISION, id, atMs, model, keyId }, event);
    this.save();
    return receipt;
  }

  /** A record without an event, as a refusal leaves it. */
  refuse(id: string, atMs: number): void {
    this.journal.append({ ...DECISION, id, atMs, kind: "refusal", outcome: "refused", rule: "r" }, null);
    this.save();
  }

  save(): void {
    const fail = (_row: unknown, error: unknown) => {
      throw error;
    };
    this.storage.transactionSync(() => this.journal.save(fail));
  }

  /** Every row as storage has it, oldest first. */
  async rows() {
    const sealed = [];
    for (let seq = 1; ; ) {
      const segment = this.sql.segmentAtOrAfter(seq, Number.NEGATIVE_INFINITY);
      if (!segment) break;
      sealed.push(...(await this.segments.read(segment)));
      seq = segment.last_seq + 1;
    }
    return [...sealed, ...this.sql.journalFrom(0, 1_000_000)];
  }
}

export const EVENT: UsageEvent = {
  v: USAGE_EVENT_VERSION,
  id: "r",
  atMs: 0,
  kind: "completions",
  outcome: "completed",
  model: "m",
  keyId: "key",
  endUser: null,
  serviceTier: "default",
  batch: false,
  promptTokens: 5,
  cachedTokens: 1,
  completionTokens: 7,
  estimated: false,
  overrunTokens: 0,
  priceMicrodollars: 11,
  priceVersion: "1",
  costMicrodollars: 3,
  costVersion: "1",
};
export const DECISION: DecisionRecord = {
  v: DECISION_VERSION,
  id: "r",
  atMs: 0,
  kind: "model_call",
  outcome: "completed",
  rule: null,
  count: 1,
  route: "/v1/chat/completions",
  keyId: "key",
  endUser: null,
  region: "global",
  policyVersion: 1,
  model: "m",
  provider: "p",
  providerModel: "p/m",
  adapterDigest: null,
  promptVersion: null,
  featuresRead: [],
  guardVerdict: null,
  stream: false,
  promptTokens: 5,
  completionTokens: 7,
  queuedMs: 0,
  firstTokenMs: 1,
  totalMs: 2,
};
