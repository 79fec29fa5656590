import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { getTableName } from "drizzle-orm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as schema from "../../../src/data/schema";
import { judge, StatementGuard } from "../../../src/data/statement-guard";

/**
 * The guard against statements that nobody would write and everybody might: they run for real, on the real schema,
 * with rows of two tenants whose every cell says whose it is.
 */
const TABLES = new Set(Object.values(schema).map((table) => getTableName(table)));
const [ADA, BOB] = ["proj_ada", "proj_bob"];
const DDL = readFileSync(join(import.meta.dirname, "../../../migrations/d1/0000_init.sql"), "utf8");

function twoTenants(): DatabaseSync {
  const database = new DatabaseSync(":memory:");
  database.exec(DDL);
  for (const tenant of [ADA, BOB]) {
    for (const deleted of [null, 5]) {
      const mark = `canary ${tenant}${deleted === null ? "" : " buried"}`;
      const id = deleted === null ? "r1" : "r2";
      database.prepare("insert into service_account values (?, ?, ?, ?, 1, 1, ?)").run(tenant, id, mark, mark, deleted);
      database
        .prepare("insert into api_key values (?, ?, ?, ?, ?, '[]', null, null, 1, 1, ?)")
        .run(tenant, id, id, mark, mark, deleted);
      database
        .prepare("insert into project values (?, ?, ?, 'global', ?, null, ?, null, 1, 1, ?)")
        .run(tenant, id, mark, mark, mark, deleted);
    }
  }
  return database;
}

interface Attack {
  readonly sql: string;
  readonly params: readonly string[];
}
/** What a statement did: rows it gave, and whether it changed what is not Ada's. */
function run(attack: Attack): { readonly seen: string; readonly harmed: boolean } {
  const database = twoTenants();
  const all = () =>
    JSON.stringify(
      ["service_account", "api_key", "project"].map((table) =>
        database.prepare(`select * from ${table} where tenant_id = ?`).all(BOB),
      ),
    );
  const before = all();
  let seen = "";
  try {
    seen = JSON.stringify(database.prepare(attack.sql).all(...attack.params));
  } catch (error) {
    seen = String(error);
  }
  const after = (() => {
    try {
      return all();
    } catch {
      return "tables are gone";
    }
  })();
  database.close();
  return { seen, harmed: before !== after };
}
const leaks = ({ seen, harmed }: ReturnType<typeof run>) => harmed || seen.includes(`canary ${BOB}`);

/** A piece of SQL with the values of its own parameters, so that pieces can be put together anyhow. */
type Piece = Attack;
const piece = (sql: string, ...params: string[]): Piece => ({ sql, params });
const glue = (text: TemplateStringsArray, ...parts: (Piece | string)[]): Piece => {
  const params: string[] = [];
  let sql = text[0] ?? "";
  for (const [index, part] of parts.entries()) {
    sql += typeof part === "string" ? part : part.sql;
    if (typeof part !== "string") params.push(...part.params);
    sql += text[index + 1] ?? "";
  }
  return { sql, params };
};

const table = fc.constantFrom("service_account", "api_key", "project");
const alias = fc.constantFrom("a", "b", "service_account", "api_key");
const own = (name: string) => piece(`"${name}"."tenant_id" = ?`, ADA);
const alive = (name: string) => `"${name}"."deleted_at" is null`;
const honest = (name: string) => glue`(${own(name)} and ${alive(name)})`;

/** Conditions that look like a scope, and some that are one. */
const condition = (name: string): fc.Arbitrary<Piece> =>
  fc.constantFrom(
    honest(name),
    honest(name),
    own(name),
    glue`(${own(name)}) and (${alive(name)}) and 1 = 1`,
    glue`${honest(name)} and ("${name}"."name" like '%' or 1 = 1)`,
    glue`${honest(name)} or 1 = 1`,
    glue`(${own(name)} or 1 = 1) and ${alive(name)}`,
    glue`not (${own(name)})`,
    glue`${alive(name)} and not ${own(name)}`,
    glue`${own(name)} is not null`,
    piece(`"${name}"."tenant_id" = ?`, BOB),
    piece(`"${name}"."tenant_id" <> ?`, ADA),
    piece(`"${name}"."tenant_id" >= ?`, ADA),
    piece(`"${name}"."tenant_id" in (?, '${BOB}')`, ADA),
    piece(`"${name}"."tenant_id" = '${BOB}'`),
    piece(`"${name}"."tenant_id" = "${name}"."tenant_id"`),
    piece(`"${name}"."tenant_id" = ? || '' or '1' = '1'`, ADA),
    piece(`"${name}"."tenant_id" = coalesce("${name}"."tenant_id", ?)`, ADA),
    piece(`"${name}"."tenant_id" like '%' -- "${name}"."tenant_id" = ?`),
    piece(`/* "${name}"."tenant_id" = ? */ 1 = 1`),
    piece(`"${name}"."tenant_Id" = ? or "${name}"."deleted_at" is null`, ADA),
    piece("tenant_id = ?", ADA),
    piece(`'"${name}"."tenant_id" = ?' is not null`),
    piece("1 = 1"),
    piece(`case when "${name}"."tenant_id" = ? then 1 else 1 end`, ADA),
    piece(`"other"."tenant_id" = ?`, ADA),
  );

