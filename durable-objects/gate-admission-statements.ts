/**
 * What admission keeps beside holds and windows: requests that ended without a record, and records that could not be
 * written. Times are Unix milliseconds.
 */
const TABLES = [
  "create table if not exists ended (request_id text primary key, at_ms integer not null) without rowid",
  "create index if not exists ended_at on ended (at_ms)",
  `create table if not exists parked (id integer primary key, kind text not null, name text not null,
     body text not null, reason text not null, at_ms integer not null)`,
];

/** Each written row takes this many outdated ones along, so that the table follows the traffic. */
const SWEPT_ROWS = 2;

export type ParkedRow = {
  /** Table that it was for. */
  kind: "journal" | "hold" | "lease";
  /** Request or lease that it belongs to. */
  name: string;
  body: string;
  reason: string;
  at_ms: number;
};

export function admissionStatements(sql: SqlStorage) {
  for (const table of TABLES) sql.exec(table);
  return {
    hasEnded: (requestId: string) =>
      sql.exec("select 1 from ended where request_id = ?", requestId).toArray().length > 0,
    /** Also removes a few that ended before `forgetBeforeMs`. */
    putEnded: (requestId: string, atMs: number, forgetBeforeMs: number) => {
      sql.exec("insert or ignore into ended (request_id, at_ms) values (?, ?)", requestId, atMs);
      sql.exec(
        `delete from ended where request_id in
         (select request_id from ended where at_ms < ? order by at_ms limit ${SWEPT_ROWS})`,
        forgetBeforeMs,
      );
    },
    buckets: (rule: string) =>
      sql
        .exec<{ bucket_ms: number; count: number }>("select bucket_ms, count from bucket where rule = ?", rule)
        .toArray(),
    /** The next rule in order; `before` ends what is looked at. */
    nextRule: (after: string, before: string) =>
      sql
        .exec<{ rule: string }>(
          "select rule from bucket where rule > ? and rule < ? order by rule limit 1",
          after,
          before,
        )
        .toArray()
        .at(0)?.rule,
    bucketsAfter: (rule: string, bucketMs: number, limit: number) =>
      sql
        .exec<{ rule: string; bucket_ms: number }>(
          "select rule, bucket_ms from bucket where (rule, bucket_ms) > (?, ?) order by rule, bucket_ms limit ?",
          ...[rule, bucketMs, limit],
        )
        .toArray(),
    lastRecordMs: () =>
      sql.exec<{ at_ms: number }>("select at_ms from journal order by seq desc limit 1").toArray().at(0)?.at_ms,
    park: ({ kind, name, body, reason, at_ms }: ParkedRow) =>
      sql.exec(
        "insert into parked (kind, name, body, reason, at_ms) values (?, ?, ?, ?, ?)",
        ...[kind, name, body, reason, at_ms],
      ),
  };
}

export type AdmissionStatements = ReturnType<typeof admissionStatements>;
