import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import fc from "fast-check";
import { tokenize } from "sqlite3-parser";

/** A statement as somebody might send it. */
export interface Attack {
  readonly sql: string;
  readonly params: readonly SQLInputValue[];
}

export const [ADA, BOB] = ["proj_ada", "proj_bob"];

const own = (table: string) => `"${table}"."tenant_id" = ?`;
const scope = (table: string, ...more: string[]) =>
  `(${[own(table), `"${table}"."deleted_at" is null`, ...more].join(" and ")})`;
const insert = `insert into "service_account" ("id", "tenant_id", "name", "role", "created_at", "updated_at", "deleted_at") values (?, ?, ?, ?, ?, ?, null)`;
const upsert = `${insert} on conflict ("service_account"."tenant_id", "service_account"."id")`;

/** What the scoped handle writes; all of it for Ada. */
export const HONEST: readonly Attack[] = [
  {
    sql: `select "id", "name" from "project" where ${scope("project", '("project"."id" > ? or "project"."status" = ?)')} order by "project"."created_at" asc, "project"."id" limit ?`,
    params: [ADA, "a", "b", 10],
  },
  { sql: `select "name" from "project" where ${own("project")} limit ?`, params: [ADA, 5] },
  { sql: `select count(*) from "api_key" where ${scope("api_key")}`, params: [ADA] },
  {
    sql: `select "api_key"."id", "service_account"."name" from "api_key" left join "service_account" on ${scope("service_account", '"service_account"."id" = "api_key"."service_account_id"')} where ${scope("api_key")} order by "api_key"."id" desc limit ?`,
    params: [ADA, ADA, 10],
  },
  {
    sql: `select "a"."name", "b"."name" from "api_key" "a" inner join "project" "b" on ${own("b")} where ${scope("a", '"b"."deleted_at" is null')}`,
    params: [ADA, ADA],
  },
  {
    sql: `select "name" from "service_account" where ${scope("service_account", '"service_account"."id" in (select value from json_each(?))')}`,
    params: [ADA, '["r1"]'],
  },
  {
    sql: `select "name" from "service_account" where ${scope("service_account", `exists (select 1 from "api_key" where ${scope("api_key", '"api_key"."service_account_id" = "service_account"."id"')})`)}`,
    params: [ADA, ADA],
  },
  {
    sql: `select coalesce(sum("project"."created_at"), 0), max("name") from "project" where ${scope("project")} group by "project"."region" having count(*) > ?`,
    params: [ADA, 0],
  },
  { sql: `${insert} returning "name"`, params: ["n1", ADA, "new", "member", 1, 1] },
  {
    sql: `${upsert} do update set "name" = ?, "role" = excluded."role" returning "name"`,
    params: ["r1", ADA, "new", "member", 1, 1, "changed"],
  },
  { sql: `${upsert} do nothing`, params: ["r1", ADA, "new", "member", 1, 1] },
  {
    sql: `update "project" set "name" = ?, "updated_at" = ? where ${scope("project", '"project"."id" = ?')} returning "name"`,
    params: ["changed", 2, ADA, "r1"],
  },
  { sql: `delete from "api_key" where ${scope("api_key", '"api_key"."id" = ?')}`, params: [ADA, "r1"] },
];

/** A word of SQL with the value that goes with it, when it is a parameter. */
interface Word {
  readonly text: string;
  readonly values: readonly SQLInputValue[];
}

const wordsOf = ({ sql, params }: Attack): Word[] => {
  const left = [...params];
  return Array.from(tokenize(sql), ({ text }) => ({ text, values: text === "?" ? left.splice(0, 1) : [] }));
};
const written = (words: readonly Word[]): Attack => ({
  sql: words.map(({ text }) => text).join(" "),
  params: words.flatMap(({ values }) => values),
});

/** `?` of what is put into a statement is Bob. */
const wordsFrom = (sql: string, whose = BOB): Word[] => wordsOf({ sql, params: Array(9).fill(whose) });

