import type { Bucket } from "../src/core/counting-window";
import { periodOfKey, type StoredWindows } from "../src/core/rate-windows";
import type { AdmissionStatements } from "./gate-admission-statements";
import type { Statements } from "./tenant-gate-statements";

/** Rows of one step, and how many of them each written bucket pays for. */
const STEP_ROWS = 64;
const ROWS_PER_WRITE = 2;
/** Behind every other character. */
const LAST = "\u{10ffff}";

/** The windows of a gate in its storage: read by rule when somebody asks, and swept of what counts no longer. */
export class GateWindows implements StoredWindows {
  readonly #sql: Statements;
  readonly #statements: AdmissionStatements;
  #owedRows = 0;
  #swept = { rule: "", bucketMs: 0 };

  constructor(sql: Statements, admission: AdmissionStatements) {
    this.#sql = sql;
    this.#statements = admission;
  }

  buckets(rule: string): Bucket[] {
    return this.#statements.buckets(rule).map(({ bucket_ms, count }) => ({ bucketMs: bucket_ms, count }));
  }

  rules(prefix: string, after: string, limit: number): string[] {
    const rules: string[] = [];
    for (let last = after; rules.length < limit; ) {
      const rule = this.#statements.nextRule(last, prefix + LAST);
      if (rule === undefined) break;
      rules.push(rule);
      last = rule;
    }
    return rules;
  }

  /** So many buckets were written: a few others are looked at, and removed where nobody will ask for them again. */
  sweep(writtenRows: number, nowMs: number): void {
    this.#owedRows += writtenRows * ROWS_PER_WRITE;
    if (this.#owedRows < STEP_ROWS) return;
    this.#owedRows = 0;
    const rows = this.#statements.bucketsAfter(this.#swept.rule, this.#swept.bucketMs, STEP_ROWS);
    for (const { rule, bucket_ms } of rows) {
      if (periodOfKey(rule).leavesAtMs(bucket_ms) <= nowMs) this.#sql.removeBucket(rule, bucket_ms);
    }
    const last = rows.length < STEP_ROWS ? undefined : rows.at(-1);
    this.#swept = { rule: last?.rule ?? "", bucketMs: last?.bucket_ms ?? 0 };
  }
}