const joinWord = fc.constantFrom(
  "inner join",
  "join",
  "left join",
  "right join",
  "full join",
  "natural join",
  "cross join",
  ",",
);

/** A SELECT over one or two tables, each part chosen by itself. */
const select: fc.Arbitrary<Piece> = fc
  .tuple(table, alias, table, fc.constantFrom("c", "d"), joinWord)
  .chain(([first, a, second, c, join]) =>
    fc
      .tuple(
        condition(a),
        condition(c),
        condition(a),
        fc.boolean(),
        fc.constantFrom("", `order by "${a}"."id"`, "limit 5", `order by (select name from ${second})`),
      )
      .map(([where, on, whereToo, isJoined, tail]) => {
        if (!isJoined) return glue`select "${a}"."name" from ${first} as "${a}" where ${where} ${tail}`;
        const isBare = join === "," || join === "natural join";
        const columns = `"${a}"."name", "${c}"."name"`;
        if (isBare)
          return glue`select ${columns} from ${first} as "${a}" ${join} ${second} as "${c}" where ${where} and ${on}`;
        return glue`select ${columns} from ${first} as "${a}" ${join} ${second} as "${c}" on ${on} and ${whereToo} where ${where} ${tail}`;
      }),
  );

/** Whatever reads a table from somewhere else in a statement. */
const wrapped: fc.Arbitrary<Piece> = fc
  .tuple(table, table, select, condition("t"))
  .chain(([outer, inner, query, where]) =>
    fc.constantFrom(
      glue`with x as (${query}) select * from x`,
      glue`with ${outer} as (select * from main.${outer}) select * from ${outer} where "${outer}"."tenant_id" = ${piece("?", ADA)}`,
      glue`with recursive x as (select name from ${inner} union select name from x) select * from x`,
      glue`${query} union all select name from ${inner}`,
      glue`select name from ${inner} except select 'x'`,
      glue`${query} intersect ${query}`,
      glue`select * from (${query}) as t`,
      glue`select * from (select * from ${inner}) as t where ${where}`,
      glue`select (select group_concat(name) from ${inner}) from ${outer} as t where ${where}`,
      glue`select (${query} limit 1) from ${outer} as t where ${honest("t")}`,
      glue`select name from ${outer} as t where ${where} and exists (select 1 from ${inner})`,
      glue`select t.name from ${outer} as t where ${honest("t")} and t.name in (${query})`,
      glue`select name from ${outer} as t where ${where} and id in ${inner}`,
      glue`select name, row_number() over (order by name) from ${inner} as t where ${where}`,
      glue`select max(name), (select group_concat(t2.name) from ${inner} as t2 where t2.tenant_id <> t.tenant_id) from ${outer} as t where ${honest("t")}`,
      glue`select t.name from ${outer} as t where ${honest("t")} group by t.name having (select count(*) from ${inner}) > 0`,
      glue`select u.name from ${outer} as t left join ${inner} as u on ${honest("t")} where ${honest("t")}`,
      glue`select t.name from ${outer} as t left join ${inner} as u on ${honest("t")} and ${honest("u")}`,
      glue`select t.name from ${outer} as t join json_each(${piece("?", "[1]")}) as j where ${where}`,
      glue`select value from json_each((select json_group_array(name) from ${inner})) as j`,
      glue`select t.name from ${outer} as t where ${honest("t")} and t.id in (select value from json_each(${piece("?", '["r1"]')}))`,
      glue`values ((select group_concat(name) from ${inner}))`,
      glue`select sql from sqlite_master`,
      glue`select * from pragma_table_info('${outer}')`,
      glue`select name from main.${outer} as t where ${where}`,
      glue`select name from "${outer}" as "t" where ${where} collate nocase`,
      glue`select name from ${outer} as t where ${where}; select name from ${inner}`,
      glue`explain select name from ${outer}`,
    ),
  );