/** What is put among the words of an honest statement. Nothing that could reach a file: these are run. */
const STRANGERS: readonly string[] = [
  ...["or", "not", "and", "(", ")", ",", ".", "=", "<>", ">", "is", "null", "is not", "between", "like", "case", "||"],
  ...["select", "from", "where", "union all", "except", "join", "left join", "right join", "full join", "natural join"],
  ...[
    "on",
    "as",
    "in",
    "exists",
    "limit",
    "order by",
    "group by",
    "having",
    "set",
    "returning",
    "values",
    "or replace",
  ],
  ...["with", "collate nocase", "or 1 = 1", "1", "*", ";", "/", "-", "default values", "?", "'x'", "excluded"],
  ...['"project"', '"api_key"', '"a"', "service_account", "tenant_id", '"tenant_id"', '"tenant_idd"', "deleted_at"],
];

/** Slips that somebody could make who knows what he does: words, and what comes in their place. `*` is any word. */
const REWRITES: readonly (readonly [words: string, instead: string])[] = [
  ["and", "or"],
  ["and", "or not"],
  ["and", "and 1 = 1 and"],
  ['* . "tenant_id" = ? and', ""],
  ['where * . "tenant_id" = ?', "where 1 = 1"],
  ...[
    "is not null",
    "<> ?",
    ">= ''",
    "= tenant_id",
    "like '%'",
    "in (select tenant_id from api_key)",
    "= ? collate nocase",
  ].map((test) => ['"tenant_id" = ?', `"tenant_id" ${test}`] as const),
  ['* . "tenant_id" = ?', "? = ?"],
  ['* . "tenant_id" = ?', '"tenant_idd" <> ?'],
  ['* . "deleted_at" is null', "1 = 1"],
  ["is null", "is not null"],
  ["where", "where 1 = 1 or"],
  ["where", "where not"],
  ["on", "on 1 = 1 or"],
  [")", ") or 1 = 1"],
  ["left join", "full join"],
  ["inner join", ", "],
  ['left join "service_account" on', 'right join "service_account" on'],
  ["=", "<>"],
  ["?", "?"],
  ["?", "(select max(name) from project)"],
  ["null", "(select max(created_at) from project)"],
  ['"name"', "(select count(*) from api_key)"],
  ['"name"', '(select max(t.name) from service_account t where t.tenant_id = "tenant_id")'],
  ['from "project"', 'from (select * from "project") as "project"'],
  ['from "project"', 'from main."project"'],
  ['from "api_key"', 'from "service_account" as "api_key"'],
  ['from "api_key"', 'from "project" join "api_key"'],
  ['"id" in', '"id" not in'],
  ["in ( select value from json_each ( ? ) )", "in api_key"],
  ["limit ?", "limit (select count(*) from api_key)"],
  ["limit ?", "union all select tenant_id, name from api_key"],
  ["limit ?", "union all select name from project limit ?"],
  ["insert", "insert or replace"],
  ["insert", "insert or ignore"],
  ['"id" , "tenant_id"', '"tenant_id" , "id"'],
  ["values ( ? , ? , ? , ? , ? , ? , null )", "select id, tenant_id, 'x', role, 1, 1, null from service_account"],
  ["null )", "null), ('r1', ?, 'x', 'x', 1, 1, null)"],
  ["do nothing", "do update set tenant_id = ?"],
  ["set", "set tenant_id = ?,"],
  ["returning", "returning (select group_concat(name) from project),"],
];

