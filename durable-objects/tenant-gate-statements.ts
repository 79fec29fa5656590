import type { ReceiptRow } from "./sealed-receipts";

/**
 * The storage of a TenantGate: schema above, every statement below. The object is the tenant, so no row names one.
 * Times are Unix milliseconds. Version 2 tells end users apart in the hours of usage; version 3 keeps receipts of
 * calls whose records were sealed young.
 */
export const GATE_SCHEMA_VERSION = 3;

const USAGE_HOUR = `create table usage_hour (hour_ms integer not null, kind text not null, model text not null,
     key_id text not null, service_tier text not null, batch integer not null, end_user text not null,
     body text not null, unsynced integer not null,
     primary key (hour_ms, kind, model, key_id, service_tier, batch, end_user)) without rowid`;
const USAGE_HOUR_UNSYNCED = "create index usage_hour_unsynced on usage_hour (unsynced) where unsynced = 1";
const SEALED_RECEIPT = [
  `create table sealed_receipt (seq integer primary key, id text not null, receipt text not null,
     outcome text not null)`,
  "create index sealed_receipt_id on sealed_receipt (id)",
];

const SCHEMA = [
  "create table meta (key text primary key, value text not null) without rowid",
  `create table service_account (id text primary key, name text not null, role text not null,
     created_at integer not null, deleted_at integer) without rowid`,
  `create table api_key (id text primary key, hash text not null unique, service_account_id text, name text not null,
     redacted_value text not null, scopes text not null, expires_at integer, created_at integer not null,
     deleted_at integer) without rowid`,
  "create table hold (request_id text primary key, body text not null) without rowid",
  `create table bucket (rule text not null, bucket_ms integer not null, count integer not null,
     primary key (rule, bucket_ms)) without rowid`,
  `create table journal (seq integer primary key, id text not null, at_ms integer not null, hash text not null,
     event text, decision text not null)`,
  "create unique index journal_event on journal (id) where event is not null",
  USAGE_HOUR,
  USAGE_HOUR_UNSYNCED,
  `create table segment (first_seq integer primary key, last_seq integer not null, object_key text not null,
     size_bytes integer not null, from_ms integer not null, to_ms integer not null, last_hash text not null)`,
  "create table outbox (seq integer primary key autoincrement, body text not null)",
  `create table due (kind text not null, id text not null, due_at integer not null, attempt integer not null,
     primary key (kind, id)) without rowid`,
  ...SEALED_RECEIPT,
];

export function migrate(sql: SqlStorage): void {
  const found = sql.exec<{ n: number }>("select count(*) as n from sqlite_master where name = 'meta'").one().n;
  if (found > 0) upgrade(sql);
  else {
    for (const statement of SCHEMA) sql.exec(statement);
    sql.exec("insert into meta (key, value) values ('schema_version', ?)", String(GATE_SCHEMA_VERSION));
  }
}

/** What an earlier version left behind, step by step; nothing else runs before it is done. */
function upgrade(sql: SqlStorage): void {
  const { value } = sql.exec<{ value: string }>("select value from meta where key = 'schema_version'").one();
  for (const [version, steps] of UPGRADES) {
    if (Number(value) >= version) continue;
    for (const statement of steps) sql.exec(statement);
    sql.exec("update meta set value = ? where key = 'schema_version'", String(version));
  }
}

/** What makes each version of the one before it, in order. */
const UPGRADES: readonly (readonly [version: number, steps: readonly string[]])[] = [
  [
    2,
    [
      "alter table usage_hour rename to usage_hour_1",
      "drop index usage_hour_unsynced",
      USAGE_HOUR,
      USAGE_HOUR_UNSYNCED,
      `insert into usage_hour select hour_ms, kind, model, key_id, service_tier, batch, '', body, unsynced
       from usage_hour_1`,
      "drop table usage_hour_1",
    ],
  ],
  [3, SEALED_RECEIPT],
];

