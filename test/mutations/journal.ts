import type { Mutation } from "./mutation";

const READS = ["test/unit/journal/reads.test.ts"];
const SEALING = ["test/unit/journal/sealing.test.ts"];
const USAGE = ["test/unit/journal/usage.test.ts"];
const UPKEEP = ["test/unit/journal/upkeep.test.ts"];
const CLOCK = ["test/unit/core/record-clock.test.ts"];
const KEYS = ["test/unit/sealing.test.ts"];
const FILE_KEYS = ["test/unit/storage/file-keys.test.ts"];
const OBJECT = ["test/worker/journal.test.ts"];
const LEDGER = ["test/worker/ledger.test.ts"];

/** One kind of fault: where it is made, and what notices. */
const of = (file: string, tests: readonly string[], faults: readonly (readonly [string, string, string])[]) =>
  faults.map(([promise, find, replace]): Mutation => ({ promise, file, find, replace, tests }));

export const mutations: readonly Mutation[] = [
  ...of("durable-objects/segments.ts", SEALING, [
    [
      "journal rows leave the gate only when their segment is in object storage",
      "    await segments.put(home, segment, sealed);\n    transaction(() => {",
      "    sql.removeJournal(segment.firstSeq, segment.lastSeq);\n    await segments.put(home, segment, sealed);\n    transaction(() => {",
    ],
    [
      "a segment is stored before its row says so",
      "    await segments.put(home, segment, sealed);\n    transaction(() => {",
      "    void segments.put(home, segment, sealed).catch(() => {});\n    transaction(() => {",
    ],
    ["a sealed row is in the segment alone", "      sql.removeJournal(segment.firstSeq, segment.lastSeq);\n", ""],
    ["a sealed row is listed", "      sql.putSegment(rowOf(segment));\n", ""],
    [
      "no row is removed that is not in its segment",
      "sql.removeJournal(segment.firstSeq, segment.lastSeq)",
      "sql.removeJournal(segment.firstSeq, segment.lastSeq + 1)",
    ],
    [
      "sealing goes on until nothing is due",
      "await this.#seal(next.rows, nowMs);",
      "await this.#seal(next.rows, nowMs);\n      return undefined;",
    ],
    ["what one turn did not seal is due at once", "    return nowMs;\n  }", "    return undefined;\n  }"],
    [
      "a segment holds what its row says",
      "if (first?.seq !== segment.first_seq || last?.seq !== segment.last_seq || last.hash !== segment.last_hash) {",
      "if (false) {",
    ],
    [
      "an object's name stands for the same rows at each attempt",
      "if (planned.length > 0) return { rows: planned };",
      "",
    ],
    ["an attempt is planned before it is made", "    sql.putMeta(SEALING, String(last.seq));\n", ""],
    [
      "young rows stay in the tail while there is room",
      "if (run.isFull && (young === -1 || sql.databaseBytes() > hotBytes)) return run;",
      "if (run.isFull) return run;",
    ],
    [
      "a gate that is full seals young rows",
      "if (run.isFull && (young === -1 || sql.databaseBytes() > hotBytes)) return run;",
      "if (run.isFull && young === -1) return run;",
    ],
    [
      "a gate that is full seals whole segments",
      "if (run.isFull && (young === -1 || sql.databaseBytes() > hotBytes)) return run;",
      "if ((run.isFull && young === -1) || sql.databaseBytes() > hotBytes) return run;",
    ],
    ["of rows that waited a day the young ones stay", "return { rows: old };", "return { rows: run.rows };"],
    ["rows that waited a day are sealed", "first.at_ms <= nowMs - ageMs", "first.at_ms < nowMs - 2 * ageMs"],
    [
      "a full run is looked at when it is no longer young",
      "return { dueMs: run.isFull ? Math.min(newestOf(run.rows) + youngMs, isAgedMs) : isAgedMs };",
      "return { dueMs: isAgedMs };",
    ],
    ["a segment is bounded in bytes", "if (bytes >= maxBytes) return { rows, isFull: true };", ""],
    [
      "a settlement that is retried finds the record that was sealed young",
      "      receipts.keep(rows, nowMs - this.#limits.youngMs);\n",
      "",
    ],
    ["a segment says its oldest stamp", "fromMs: Math.min(...rows.map((row) => row.at_ms)),", "fromMs: first.at_ms,"],
    ["a segment says its newest stamp", "toMs: newestOf(rows),", "toMs: last.at_ms,"],
    ["segments are sealed each for its own place", "String(firstSeq).padStart", "String(1).padStart"],
    [
      "receipts are forgotten by and by",
      "const forgetMs = this.#deps.receipts.forget(nowMs - youngMs, youngMs);",
      "const forgetMs = undefined;",
    ],
    ["receipts are looked at again when they can be forgotten", "return Math.min(sealMs, forgetMs);", "return sealMs;"],
  ]),
  ...of("durable-objects/journal.ts", SEALING, [
    ["the sequence goes on after everything was sealed", "last?.seq ?? segment?.last_seq ?? 0", "last?.seq ?? 0"],
    [
      "the chain goes on after everything was sealed",
      "last?.hash ?? segment?.last_hash ?? GENESIS",
      "last?.hash ?? GENESIS",
    ],
    [
      "the clock of records goes on after everything was sealed",
      "new RecordClock(last?.at_ms ?? segment?.to_ms)",
      "new RecordClock(last?.at_ms)",
    ],
    ["the event is part of what is chained", "{ decision, event }, this.#sha256", "{ decision }, this.#sha256"],
    ["the decision is part of what is chained", "{ decision, event }, this.#sha256", "{ event }, this.#sha256"],
    ["each record is chained to the one before", "    this.#lastHash = hash;\n", ""],
    [
      "a retried settlement finds a record that was sealed young",
      "if (!row?.event) return this.#sealed.find(requestId);",
      "if (!row?.event) return undefined;",
    ],
    ["what is appended counts towards a segment", "    this.#tail.add(row);\n", ""],
    [
      "an event says the time of its record",
      "const event = counted && { ...counted, atMs };",
      "const event = counted;",
    ],
    ["a decision says the time of its record", "const decision = { ...happened, atMs };", "const decision = happened;"],
  ]),
  ...of("durable-objects/journal.ts", USAGE, [
    ["each event is counted in its hour", "    if (event) this.usage.count(event, seq, remainder);\n", ""],
    ["hours are saved with the records", "    this.usage.save();\n", ""],
  ]),
  ...of("durable-objects/journal-tail.ts", SEALING, [
    ["rows are counted towards a segment", "    this.#rows++;\n", ""],
    ["bytes are counted towards a segment", "    this.#bytes += bytesOf(row);\n", ""],
    ["what storage holds is counted at start", "last ? last.seq - sealedSeq : 0", "0"],
    ["counting begins anew", "    this.#rows = 0;\n    this.#bytes = 0;\n    return", "    return"],
    [
      "a full gate is looked at at once",
      "this.#sql.databaseBytes() > hotBytes ? nowMs : nowMs + youngMs",
      "nowMs + youngMs",
    ],
    ["a gate keeps 512 MiB of journal at most", "hotBytes: 512 * MIB", "hotBytes: 5_120 * MIB"],
    ["a segment has 8 MiB at most", "bytes: 8 * MIB", "bytes: 80 * MIB"],
    ["bytes are counted, not letters", "utf8.encode(decision).length", "decision.length"],
    ["events count too", "(event === null ? 0 : utf8.encode(event).length)", "0"],
  ]),
  ...of("durable-objects/sealed-receipts.ts", SEALING, [
    [
      "receipts are there after a restart",
      "this.#isEmpty = sql.firstReceipt() === undefined;",
      "this.#isEmpty = true;",
    ],
    ["receipts are there at once", "      this.#isEmpty = false;\n", ""],
    ["receipts of old rows are not kept", "row.event === null || row.at_ms <= youngSinceMs", "row.event === null"],
    ["refusals have no receipt", "row.event === null || row.at_ms <= youngSinceMs", "row.at_ms <= youngSinceMs"],
    ["receipts stay while their records are young", "if (segment.to_ms > youngSinceMs)", "if (false)"],
    [
      "receipts of younger segments stay",
      "this.#sql.removeReceipts(segment.last_seq);",
      "this.#sql.removeReceipts(Number.MAX_SAFE_INTEGER);",
    ],
    [
      "a receipt says how its call ended",
      "event: { outcome: row.outcome as Outcome }",
      'event: { outcome: "completed" as Outcome }',
    ],
  ]),
  ...of("durable-objects/journal-rows.ts", READS, [
    [
      "ascending reads begin behind their cursor",
      "sql.segmentAtOrAfter(after + 1, newestMs)",
      "sql.segmentAtOrAfter(after, newestMs)",
    ],
    [
      "ascending reads of the tail begin behind their cursor",
      "fromMs === null ? after + 1 : skipOlder",
      "fromMs === null ? after : skipOlder",
    ],
    [
      "rows of a segment before the cursor are left out",
      "rows.filter((row) => row.seq > (at ?? 0))",
      "rows.filter((row) => row.seq >= (at ?? 0))",
    ],
    [
      "rows of a segment after the cursor are left out",
      "rows.filter((row) => row.seq < (at ?? Number.MAX_SAFE_INTEGER)).reverse()",
      "[...rows].reverse()",
    ],
    [
      "descending reads are in order",
      ".filter((row) => row.seq < (at ?? Number.MAX_SAFE_INTEGER)).reverse()",
      ".filter((row) => row.seq < (at ?? Number.MAX_SAFE_INTEGER))",
    ],
    [
      "what was sealed meanwhile is read from its segment",
      "  if (segment) return { segment };\n",
      "  if (segment && sql.firstJournalSeq() === undefined) return { segment };\n",
    ],
    ["descending reads go on in segments", "  return segment && { segment };", "  return undefined;"],
    ["rows that lag behind the bound are looked at, ascending", "fromMs - STAMP_LAG_MS", "fromMs + STAMP_LAG_MS"],
    [
      "rows that lag behind the bound are looked at, descending",
      "toMs + STAMP_LAG_MS;\n  const rows",
      "toMs - STAMP_LAG_MS;\n  const rows",
    ],
    [
      "a reading ends at its bound",
      "    if (last && endsReading(last.at_ms, order, query)) return;\n",
      "    if (last) return;\n",
    ],
    [
      "a long tail is skipped where a time is asked for, ascending",
      "fromMs === null ? after + 1 : skipOlder(sql, after + 1, newestMs)",
      "after + 1",
    ],
    [
      "a long tail is skipped where a time is asked for, descending",
      "toMs === null ? before : skipNewer(sql, before, oldestMs)",
      "before",
    ],
    ["no row is skipped with the older ones", "low = row.seq + 1;", "low = row.seq + 2;"],
    ["a descending read does not pass its cursor", "Math.min(before, bisect", "Math.max(0, bisect"],
  ]),
  ...of("durable-objects/decision-reader.ts", READS, [
    ["a page has the rows of its model", "(query.model === null || model === query.model)", "true"],
    ["a page has the rows of its key", "(query.keyId === null || keyId === query.keyId)", "true"],
    ["a page has the rows of its time", "  if (!isWithin(row.at_ms, query)) return undefined;\n", ""],
    ["a page is no longer than its limit", "rows.length === query.limit", "rows.length > query.limit"],
    ["a page that stops says where", "      lastSeq = row.seq;\n", ""],
    [
      "a page that looked at enough rows says that there may be more",
      "if (++scanned > scanRows) return { rows, hasMore: true, lastSeq };",
      "if (++scanned > scanRows) return { rows, hasMore: false, lastSeq };",
    ],
    [
      "a page says that there is more only where there is",
      "if (read && rows.length === query.limit)",
      "if (rows.length === query.limit)",
    ],
    [
      "a page that is full says that there is more",
      "return { rows, hasMore: true, lastSeq };\n      if (read) rows",
      "return { rows, hasMore: false, lastSeq };\n      if (read) rows",
    ],
  ]),
  ...of("durable-objects/journal-sums.ts", READS, [
    ["sums have the events of their time", "row.event === null || !isWithin(row.at_ms, bounds)", "row.event === null"],
    ["sums add prices up", "event.priceMicrodollars ?? 0", "0"],
    ["sums add costs up", "event.costMicrodollars ?? 0", "0"],
  ]),
  ...of("src/core/record-clock.ts", CLOCK, [
    ["no stamp lags more than the bound", "const stampMs = Math.max(atMs, this.#floorMs);", "const stampMs = atMs;"],
    [
      "the bound follows the newest stamp",
      "    this.#floorMs = Math.max(this.#floorMs, stampMs - STAMP_LAG_MS);\n",
      "",
    ],
    [
      "the bound never goes back",
      "this.#floorMs = Math.max(this.#floorMs, stampMs - STAMP_LAG_MS);",
      "this.#floorMs = stampMs - STAMP_LAG_MS;",
    ],
    [
      "the bound holds over restarts",
      "this.#floorMs = lastMs ?? Number.NEGATIVE_INFINITY;",
      "this.#floorMs = Number.NEGATIVE_INFINITY;",
    ],
    [
      "stamps within the bound are what the clock said",
      "stampMs - STAMP_LAG_MS);\n    return",
      "stampMs);\n    return",
    ],
    ["a time begins with its start", "atMs >= fromMs) &&", "atMs > fromMs) &&"],
    ["a time ends before its end", "(toMs === null || atMs < toMs);", "(toMs === null || atMs <= toMs);"],
    ["an ascending read ends only behind the lag", "atMs >= toMs + STAMP_LAG_MS", "atMs >= toMs"],
    ["a descending read ends only behind the lag", "atMs < fromMs - STAMP_LAG_MS", "atMs < fromMs"],
  ]),
  ...of("durable-objects/usage-hours.ts", USAGE, [
    ["usage of each end user has its own hour", "  usage.endUser ?? NOBODY,\n];", "  NOBODY,\n];"],
    ["usage of each key has its own hour", "  usage.keyId,\n  usage.serviceTier,", '  "",\n  usage.serviceTier,'],
    ["usage of batches has its own hour", "usage.batch ? 1 : 0", "0"],
    [
      "an hour goes on where storage has it",
      "this.#changed.get(name) ?? this.#stored(key) ?? empty",
      "this.#changed.get(name) ?? empty",
    ],
    [
      "an hour goes on where memory has it",
      "this.#changed.get(name) ?? this.#stored(key) ?? empty",
      "this.#stored(key) ?? empty",
    ],
    [
      "a key's last use is its newest event",
      "Math.max(usage.lastEventMs ?? 0, event.atMs)",
      "usage.lastEventMs ?? event.atMs",
    ],
    [
      "a key's last use is that of its newest hour",
      "Math.max(byKey.get(hour.keyId) ?? 0, lastEventOf(hour))",
      "byKey.get(hour.keyId) ?? lastEventOf(hour)",
    ],
    [
      "hours of earlier versions know when their keys were used",
      "hourMs + Math.max(0, ...Object.keys(minutes).map(Number)) * MINUTE_MS",
      "hourMs",
    ],
    ["minutes are told apart", "Math.floor((event.atMs - usage.hourMs) / MINUTE_MS)", "0"],
    ["estimates are told apart", "if (!event.estimated) return before;", ""],
  ]),
  ...of("durable-objects/usage-flush.ts", USAGE, [
    ["what the ledger has is marked", "      for (const hour of hours) hour.markSynced();\n", ""],
    [
      "nothing is marked that the ledger did not take",
      "await ledger.write(home, rows, lastUsed(rows), nowMs);",
      "await ledger.write(home, rows, lastUsed(rows), nowMs).catch(() => {});",
    ],
    ["last uses are written", "lastUsed(rows), nowMs", "{}, nowMs"],
    ["a flush goes on where the last write ended", "    after = last.key;\n", "    break;\n"],
    ["a flush comes to an end", "    after = last.key;\n", ""],
    [
      "the clock of the records decides what is forgotten",
      "Math.min(nowMs, deps.floorMs()) - SYNCED_HOURS_MS",
      "nowMs - SYNCED_HOURS_MS",
    ],
    ["hours stay for 48 hours", "Math.min(nowMs, deps.floorMs()) - SYNCED_HOURS_MS", "Math.min(nowMs, deps.floorMs())"],
    ["hours that the ledger has are forgotten", "  sql.removeSyncedUsage(", "  if (nowMs < 0) sql.removeSyncedUsage("],
  ]),
  ...of("durable-objects/tenant-gate-statements.ts", USAGE, [
    [
      "an hour that grew meanwhile stays unsynced",
      "and service_tier = ? and batch = ? and end_user = ? and body = ?`,\n      ...key,\n      body,",
      "and service_tier = ? and batch = ? and end_user = ?`,\n      ...key,",
    ],
    [
      "an hour that changed must be written again",
      "values (?, ?, ?, ?, ?, ?, ?, ?, 1)",
      "values (?, ?, ?, ?, ?, ?, ?, ?, 0)",
    ],
    [
      "no hour is forgotten that the ledger does not have",
      "where hour_ms < ? and unsynced = 0 limit ?",
      "where hour_ms < ? limit ?",
    ],
  ]),
  ...of("durable-objects/gate-upkeep.ts", UPKEEP, [
    [
      "work that a crash cut off is taken up again",
      "    this.#due.put({ kind: RESUME, id: kind, dueAtMs: nowMs + RESUME_MS, attempt });\n",
      "",
    ],
    ["what is taken up again is the work that was cut off", "kind === RESUME ? id : kind", "kind"],
    ["work that is done is not taken up again", "        this.#due.remove(RESUME, kind);\n", ""],
    [
      "what fails is tried again",
      '      this.#due.put(this.#due.failed({ kind, id: "", dueAtMs: nowMs, attempt }, Date.now(), Math.random()));\n',
      "",
    ],
    [
      "what fails is tried again later each time",
      "this.#run(kindOf(row), row.attempt, nowMs)",
      "this.#run(kindOf(row), 0, nowMs)",
    ],
    ["a failure is told", "      return false;\n    } finally", "      return true;\n    } finally"],
    ["the retry of what failed is saved", "      this.#saveNow(); // nobody else may come by to save it\n", ""],
    [
      "runs of one kind follow each other",
      "const before = this.#running.get(kind) ?? Promise.resolve();",
      "const before = Promise.resolve();",
    ],
    [
      "an alarm does not wait for ever",
      "await within(Promise.all(runs), TURN_MS).catch(() => {});",
      "await Promise.all(runs);",
    ],
    ["work that does not end is done again", "within(this.#deps.work[kind](), WORK_MS)", "this.#deps.work[kind]()"],
    [
      "work of one kind does not wait for another's",
      "const runs = now.map((row) => this.#run(kindOf(row), row.attempt, nowMs));",
      "const runs: Promise<boolean>[] = [];\n    for (const row of now) {\n      const run = this.#run(kindOf(row), row.attempt, nowMs);\n      runs.push(run);\n      await run;\n    }",
    ],
    ["the earlier of two promises stands", "if (known && known.dueAtMs <= dueAtMs) return;", ""],
    [
      "a promise sets the alarm",
      '    this.#due.put({ kind, id: "", dueAtMs, attempt: 0 });\n    this.#schedule();\n',
      '    this.#due.put({ kind, id: "", dueAtMs, attempt: 0 });\n',
    ],
    [
      "an earlier promise brings the alarm forward",
      "(this.#alarmAtMs !== undefined && this.#alarmAtMs <= nextMs)",
      "this.#alarmAtMs !== undefined",
    ],
    ["the alarm is set again after it rang", "    this.#alarmAtMs = undefined;\n    const due", "    const due"],
    [
      "the calendar is there again after a restart",
      "this.#due = DueTable.restore(rows.map",
      "this.#due = DueTable.restore(rows.slice(0, 0).map",
    ],
    [
      "rows that an earlier version left are sealed",
      'if (!this.#due.get("segment", "") && deps.sql.lastJournalRow()) this.keepPromise("segment", nowMs);',
      "",
    ],
    ["a record reaches the ledger within a minute", 'this.keepPromise("rollup", nowMs + ROLLUP_MS);', ""],
    ["a record is sealed one day", 'this.keepPromise("segment", this.#deps.tail.dueMs(nowMs));', ""],
    [
      "nothing is written once the gate is erased",
      "    if (this.#isStopped) return;\n    const { sql }",
      "    const { sql }",
    ],
  ]),
  ...of("src/storage/sealing.ts", KEYS, [
    [
      "each sealing has a nonce of its own",
      "const iv = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));",
      "const iv = new Uint8Array(NONCE_BYTES);",
    ],
    [
      "nonces are random as a whole",
      "const iv = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));",
      "const iv = new Uint8Array(NONCE_BYTES);\n  iv.set(crypto.getRandomValues(new Uint8Array(4)));",
    ],
    [
      "each tenant has a key of its own",
      "const raw = crypto.getRandomValues(new Uint8Array(32));",
      "const raw = new Uint8Array(32);",
    ],
    [
      "what was sealed for one use opens for no other",
      "purpose: string): Uint8Array {",
      '_: string): Uint8Array {\n  const purpose = "";',
    ],
    [
      "what was sealed for one tenant opens for no other",
      "const owner = objectName(tenant);",
      "const owner = tenant.region;",
    ],
    [
      "data is sealed with the tenant's own key",
      "const body = await encrypt(await unwrap(tenant, key), aad(tenant, purpose), plain);",
      "const body = await encrypt(await wrappingKey(newest), aad(tenant, purpose), plain);",
    ],
    ["the newest key of the deployment wraps", "Math.max(...wrappingKeys.keys())", "Math.min(...wrappingKeys.keys())"],
    ["an unknown version is refused", "if (sealed[0] !== VERSION) throw", "if (sealed[0] === 255) throw"],
  ]),
  ...of("src/storage/files.ts", FILE_KEYS, [
    [
      "each file has a key of its own",
      "const raw = crypto.getRandomValues(new Uint8Array(32));",
      "const raw = new Uint8Array(32);",
    ],
    [
      "a file's key opens under its own id alone",
      "const purpose = (id: string) =>",
      'const purpose = (_: string, id = "") =>',
    ],
  ]),
  ...of(
    "src/core/sealed-chunks.ts",
    [...FILE_KEYS, "test/unit/core/sealed-chunks.test.ts"],
    [
      ["chunks of a file cannot be swapped", "new DataView(nonce.buffer).setUint32(7, index);", "void index;"],
      ["a file that was cut does not open", "nonce[11] = isLast ? 1 : 0;", "void isLast;"],
    ],
  ),
  ...of("src/storage/segments.ts", FILE_KEYS, [
    [
      "a segment is listed only once it is there",
      "      await stores.bucket(tenant).put(segment.objectKey, sealed);\n      await stores.manifest(tenant, segment);",
      "      await stores.manifest(tenant, segment);\n      await stores.bucket(tenant).put(segment.objectKey, sealed);",
    ],
    [
      "a segment is read by its own tenant alone",
      'if (!segment.objectKey.startsWith(journalPrefix(tenant))) throw new TypeError("segment of another tenant");',
      "",
    ],
  ]),
  ...of("src/data/ledger.ts", LEDGER, [
    [
      "a late write takes nothing back",
      "platform.upsert(usageRollup, key, row, { grows: usageRollup.requests })",
      "platform.upsert(usageRollup, key, row)",
    ],
    ["usage of each end user is a row of its own", "endUser: hour.endUser ?? NOBODY,", "endUser: NOBODY,"],
    ["last uses are marked", "      await inBatches(own, lastUsedUpdates(own, lastUsedMs));\n", ""],
    ["every hour is written", "from += BATCH_SIZE", "from += BATCH_SIZE + 1"],
  ]),
  ...of("src/data/api-keys.ts", LEDGER, [
    ["a last use never goes back", "and(eq(apiKey.id, id), isEarlier) as SQL", "eq(apiKey.id, id)"],
    ["a last use is that of its own key", "and(eq(apiKey.id, id), isEarlier) as SQL", "isEarlier as SQL"],
  ]),
  ...of("durable-objects/tenant-gate.ts", OBJECT, [
    [
      "sealing is due again when it says so",
      'this.#upkeep.keepPromise("segment", await this.#segments.sealDue(Date.now()));',
      'this.#upkeep.keepPromise("segment", undefined);',
    ],
    [
      "sums are not told while the ledger does not have them",
      'if (!(await this.#upkeep.tryNow("rollup"))) throw new Error("the ledger does not answer");',
      'await this.#upkeep.tryNow("rollup");',
    ],
  ]),
  ...of("durable-objects/gate-upkeep.ts", OBJECT, [
    [
      "work that a crash cut off is done when somebody asks again, on the running object",
      "    this.#due.put({ kind: RESUME, id: kind, dueAtMs: nowMs + RESUME_MS, attempt });\n",
      "",
    ],
  ]),
  ...of("durable-objects/journal-tail.ts", OBJECT, [
    [
      "nothing is counted at start",
      "const sealedSeq = sql.lastSegment()?.last_seq ?? 0;",
      "sql.journalFrom(0, 1_000_000);\n    const sealedSeq = sql.lastSegment()?.last_seq ?? 0;",
    ],
    [
      "a full segment's worth of young rows is not read at once",
      "this.#sql.databaseBytes() > hotBytes ? nowMs : nowMs + youngMs",
      "nowMs",
    ],
  ]),
];