const OTHERS = `"api_key" as "k" where ${scope("k")}`;
/** The same with what is still honest, `?` being Ada: so that what is changed is not always small. */
const ADDITIONS: readonly (readonly [words: string, instead: string])[] = [
  ['"name"', `coalesce((select max("k"."name") from ${OTHERS}), 'none')`],
  ['"name"', 'lower("name")'],
  ['"id"', 'min("id", ?)'],
  ["?", `(select count(*) from ${OTHERS})`],
  ["?", 'coalesce(?, (select "p"."id" from "project" as "p" where "p"."tenant_id" = ? limit 1))'],
  ["null", `(select max("k"."created_at") from ${OTHERS})`],
  ["and", `and exists (select 1 from ${OTHERS}) and`],
  ["and", `and (1 = 1 or "id" not in (select "k"."id" from ${OTHERS})) and`],
  ["where", `left join "project" as "p" on ${scope("p")} where`],
  ["where", `inner join "service_account" as "s" on "s"."id" <> ? and ${scope("s")} where`],
  ["where", 'inner join json_each(\'[1, 2]\') as "j" on "j"."value" > 1 where'],
  ["is null", `is null and 'r1' in (select "k"."id" from ${OTHERS} group by "k"."id" having count(*) > 0)`],
  ["order by", `order by (select count(*) from ${OTHERS}), "name",`],
  ["limit ?", `limit (select count(*) from ${OTHERS})`],
  ["returning", `returning (select "k"."name" from ${OTHERS}),`],
  ["set", `set "created_at" = (select max("k"."created_at") from ${OTHERS}),`],
  ["null )", "null), (?, ?, 'new', 'new', 2, 2, null)"],
];

const place = fc.nat(999);
type Change = (words: readonly Word[]) => readonly Word[];
/** One of the rewrites that fit, `?` being `whose`. */
const rewriteBy = (table: typeof REWRITES, whose: string): fc.Arbitrary<Change> =>
  fc.tuple(place, place).map(([which, at]) => (words) => {
    const fitting = table.flatMap(([from, to]) => {
      const sought = wordsFrom(from).map(({ text }) => text);
      const isAt = (start: number) => sought.every((text, i) => text === "*" || text === words[start + i]?.text);
      const starts = words.flatMap((_, start) => (isAt(start) ? [start] : []));
      return starts.length > 0 ? [{ starts, count: sought.length, to }] : [];
    });
    const { starts, count, to } = fitting[which % fitting.length] ?? { starts: [], count: 0, to: "" };
    return words.toSpliced(starts[at % starts.length] ?? 0, count, ...wordsFrom(to, whose));
  });
const slip: fc.Arbitrary<Change> = fc
  .record({
    kind: fc.constantFrom("cut", "double", "swap", "put", "replace", "graft"),
    at: place,
    length: fc.integer({ min: 1, max: 8 }),
    stranger: fc.constantFrom(...STRANGERS),
    donor: fc.constantFrom(...HONEST),
  })
  .map(({ kind, at: anywhere, length, stranger, donor }) => (words) => {
    const at = anywhere % Math.max(words.length, 1);
    const given = wordsOf(donor);
    if (kind === "cut") return words.toSpliced(at, length);
    if (kind === "double") return words.toSpliced(at, 0, ...words.slice(at, at + length));
    if (kind === "swap") return words.toSpliced(at, 2, ...words.slice(at, at + 2).reverse());
    if (kind === "graft") return words.toSpliced(at, 0, ...given.slice(anywhere % given.length).slice(0, length * 3));
    return words.toSpliced(at, kind === "replace" ? 1 : 0, ...wordsFrom(stranger));
  });

const worse = fc.oneof({ weight: 3, arbitrary: rewriteBy(REWRITES, BOB) }, { weight: 1, arbitrary: slip });

/** Honest statements after up to five changes: many leak, many are broken, some are still honest. */
export const changed: fc.Arbitrary<Attack> = fc
  .tuple(
    fc.constantFrom(...HONEST),
    fc.array(rewriteBy(ADDITIONS, ADA), { maxLength: 3 }),
    fc.oneof(
      { weight: 1, arbitrary: fc.constant([]) },
      { weight: 3, arbitrary: fc.array(worse, { minLength: 1, maxLength: 2 }) },
    ),
  )
  .map(([honest, added, changes]) =>
    written([...added, ...changes].reduce((words, change) => change(words), wordsOf(honest) as readonly Word[])),
  );