const write: fc.Arbitrary<Piece> = fc
  .tuple(table, table, fc.constantFrom("service_account", "t"))
  .chain(([target, other, name]) =>
    fc
      .tuple(condition(name), condition(target), select)
      .chain(([where, plain, query]) =>
        fc.constantFrom(
          glue`update ${target} as ${name} set name = 'taken' where ${where}`,
          glue`update ${target} set name = 'taken' where ${plain} returning name`,
          glue`update ${target} set tenant_id = ${piece("?", BOB)} where ${honest(target)}`,
          glue`update ${target} set name = (select group_concat(name) from ${other}) where ${honest(target)} returning name`,
          glue`update ${target} set name = u.name from ${other} as u where ${honest(target)} returning ${target}.name`,
          glue`update or replace ${target} set id = 'r9', tenant_id = ${piece("?", BOB)} where ${plain}`,
          glue`update ${target} set name = 'taken'`,
          glue`delete from ${target} where ${plain} returning name`,
          glue`delete from ${target} as ${name} where ${where}`,
          glue`delete from ${target}`,
          glue`delete from ${target} where ${honest(target)} and (select count(*) from ${other}) > 0 returning (select group_concat(name) from ${other})`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'n', 'n', 'n', 1, 1)`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", BOB)}, 'n', 'n', 'n', 1, 1)`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values ('${BOB}', ${piece("?", ADA)}, 'n', 'n', 1, 1)`,
          glue`insert into service_account values (${piece("?", BOB)}, 'n', 'n', 'n', 1, 1, null)`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'n', 'n', 'n', 1, 1), ('${BOB}', 'n', 'n', 'n', 1, 1)`,
          glue`insert into service_account (id, tenant_id, name, role, created_at, updated_at) values (${piece("?", ADA)}, ${piece("?", BOB)}, 'n', 'n', 1, 1)`,
          glue`insert or replace into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", BOB)}, 'r1', 'n', 'n', 1, 1)`,
          glue`replace into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", BOB)}, 'r1', 'n', 'n', 1, 1)`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) select ${piece("?", ADA)}, 'x' || id, name, role, 1, 1 from service_account returning name`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'n', (select group_concat(name) from ${other}), 'n', 1, 1) returning name`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'r1', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set tenant_id = ${piece("?", BOB)}`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'r1', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set name = (select group_concat(name) from ${other}) returning name`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'r1', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set name = 'mine'`,
          glue`insert into service_account (tenant_id, id, name, role, created_at, updated_at) values (${piece("?", ADA)}, 'r1', 'n', 'n', 1, 1) on conflict do nothing`,
          glue`insert into service_account default values`,
          glue`create table ${name}x as select * from ${target}`,
          glue`create view v as select * from ${target}`,
          glue`drop table ${target}`,
          glue`alter table ${target} rename to gone`,
          glue`create trigger x after insert on ${target} begin delete from ${other}; end`,
          glue`attach database ':memory:' as other`,
          glue`pragma writable_schema = on`,
          glue`vacuum into '/dev/null'`,
          glue`begin`,
          glue`${query}; delete from ${target}`,
        ),
      ),
  );

const attacks = fc.oneof(
  { weight: 3, arbitrary: select },
  { weight: 3, arbitrary: wrapped },
  { weight: 3, arbitrary: write },
);

const PROVE = process.env.PROVE === "1";
const generated = fc.sample(attacks, PROVE ? { numRuns: 50_000 } : { numRuns: 500, seed: 20_261_123 });

describe("the guard, attacked with generated statements", { timeout: 300_000 }, () => {
  const guard = new StatementGuard(TABLES);
  const passes = (attack: Attack, deletedToo = false) => {
    try {
      guard.assertScoped(attack, ADA, deletedToo);
      return true;
    } catch {
      return false;
    }
  };
  const judged = generated.map((attack) => ({
    attack,
    isPassed: passes(attack),
    isPassedWithDeleted: passes(attack, true),
  }));

  it("lets none through that shows or changes another tenant's rows", () => {
    for (const { attack, isPassedWithDeleted } of judged) {
      if (isPassedWithDeleted) expect(leaks(run(attack)), attack.sql).toBe(false);
    }
  });

  it("lets none through that shows deleted rows, unless they were asked for", () => {
    for (const { attack, isPassed } of judged) {
      if (isPassed) expect(run(attack).seen, attack.sql).not.toContain("buried");
    }
  });

  it("lets the honest ones through, and they work", () => {
    const passed = judged.filter(({ isPassed }) => isPassed);
    expect(passed.length).toBeGreaterThan(generated.length / 25);
    const seen = passed.map(({ attack }) => run(attack).seen);
    expect(seen.filter((text) => text.includes(`canary ${ADA}`)).length).toBeGreaterThan(10);
    expect(
      seen.filter((text) => text.includes("syntax error")),
      "none of them is broken SQL",
    ).toEqual([]);
  });

  it("is needed: without it, many of the same statements leak", () => {
    const leaking = judged.filter(({ attack }) => leaks(run(attack)));
    expect(leaking.length).toBeGreaterThan(100);
    expect(leaking.every(({ isPassedWithDeleted }) => !isPassedWithDeleted)).toBe(true);
  });
});

describe("a statement that lost its filter", () => {
  /** What the handle writes, read off its own statements, and each of its conjuncts taken out in turn. */
  const honestOnes: readonly Attack[] = [
    glue`select "service_account"."name" from "service_account" where ${honest("service_account")}`,
    glue`select count(*) from "api_key" where ${honest("api_key")} and "api_key"."name" = ${piece("?", `canary ${BOB}`)}`,
    glue`select "api_key"."name", "service_account"."name" from "api_key" left join "service_account" on (${own("service_account")} and ${alive("service_account")} and "service_account"."id" = "api_key"."service_account_id") where ${honest("api_key")}`,
    glue`update "service_account" set "name" = 'x' where ${honest("service_account")} returning "name"`,
    glue`delete from "api_key" where ${honest("api_key")}`,
  ];
  const filters = [/\("?\w+"?\."tenant_id" = \? and /g, /"?\w+"?\."tenant_id" = \? and /g];

  it("passes while it has it, is refused without, and leaks then", () => {
    let leaked = 0;
    for (const whole of honestOnes) {
      expect(judge(whole.sql, TABLES), whole.sql).toMatchObject({ allowed: true });
      for (const filter of filters) {
        for (const match of whole.sql.matchAll(filter)) {
          const without = match[0].startsWith("(") ? "(" : "";
          const sql = whole.sql.slice(0, match.index) + without + whole.sql.slice(match.index + match[0].length);
          const place = [...whole.sql.slice(0, match.index)].filter((character) => character === "?").length;
          const params = whole.params.filter((_, index) => index !== place);
          expect(judge(sql, TABLES), sql).toMatchObject({ allowed: false });
          if (leaks(run({ sql, params })) || run({ sql, params }).seen.includes('"count(*)":1')) leaked++;
        }
      }
    }
    expect(leaked).toBeGreaterThanOrEqual(8);
  });

  it("reaches deleted rows when that filter is lost, and is refused as well", () => {
    const guard = new StatementGuard(TABLES);
    for (const whole of honestOnes) {
      const sql = whole.sql.replace(/ and "\w+"\."deleted_at" is null/, "");
      expect(() => guard.assertScoped({ ...whole, sql }, ADA, false), sql).toThrow(/deleted rows/);
      expect(() => guard.assertScoped({ ...whole, sql }, ADA, true)).not.toThrow();
    }
    const first = honestOnes[0] as Attack;
    expect(run({ ...first, sql: first.sql.replace(/ and "\w+"\."deleted_at" is null/, "") }).seen).toContain("buried");
  });
});

describe("a rule of the guard", () => {
  const where = `where "project"."tenant_id" = ?`;
  const insert = "insert into project (tenant_id, id) values (?, ?)";
  it.each([
    ["one statement", `select name from project ${where}; select 1`, /one statement/],
    ["no statement at all", "", /one statement/],
    ["known syntax", `with x as (select 1) select name from project ${where}`, /With is not allowed/],
    ["no compounds", `select name from project ${where} union select 1`, /CompoundSelect is not allowed/],
    ["no list of a table", `select name from project ${where} and id in project`, /InTableExpr is not allowed/],
    ["no star", `select * from project ${where}`, /StarResultColumn is not allowed/],
    ["tenant tables alone", "select name from sqlite_master as t where t.tenant_id = ?", /no table of a tenant/],
    ["no named schema", `select name from main.project ${where}`, /named schema/],
    [
      "a name of its own for each table",
      "select 1 from project as t join api_key as T on t.tenant_id = ? where t.tenant_id = ?",
      /one name/,
    ],
    ["inner and left joins", `select 1 from project right join api_key on api_key.tenant_id = ? ${where}`, /LEFT JOIN/],
    ["a scope for what is joined", `select 1 from project join api_key on 1 = 1 ${where}`, /api_key is not bound/],
    ["a scope for a subquery", `select (select max(id) from api_key) from project ${where}`, /api_key is not bound/],
    ["functions that only compute", `select load_extension('x') from project ${where}`, /load_extension/],
    [
      "functions of rows that only read their argument",
      "select name from pragma_table_list() as t",
      /function of rows/,
    ],
    ["no windows", `select count(*) over (partition by name) from project ${where}`, /not allowed/],
    ["no named windows", `select name from project ${where} window w as (order by name)`, /window/i],
    ["VALUES in INSERT alone", "select 1 from project where exists (values (1))", /./],
    ["columns in INSERT", "insert into project values (?, ?)", /among the columns/],
    ["tenant_id among them", "insert into project (id) values (?)", /among the columns/],
    ["a parameter in its place", "insert into project (tenant_id, id) values ('x', ?)", /not a parameter/],
    ["rows, not a query", "insert into project (tenant_id, id) select ?, 'x'", /only VALUES/],
    ["no OR", insert.replace("insert", "insert or ignore"), /with OR/],
    ["tenant_id in the conflict", `${insert} on conflict (id) do nothing`, /does not name tenant_id/],
    ["a named conflict", `${insert} on conflict do nothing`, /does not name tenant_id/],
    ["one conflict", `${insert} on conflict (tenant_id, id) do nothing on conflict (tenant_id) do nothing`, /several/],
    ["a tenant that stays", `update project set tenant_id = ? ${where}`, /cannot be changed/],
    [
      "a tenant that stays, written differently",
      `update project set (name, "TENANT_ID") = (?, ?) ${where}`,
      /cannot be changed/,
    ],
    ["one table in UPDATE", `update project set name = 'x' from api_key ${where}`, /FROM is not allowed/],
  ])("%s: what breaks it is refused by name", (_, sql, reason) => {
    const verdict = judge(sql, TABLES);
    expect(verdict, sql).toMatchObject({ allowed: false, reason: expect.stringMatching(reason) });
  });
});

describe("the guard", () => {
  const guard = new StatementGuard(TABLES, 2);
  const text = `select "name" from "project" where "project"."tenant_id" = ?`;

  it("holds the tenant's parameter to the tenant, wherever it stands", () => {
    expect(() => guard.assertScoped({ sql: text, params: [ADA] }, ADA, true)).not.toThrow();
    for (const wrong of [BOB, "", `${ADA} `, null, undefined, 0, [ADA], { toString: () => ADA }]) {
      expect(() => guard.assertScoped({ sql: text, params: [wrong] }, ADA, true)).toThrow(/another tenant/);
    }
    expect(() => guard.assertScoped({ sql: text, params: [] }, ADA, true)).toThrow(/another tenant/);
  });

  it("reads Postgres parameters by their number, and refuses a mixture", () => {
    const numbered = `select "name" from "project" where "project"."name" = $2 and "project"."tenant_id" = $1`;
    expect(judge(numbered, TABLES)).toMatchObject({ allowed: true, tenantParameters: [0] });
    for (const mixed of ["?", ":a", "@a", "?1", "$a", "$0", "$01", "$1.5"]) {
      expect(judge(`${numbered} and "project"."id" = ${mixed}`, TABLES), mixed).toMatchObject({ allowed: false });
    }
  });

  it("takes lists in both dialects as one JSON parameter", () => {
    for (const rows of [
      "json_each(?)",
      "jsonb_array_elements_text(cast(? as jsonb))",
      "jsonb_each_text(cast(? as jsonb))",
    ]) {
      expect(judge(`${text} and "project"."id" in (select value from ${rows})`, TABLES)).toMatchObject({
        allowed: true,
      });
    }
  });

  it("forgets the text it has not seen for longest, and judges it anew", () => {
    for (const sql of [text, `${text} and 1 = 1`, `${text} and 2 = 2`, text]) {
      expect(() => guard.assertScoped({ sql, params: [ADA] }, ADA, true)).not.toThrow();
      expect(() => guard.assertScoped({ sql, params: [BOB] }, ADA, true)).toThrow();
    }
  });

  it("says why, and never shows a value", () => {
    const secret = "a value of somebody's";
    for (const sql of [
      "select * from project",
      "pragma user_version",
      "not sql",
      `${text} or 1 = 1`,
      "x".repeat(30_000),
    ]) {
      expect(() => guard.assertScoped({ sql, params: [secret] }, ADA, true)).toThrow(/^statement refused: /);
      expect(() => guard.assertScoped({ sql, params: [secret] }, ADA, true)).not.toThrow(secret);
    }
  });
});
