import { parse } from "sqlite3-parser";
import type { Statement } from "./database";
import { type Judged, judgeTree } from "./statement-scope";

/**
 * What must hold of a statement's parameters for it to be scoped: those at these places (0-based) are the tenant's
 * id. Or why no parameters could make it so.
 */
export type Verdict = Judged;

/** Longer texts than the query builder writes are none of ours. D1's own bound is 100 KB. */
const LONGEST_TEXT = 20_000;

/**
 * Judges one SQL text by its syntax tree. Pure.
 * @param tables the tenant tables; each has tenant_id and deleted_at
 */
export function judge(sql: string, tables: ReadonlySet<string>): Verdict {
  if (sql.length > LONGEST_TEXT) return { allowed: false, reason: "it is too long" };
  const parsed = parse(sql);
  if (parsed.status !== "ok") return { allowed: false, reason: "it is not SQL that can be checked" };
  return judgeTree(parsed.root, tables);
}

/**
 * The wall behind the scoped handle: every statement passes it on its way to a database. Each distinct text is parsed
 * once; texts are finite, because values and lists travel as parameters.
 */
export class StatementGuard {
  readonly #tables: ReadonlySet<string>;
  readonly #verdicts = new Map<string, Verdict>();

  constructor(
    tables: Iterable<string>,
    readonly cacheEntries = 1_000,
  ) {
    this.#tables = new Set(tables);
  }

  /**
   * @param deletedToo whether the statement may reach rows that were deleted softly
   * @throws TypeError with the reason, never with a value, when the statement could reach another tenant's rows
   */
  assertScoped({ sql, params }: Statement, tenantId: string, deletedToo: boolean): void {
    const verdict = this.#verdictOf(sql);
    if (!verdict.allowed) throw refused(verdict.reason, sql);
    if (!verdict.tenantParameters.every((place) => params[place] === tenantId)) {
      throw refused("it is scoped to another tenant", sql);
    }
    if (!deletedToo && !verdict.excludesDeleted) throw refused("it would reach deleted rows", sql);
  }

  /** The least recently used text is forgotten first. */
  #verdictOf(sql: string): Verdict {
    const verdict = this.#verdicts.get(sql) ?? judge(sql, this.#tables);
    this.#verdicts.delete(sql);
    this.#verdicts.set(sql, verdict);
    const [oldest] = this.#verdicts.keys();
    if (this.#verdicts.size > this.cacheEntries && oldest !== undefined) this.#verdicts.delete(oldest);
    return verdict;
  }
}

const refused = (reason: string, sql: string) => new TypeError(`statement refused: ${reason}: ${sql.slice(0, 300)}`);