const DDL = readFileSync(join(import.meta.dirname, "../../../migrations/d1/0000_init.sql"), "utf8");

/** A database with Ada's rows, and with the others' that are named: `Bob` and Ada's own deleted ones. */
export function worldOf(others: { readonly bob: boolean; readonly buried: boolean }): DatabaseSync {
  const database = new DatabaseSync(":memory:", { enableDoubleQuotedStringLiterals: true }); // as lenient as SQLite can be
  database.exec(DDL);
  const rows = [[ADA, null] as const];
  if (others.buried) rows.push([ADA, 5] as never);
  if (others.bob) rows.push([BOB, null], [BOB, 5] as never);
  for (const [tenant, deleted] of rows) {
    const [id, mark] = deleted === null ? ["r1", `canary ${tenant}`] : ["r2", `canary ${tenant} buried`];
    const at = tenant === BOB ? 7 : 1;
    database
      .prepare("insert into service_account values (?, ?, ?, ?, ?, 1, ?)")
      .run(tenant, id, mark, mark, at, deleted);
    database
      .prepare("insert into api_key values (?, ?, ?, ?, ?, '[]', null, null, ?, 1, ?)")
      .run(tenant, id, id, mark, mark, at, deleted);
    database
      .prepare("insert into project values (?, ?, ?, 'global', ?, null, ?, null, ?, 1, ?)")
      .run(tenant, id, mark, mark, mark, at, deleted);
  }
  return database;
}

/** What a statement answered, and what it left of whose rows. It is undone. */
export interface Outcome {
  readonly answer: string;
  readonly ada: string;
  readonly bob: string;
}

const TABLES = ["service_account", "api_key", "project"];

export function outcomeIn(database: DatabaseSync, { sql, params }: Attack): Outcome {
  const left = (whose: string) =>
    JSON.stringify(TABLES.map((table) => database.prepare(`select * from ${table} where ${whose}`).all()));
  database.exec("begin");
  try {
    return {
      answer: answerOf(database, sql, params),
      ada: left(`tenant_id <> '${BOB}'`),
      bob: left(`tenant_id = '${BOB}'`),
    };
  } finally {
    if (database.isTransaction) database.exec("rollback");
  }
}

function answerOf(database: DatabaseSync, sql: string, params: readonly SQLInputValue[]): string {
  try {
    const statement = database.prepare(sql);
    statement.setReturnArrays(true); // two columns may have one name
    return JSON.stringify(statement.all(...params));
  } catch (error) {
    return String(error);
  }
}

/**
 * Whether Ada's statement is any of Bob's business: it answers or leaves Ada something else because Bob is there, or
 * does something to Bob's rows. Counts and orders that tell of him are found as well as cells.
 */
export class Arena {
  readonly #together = worldOf({ bob: true, buried: true });
  readonly #adaAlone = worldOf({ bob: false, buried: true });
  readonly #adaUnburied = worldOf({ bob: false, buried: false });
  readonly #bobBefore = outcomeIn(this.#together, { sql: "select 1", params: [] }).bob;

  crossesTenants(attack: Attack): boolean {
    const [together, alone] = [outcomeIn(this.#together, attack), outcomeIn(this.#adaAlone, attack)];
    return together.answer !== alone.answer || together.ada !== alone.ada || together.bob !== this.#bobBefore;
  }

  /** Whether the answer tells of rows that were deleted. */
  digsUp(attack: Attack): boolean {
    return outcomeIn(this.#adaAlone, attack).answer !== outcomeIn(this.#adaUnburied, attack).answer;
  }

  answer = (attack: Attack): string => outcomeIn(this.#together, attack).answer;
}