export type KeyRow = {
  id: string;
  hash: string;
  service_account_id: string | null;
  name: string;
  redacted_value: string;
  scopes: string;
  expires_at: number | null;
  created_at: number;
  deleted_at: number | null;
};
export type AccountRow = { id: string; name: string; role: string; created_at: number; deleted_at: number | null };
export type JournalDbRow = {
  seq: number;
  id: string;
  at_ms: number;
  hash: string;
  event: string | null;
  decision: string;
};
export type UsageHourRow = { body: string };
export type SegmentRow = {
  first_seq: number;
  last_seq: number;
  object_key: string;
  size_bytes: number;
  from_ms: number;
  to_ms: number;
  last_hash: string;
};
export type UsageKey = readonly [
  hourMs: number,
  kind: string,
  model: string,
  keyId: string,
  serviceTier: string,
  batch: number,
  endUser: string,
];

/** Tables whose rows say something of the tenant; `meta` always knows at least its own version and name. */
const TENANT_TABLES = [
  "service_account",
  "api_key",
  "hold",
  "bucket",
  "journal",
  "usage_hour",
  "segment",
  "sealed_receipt",
  "outbox",
  "due",
  "ended",
  "parked",
];

export const statements = (sql: SqlStorage) => ({
  countRows: () =>
    TENANT_TABLES.reduce(
      (sum, table) => sum + sql.exec<{ n: number }>(`select count(*) as n from ${table}`).one().n,
      0,
    ) + sql.exec<{ n: number }>("select count(*) as n from meta where key not in ('schema_version', 'name')").one().n,

  meta: (key: string) =>
    sql.exec<{ value: string }>("select value from meta where key = ?", key).toArray().at(0)?.value,
  putMeta: (key: string, value: string) =>
    sql.exec(
      "insert into meta (key, value) values (?, ?) on conflict do update set value = excluded.value",
      key,
      value,
    ),

  keys: () => sql.exec<KeyRow>("select * from api_key").toArray(),
  putKey: (row: KeyRow) =>
    sql.exec(
      `insert into api_key (id, hash, service_account_id, name, redacted_value, scopes, expires_at, created_at, deleted_at)
       values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set deleted_at = excluded.deleted_at`,
      row.id,
      row.hash,
      row.service_account_id,
      row.name,
      row.redacted_value,
      row.scopes,
      row.expires_at,
      row.created_at,
      row.deleted_at,
    ),
  removeKey: (id: string) => sql.exec("delete from api_key where id = ?", id),
  accounts: () => sql.exec<AccountRow>("select * from service_account").toArray(),
  putAccount: (row: AccountRow) =>
    sql.exec(
      `insert into service_account (id, name, role, created_at, deleted_at) values (?, ?, ?, ?, ?)
       on conflict (id) do update set name = excluded.name, role = excluded.role, deleted_at = excluded.deleted_at`,
      row.id,
      row.name,
      row.role,
      row.created_at,
      row.deleted_at,
    ),

  removeAccount: (id: string) => sql.exec("delete from service_account where id = ?", id),

  holds: () =>
    sql.exec<{ body: string }>("select body from hold where request_id < 'lease:' or request_id >= 'lease;'").toArray(),
  putHold: (requestId: string, body: string) =>
    sql.exec("insert or replace into hold (request_id, body) values (?, ?)", requestId, body),
  removeHold: (requestId: string) => sql.exec("delete from hold where request_id = ?", requestId),
  /** In the table of holds, of which a lease is a kind. */
  leases: () =>
    sql
      .exec<{ body: string }>("select body from hold where request_id >= 'lease:' and request_id < 'lease;'")
      .toArray(),
  putLease: (id: string, body: string) =>
    sql.exec("insert or replace into hold (request_id, body) values (?, ?)", `lease:${id}`, body),
  removeLease: (id: string) => sql.exec("delete from hold where request_id = ?", `lease:${id}`),
  putBucket: (rule: string, bucketMs: number, count: number) =>
    sql.exec("insert or replace into bucket (rule, bucket_ms, count) values (?, ?, ?)", rule, bucketMs, count),
  removeBucket: (rule: string, bucketMs: number) =>
    sql.exec("delete from bucket where rule = ? and bucket_ms = ?", rule, bucketMs),

  lastJournalRow: () =>
    sql
      .exec<{ seq: number; hash: string; at_ms: number }>(
        "select seq, hash, at_ms from journal order by seq desc limit 1",
      )
      .toArray()
      .at(0),
  appendJournal: (row: JournalDbRow) =>
    sql.exec(
      "insert into journal (seq, id, at_ms, hash, event, decision) values (?, ?, ?, ?, ?, ?)",
      row.seq,
      row.id,
      row.at_ms,
      row.hash,
      row.event,
      row.decision,
    ),
  eventRow: (requestId: string) =>
    sql.exec<JournalDbRow>("select * from journal where id = ? and event is not null", requestId).toArray().at(0),
  journalFrom: (seq: number, limit: number) =>
    sql.exec<JournalDbRow>("select * from journal where seq >= ? order by seq limit ?", seq, limit).toArray(),
  journalBefore: (seq: number, limit: number) =>
    sql.exec<JournalDbRow>("select * from journal where seq < ? order by seq desc limit ?", seq, limit).toArray(),
  /** Read row by row: whoever has enough stops. */
  oldestJournal: (limit: number) => sql.exec<JournalDbRow>("select * from journal order by seq limit ?", limit),
  journalUpTo: (seq: number) =>
    sql.exec<JournalDbRow>("select * from journal where seq <= ? order by seq", seq).toArray(),
  firstJournalSeq: () => sql.exec<{ seq: number }>("select seq from journal order by seq limit 1").toArray().at(0)?.seq,
  /** The stamp of the first row at or after a number. */
  journalStamp: (seq: number) =>
    sql
      .exec<{ seq: number; at_ms: number }>("select seq, at_ms from journal where seq >= ? order by seq limit 1", seq)
      .toArray()
      .at(0),
  /** Whether any call was ever recorded: rows go to segments, segments stay. */
  hasJournal: () =>
    sql.exec<{ n: number }>("select exists (select 1 from journal) or exists (select 1 from segment) as n").one().n ===
    1,
  removeJournal: (firstSeq: number, lastSeq: number) =>
    sql.exec("delete from journal where seq between ? and ?", firstSeq, lastSeq),

  usageHour: (key: UsageKey) =>
    sql
      .exec<UsageHourRow>(
        `select body from usage_hour where hour_ms = ? and kind = ? and model = ? and key_id = ? and service_tier = ?
         and batch = ? and end_user = ?`,
        ...key,
      )
      .toArray()
      .at(0),
  /** All of the newest hour in which a model was called. */
  newestHoursOf: (model: string) =>
    sql
      .exec<UsageHourRow>(
        `select body from usage_hour where model = ?
         and hour_ms = (select hour_ms from usage_hour where model = ? order by hour_ms desc limit 1)`,
        model,
        model,
      )
      .toArray(),
  putUsageHour: (key: UsageKey, body: string) =>
    sql.exec(
      `insert or replace into usage_hour (hour_ms, kind, model, key_id, service_tier, batch, end_user, body, unsynced)
       values (?, ?, ?, ?, ?, ?, ?, ?, 1)`,
      ...key,
      body,
    ),
  /** In the order of their keys. */
  unsyncedUsage: (after: UsageKey | null, limit: number) =>
    sql
      .exec<UsageHourRow>(
        `select body from usage_hour where unsynced = 1
         and (hour_ms, kind, model, key_id, service_tier, batch, end_user) > (?, ?, ?, ?, ?, ?, ?)
         order by hour_ms, kind, model, key_id, service_tier, batch, end_user limit ?`,
        ...(after ?? [-1, "", "", "", "", 0, ""]),
        limit,
      )
      .toArray(),
  /** Only rows that are still what was written: one that grew meanwhile stays unsynced. */
  markSynced: (key: UsageKey, body: string) =>
    sql.exec(
      `update usage_hour set unsynced = 0 where hour_ms = ? and kind = ? and model = ? and key_id = ?
       and service_tier = ? and batch = ? and end_user = ? and body = ?`,
      ...key,
      body,
    ),

  /** Hours before that time which the ledger has. */
  removeSyncedUsage: (beforeMs: number, limit: number) =>
    sql.exec(
      `delete from usage_hour where (hour_ms, kind, model, key_id, service_tier, batch, end_user) in
         (select hour_ms, kind, model, key_id, service_tier, batch, end_user from usage_hour
          where hour_ms < ? and unsynced = 0 limit ?)`,
      beforeMs,
      limit,
    ),

  lastSegment: () => sql.exec<SegmentRow>("select * from segment order by first_seq desc limit 1").toArray().at(0),
  /** The first segment that has rows from `seq` on, and rows as new as `newestMs`. */
  segmentAtOrAfter: (seq: number, newestMs: number) =>
    sql
      .exec<SegmentRow>(
        `select * from segment where first_seq >= coalesce((select max(first_seq) from segment where first_seq <= ?), 0)
         and last_seq >= ? and to_ms >= ? order by first_seq limit 1`,
        seq,
        seq,
        newestMs,
      )
      .toArray()
      .at(0),
  /** The last segment that has rows before `seq`, and rows older than `oldestMs`. */
  segmentBefore: (seq: number, oldestMs: number) =>
    sql
      .exec<SegmentRow>(
        "select * from segment where first_seq < ? and from_ms < ? order by first_seq desc limit 1",
        seq,
        oldestMs,
      )
      .toArray()
      .at(0),
  putSegment: (row: SegmentRow) =>
    sql.exec(
      `insert or replace into segment (first_seq, last_seq, object_key, size_bytes, from_ms, to_ms, last_hash)
       values (?, ?, ?, ?, ?, ?, ?)`,
      row.first_seq,
      row.last_seq,
      row.object_key,
      row.size_bytes,
      row.from_ms,
      row.to_ms,
      row.last_hash,
    ),

  firstReceipt: () => sql.exec<{ seq: number }>("select seq from sealed_receipt order by seq limit 1").toArray().at(0),
  receiptOf: (id: string) =>
    sql.exec<ReceiptRow>("select * from sealed_receipt where id = ? limit 1", id).toArray().at(0),
  putReceipt: ({ seq, id, receipt, outcome }: ReceiptRow) =>
    sql.exec(
      "insert or replace into sealed_receipt (seq, id, receipt, outcome) values (?, ?, ?, ?)",
      seq,
      id,
      receipt,
      outcome,
    ),
  removeReceipts: (upToSeq: number) => sql.exec("delete from sealed_receipt where seq <= ?", upToSeq),

  /** Bytes of the whole database that are in use. */
  databaseBytes: () => sql.databaseSize,

  outbox: (limit: number) =>
    sql.exec<{ seq: number; body: string }>("select seq, body from outbox order by seq limit ?", limit).toArray(),
  putOutbox: (body: string) => sql.exec("insert into outbox (body) values (?)", body),
  removeOutbox: (upToSeq: number) => sql.exec("delete from outbox where seq <= ?", upToSeq),

  due: () => sql.exec<{ kind: string; id: string; due_at: number; attempt: number }>("select * from due").toArray(),
  putDue: (kind: string, id: string, dueAtMs: number, attempt: number) =>
    sql.exec("insert or replace into due (kind, id, due_at, attempt) values (?, ?, ?, ?)", kind, id, dueAtMs, attempt),
  removeDue: (kind: string, id: string) => sql.exec("delete from due where kind = ? and id = ?", kind, id),
});

export type Statements = ReturnType<typeof statements>;
