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

/** Printable ASCII. SQLite stops at a NUL, and every lexer has its own idea of what else is a space or a letter. */
const ALPHABET = /^[ -~\n\t]*$/;

/**
 * The tree is SQLite's reading of a text; Postgres gets the same text and must read the same. Its comments nest and
 * its strings can escape their quotes, so what one takes for a condition the other may take for a comment or a string.
 * The query builder writes neither.
 */
const READ_DIFFERENTLY = ["--", "/*", "\\"];

/**
 * Judges one SQL text by its syntax tree. Pure.
 * @param tables the tenant tables; each has tenant_id and deleted_at
 */
export function judge(sql: string, tables: ReadonlySet<string>): Verdict {
  if (sql.length > LONGEST_TEXT) return { allowed: false, reason: "it is too long" };
  if (!ALPHABET.test(sql)) return { allowed: false, reason: "it has characters that are not printable ASCII" };
  const mark = READ_DIFFERENTLY.find((found) => sql.includes(found));
  if (mark !== undefined) return { allowed: false, reason: `${mark} is not allowed in it` };
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
    if (!verdict.numberedInOrder) throw refused("its parameters are not numbered in the order they appear", sql);
    if (!verdict.tenantParameters.every((place) => params[place] === tenantId)) {
      throw refused("it is scoped to another tenant", sql);
    }
    if (!deletedToo && !verdict.excludesDeleted) throw refused("it would reach deleted rows", sql);
  }

  /** The least recently used text is forgotten first; one that is refused is not worth remembering. */
  #verdictOf(sql: string): Verdict {
    const verdict = this.#verdicts.get(sql) ?? judge(sql, this.#tables);
    if (!verdict.allowed) return verdict;
    this.#verdicts.delete(sql);
    this.#verdicts.set(sql, verdict);
    const [oldest] = this.#verdicts.keys();
    if (this.#verdicts.size > this.cacheEntries && oldest !== undefined) this.#verdicts.delete(oldest);
    return verdict;
  }
}

const refused = (reason: string, sql: string) => new TypeError(`statement refused: ${reason}: ${sql.slice(0, 300)}`);
