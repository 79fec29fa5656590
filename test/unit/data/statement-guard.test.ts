import { getTableName } from "drizzle-orm";
import fc from "fast-check";
import { parse } from "sqlite3-parser";
import { describe, expect, it, vi } from "vitest";
import * as schema from "../../../src/data/schema";
import { judge, StatementGuard } from "../../../src/data/statement-guard";
import { FUNCTIONS } from "../../../src/data/statement-scope";
import { ADA, Arena, type Attack, BOB, changed, HONEST } from "./statement-attacks";

vi.mock("sqlite3-parser", async (original) => {
  const actual = await original<typeof import("sqlite3-parser")>();
  return { ...actual, parse: vi.fn(actual.parse) };
});

const TABLES = new Set(Object.values(schema).map((table) => getTableName(table)));
const guard = new StatementGuard(TABLES);
const arena = new Arena();

/** Why the guard refuses a statement of Ada's; empty where it does not. */
function refusal(attack: Attack, deletedToo = true): string {
  try {
    guard.assertScoped(attack, ADA, deletedToo);
    return "";
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError);
    return (error as TypeError).message;
  }
}

const OWN = "project.tenant_id = ?";
const NEW = "insert into service_account (tenant_id, id, name, role, created_at, updated_at)";
const BURIED = `canary ${BOB} buried`;
const ROW = "(?, 'n', 'n', 'n', 1, 1)";

type Sent = readonly [sql: string, ...params: string[]];
type Rule = readonly [rule: string, reason: RegExp, ...attacks: Sent[]];

/** For each rule statements that break it, and what Ada sends with them. They are run. */
const RULES: readonly Rule[] = [
  [
    "a condition on the tenant, that all rows must pass",
    /project is not bound to the tenant/,
    ["select name from project"],
    ["select name from project where name = ?", `canary ${BOB}`],
    [`select name from project where ${OWN} or 1 = 1`, ADA],
    [`select name from project where (${OWN} or name like '%') and deleted_at is null`, ADA],
    [`select name from project where not ${OWN}`, ADA],
    [`select name from project where (${OWN}) = 0`, ADA],
    [`select name from project where 1 = 1 or ${OWN} and deleted_at is null`, ADA],
    [`select name from project where case when ${OWN} then 1 else 1 end`, ADA],
    [`select name from project where ${OWN} is not null`, ADA],
    [`select name from project group by name, tenant_id having count(*) > 0 or ${OWN}`, ADA],
    [`select case when ${OWN} then 'mine' else name end from project`, ADA],
    ["update project set name = 'taken' where name <> ?", "x"],
    ["delete from project where id = ?", "r1"],
  ],
  [
    "equality of the column and one parameter, nothing else",
    /project is not bound to the tenant/,
    ["select name from project where project.tenant_id <> ?", ADA],
    ["select name from project where project.tenant_id >= ?", ADA],
    ["select name from project where project.tenant_id is not ?", ADA],
    ["select name from project where project.tenant_id in (?, 'proj_bob')", ADA],
    ["select name from project where project.tenant_id like ?", "proj_%"],
    ["select name from project where project.tenant_id between ? and 'z'", ADA],
    ["select name from project where project.tenant_id = project.tenant_id"],
    ["select name from project where project.tenant_id = 'proj_bob'"],
    ["select name from project where project.tenant_id = coalesce(project.tenant_id, ?)", ADA],
    [
      "select name from project where project.tenant_id = (select max(tenant_id) from project where tenant_id > ?)",
      ADA,
    ],
    ["select name from project where project.tenant_id = replace(?, 'ada', 'bob')", ADA],
    ["select name from project where (project.tenant_id = ?) >= 0", ADA],
    ["select name from project where ? = ?", ADA, ADA],
  ],
  [
    "the column itself, not a string that looks like it",
    /project is not bound to the tenant/,
    ["select name from project where 'project.tenant_id' <> ?", ADA],
    [`select name from project where "tenant_idd" <> ?`, ADA],
    [`select name from project where project.name <> ?`, ADA],
  ],
  [
    "the table's own condition, not that of another one or of what is around it",
    /(t|u|api_key|service_account) is not bound to the tenant/,
    ["select t.name from project as t join api_key as u on u.tenant_id = ? where u.tenant_id = ?", ADA, ADA],
    ["select u.name from project as t join api_key as u on t.tenant_id = ? where t.tenant_id = ?", ADA, ADA],
    ["select u.name from project as t join api_key as u on t.id = u.id where t.tenant_id = ?", ADA],
    ["select t.name from project as t left join api_key as u on t.tenant_id = ? and u.tenant_id = ?", ADA, ADA],
    ["select service_account.name from api_key as project join service_account where project.tenant_id = ?", ADA],
    [`select name from project where ${OWN} and (select count(*) from api_key where ${OWN}) > 2`, ADA, ADA],
    ["select t.name from project as t join json_each('[\"proj_ada\"]') as j on j.value = ?", ADA],
  ],
  [
    "inner and left joins, which filter what they join",
    /only INNER and LEFT JOIN are allowed/,
    [`select t.name, u.name from project as t full join api_key as u on u.tenant_id = ? and t.tenant_id = ?`, ADA, ADA],
    ["select u.name from project as t right join api_key as u on u.tenant_id = ? and t.tenant_id = ?", ADA, ADA],
    ["select t.name, u.name from project as t, api_key as u where t.tenant_id = ?", ADA],
    ["select t.name from project as t natural join api_key as u where u.name <> ?", ADA],
  ],
  [
    "a scope of its own for every subquery, wherever it stands",
    /api_key is not bound to the tenant/,
    [`select (select max(name) from api_key) from project where ${OWN}`, ADA],
    [`select name from project where ${OWN} and (select count(*) from api_key) > 2`, ADA],
    [`select name from project where ${OWN} and exists (select 1 from api_key where tenant_id = 'proj_bob')`, ADA],
    [`select name from project where ${OWN} and 'proj_bob' in (select tenant_id from api_key)`, ADA],
    [
      `select t.name from project as t left join service_account as u on u.tenant_id = ? and u.id = t.id and (select count(*) from api_key) > 2 where t.tenant_id = ? and u.id is not null`,
      ADA,
      ADA,
    ],
    [`select name from project where ${OWN} order by length(name) * (select 5 - max(created_at) from api_key)`, ADA],
    [`select name from project where ${OWN} limit (select count(*) - 2 from api_key)`, ADA],
    [`select name from project where ${OWN} limit 10 offset (select count(*) - 2 from api_key)`, ADA],
    [`select count(*) from project where ${OWN} group by id = 'r1' and (select count(*) from api_key) > 2`, ADA],
    [`select count(*) from project where ${OWN} group by id having (select count(*) from api_key) > 2`, ADA],
    [`select case when 1 then (select max(name) from api_key) end from project where ${OWN}`, ADA],
    [`select coalesce((select max(name) from api_key), 1) from project where ${OWN}`, ADA],
    ["select value from json_each((select '[' || count(*) || ']' from api_key))"],
    [`update project set name = (select max(name) from api_key) where ${OWN}`, ADA],
    [`update project set name = 'x' where ${OWN} returning (select max(name) from api_key)`, ADA],
    [`delete from project where ${OWN} and (select count(*) from api_key) > 2`, ADA],
    [`${NEW} values (?, 'n', (select max(name) from api_key), 'n', 1, 1)`, ADA],
    [`${NEW} values ${ROW} returning (select max(name) from api_key)`, ADA],
    [
      `${NEW} values (?, 'r1', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set name = (select max(name) from api_key)`,
      ADA,
    ],
    [
      `${NEW} values (?, 'r1', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set name = 'x' where (select count(*) from api_key) > 2`,
      ADA,
    ],
  ],
  [
    "known syntax",
    /(With|CompoundSelect|InTableExpr|SelectSelectTable|SubSelectTable|FunctionTail|CollateExpr|StarResultColumn) is not allowed/,
    [`with x as (select name from api_key) select name from x`],
    [`with project as (select name, ? as tenant_id from api_key) select name from project where ${OWN}`, ADA, ADA],
    [`with recursive x as (select name from api_key union select name from x) select name from x`],
    [
      `with x as (select max(name) as name from api_key) update project set name = (select name from x) where ${OWN}`,
      ADA,
    ],
    [`select name from project where ${OWN} union all select name from api_key`, ADA],
    [
      `select name from project where ${OWN} except select 'canary proj_ada' from api_key where id = 'r1' and created_at = 7`,
      ADA,
    ],
    [`select name from project where ${OWN} and (?, 'r2', ?, ?, 7, 1, 5) in service_account`, ADA, BOB, BURIED, BURIED],
    ["select name from (select name, ? as tenant_id from api_key) as project where project.tenant_id = ?", ADA, ADA],
    ["select t.name from (project as t join api_key as u on u.tenant_id = ?)", ADA],
    [`select count(*) filter (where (select count(*) from api_key) > 2) from project where ${OWN}`, ADA],
  ],
  [
    "INSERT of rows that say whose they are",
    /(not a parameter|among the columns|only VALUES|another tenant)/,
    [`${NEW} values ('proj_bob', 'n', ?, 'n', 1, 1)`, ADA],
    [`${NEW} values ${ROW}`, BOB],
    [`${NEW} values ${ROW}, ('proj_bob', 'n', 'n', 'n', 1, 1)`, ADA],
    [`${NEW} values ${ROW}, ${ROW}`, ADA, BOB],
    [`${NEW} values (coalesce('proj_bob', ?), 'n', 'n', 'n', 1, 1)`, ADA],
    ["insert into service_account values (?, 'n', 'n', 'n', 1, 1, null)", BOB],
    [`${NEW} select ?, id || tenant_id, name, role, 1, 1 from service_account`, ADA],
    [
      "insert into service_account (id, tenant_id, name, role, created_at, updated_at) values (?, ?, 'n', 'n', 1, 1)",
      ADA,
      BOB,
    ],
  ],
  [
    "conflicts within the tenant",
    /(with OR|cannot be changed)/,
    [
      `insert or replace into service_account (tenant_id, id, name, role, created_at, updated_at, rowid) values (?, 'n', 'n', 'n', 1, 1, 3)`,
      ADA,
    ],
    [
      `replace into service_account (tenant_id, id, name, role, created_at, updated_at, rowid) values (?, 'n', 'n', 'n', 1, 1, 3)`,
      ADA,
    ],
    [`update or replace project set rowid = 3 where ${OWN}`, ADA],
    [
      `insert into project (tenant_id, id, name, region, residency, status, created_at, updated_at) values (?, 'r1', 'n', 'n', 'n', 'n', 1, 1) on conflict (tenant_id, id) do update set tenant_id = ?, id = 'n'`,
      ADA,
      BOB,
    ],
  ],
  [
    "rows that stay with their tenant, and one table in UPDATE",
    /(cannot be changed|FROM is not allowed)/,
    [`update project set tenant_id = ?, id = 'n' where ${OWN} and id = 'r1'`, BOB, ADA],
    [`update project set (id, "TENANT_ID") = ('n', ?) where ${OWN} and id = 'r1'`, BOB, ADA],
    [`update project set name = api_key.name from api_key where ${OWN} and api_key.tenant_id > project.tenant_id`, ADA],
  ],
  [
    "the tenant itself in the parameter's place",
    /another tenant/,
    [`select name from project where ${OWN}`, BOB],
    [
      `select name from project where ${OWN} and (select count(*) from api_key where api_key.tenant_id = ? and created_at = 7) > 0`,
      ADA,
      BOB,
    ],
    [`delete from project where ${OWN}`, BOB],
  ],
];

describe.each(RULES.map(([rule, reason, ...attacks]) => ({ rule, reason, attacks })))(
  "the guard demands $rule",
  ({ reason, attacks }) => {
    it.each(attacks)("%s", (sql, ...params) => {
      expect(refusal({ sql, params })).toMatch(reason);
      expect(arena.crossesTenants({ sql, params }), "without the guard it crosses").toBe(true);
    });
  },
);

describe("the guard refuses what reaches beyond the tenants' tables", () => {
  it.each([
    [`select name from main.project where ${OWN}`, /named schema/],
    [`select name from "public"."project" where ${OWN}`, /named schema/],
    ["select name from project where main.project.tenant_id = ?", /not bound|named schema/],
    ["select t.sql from sqlite_master as t where t.tenant_id = ?", /no table of a tenant/],
    ["select t.usename from pg_user as t where t.tenant_id = ?", /no table of a tenant/],
    ["select value from json_tree(?)", /no table of a tenant|function of rows/],
    ["select name from pragma_database_list()", /function of rows/],
    ["select name from Project where Project.tenant_id = ?", /plain names|no table of a tenant/],
    [`select load_extension(name) from project where ${OWN}`, /function load_extension/],
    [`select current_setting(name) from project where ${OWN}`, /function current_setting/],
    [`select set_config('app.tenant_id', name, true) from project where ${OWN}`, /function set_config/],
    [`explain select name from project where ${OWN}`, /ExplainStmt/],
    ["pragma table_list", /PragmaStmt/],
    ["attach ':memory:' as other", /AttachStmt/],
    ["create table other as select 1", /CreateTableStmt/],
    ["drop table project", /DropTableStmt/],
    ["vacuum", /VacuumStmt/],
    ["begin", /BeginStmt/],
    ["commit", /CommitStmt/],
    ["values (1)", /VALUES/],
    ["truncate project", /cannot|can be checked/],
    ["copy project to program 'cat'", /can be checked/],
  ])("%s", (sql, reason) => {
    expect(refusal({ sql, params: [ADA] })).toMatch(reason);
  });
});

describe("the guard refuses syntax that the product does not write, harmless or not", () => {
  it.each([
    [`select project.* from project where ${OWN}`, /TableStarResultColumn/],
    [`select name collate nocase from project where ${OWN}`, /CollateExpr/],
    [`select name, count(*) over () from project where ${OWN}`, /FunctionTail/],
    [`select name from project where ${OWN} window w as (order by name)`, /WindowDef/],
    [`select name from project indexed by project_by_creation where ${OWN}`, /IndexedByIndexed/],
    [
      "select t.name from project t join api_key u using (tenant_id) where t.tenant_id = ? and u.tenant_id = ?",
      /Using/,
    ],
    ["insert into project default values", /among the columns/],
    [NEW.replace("service_account", "service_account as excluded").concat(` values ${ROW}`), /alias/],
    [`select name from project where ${OWN} and name = '${"x".repeat(20_000)}'`, /too long/],
  ])("%.90s", (sql, reason) => {
    expect(refusal({ sql, params: [ADA, ADA] })).toMatch(reason);
  });
});

describe("unless deleted rows are asked for, the guard demands that each table's deleted_at is NULL, not", () => {
  it.each([
    "",
    "and project.deleted_at is not null",
    "and project.deleted_at notnull",
    "and project.deleted_at not null",
    "and project.deleted_at is 5",
    "and project.deleted_at is project.deleted_at",
    "and (project.deleted_at is null or 1 = 1)",
    "and not project.deleted_at is null",
    "and (project.deleted_at is null) = 0",
    "and project.archived_at is null",
    "and coalesce(project.deleted_at, 5) = 5 and project.name is not null",
  ])("%j", (condition) => {
    const attack = { sql: `select name from project where ${OWN} ${condition}`, params: [ADA] };
    expect(refusal(attack, true)).toBe("");
    expect(refusal(attack, false)).toMatch(/deleted rows/);
    expect(arena.digsUp(attack), "without the guard it digs them up").toBe(true);
  });
});

describe("the guard refuses what SQLite and Postgres would read differently", () => {
  const subselect = "(select max(name) from api_key)";
  it.each([
    [
      "comments, which nest in Postgres",
      `select name from project where /* /* */ ${OWN} and -- */\n 1 = 1`,
      /is not allowed in it/,
    ],
    ["comments of any kind", `select name from project where ${OWN} /* and more */`, /\/\* is not allowed/],
    ["comments to the end of a line", `select name from project where ${OWN} --`, /-- is not allowed/],
    ["escaped quotes", `select e'\\', ', ${subselect}, ' from project where ${OWN}`, /is not allowed in it/],
    ["expressions in brackets", `select id [${subselect}] from project where ${OWN}`, /plain names/],
    ["brackets after a type", `select cast(id as jsonb [${subselect}]) from project where ${OWN}`, /plain names/],
    [
      "capitals, which Postgres folds where quotes are missing",
      `select (select max(name) from api_key as T where "T".tenant_id = ?) from project as "T" where "T".tenant_id = ?`,
      /plain names/,
    ],
    [
      "names longer than Postgres keeps",
      `select 1 from project as ${"t".repeat(64)} where ${"t".repeat(64)}.tenant_id = ?`,
      /plain names/,
    ],
    ["a NUL, where SQLite stops", `select name from project\0 where ${OWN}`, /printable ASCII/],
    ["other spaces", `select name from project where ${OWN} or\u00a01 = 1`, /printable ASCII/],
    ["other letters", `select name from project as \u212a where \u212a.tenant_id = ?`, /printable ASCII/],
  ])("%s", (_, sql, reason) => {
    expect(refusal({ sql, params: [ADA, ADA] })).toMatch(reason);
  });

  it("numbers out of order: D1 takes $n for the nth that appears", () => {
    const outOfOrder = "select name from project where name <> $2 and project.tenant_id = $1";
    expect(refusal({ sql: outOfOrder, params: [ADA, BOB] })).toMatch(/not numbered in the order/);
    const [first, second, third] = ["$1", "$2", "$3"].map((name) => `and id <> ${name}`);
    const start = "select name from project where project.tenant_id = $1";
    expect(refusal({ sql: `${start} ${second} ${first} ${third}`, params: [ADA, "x", "y"] })).toBe("");
    expect(refusal({ sql: `${start} ${third}`, params: [ADA, "x", "y"] })).toMatch(/not numbered in the order/);
  });
});

describe("the guard counts ? from left to right", () => {
  it("in every clause, whatever the order in which the tree has them", () => {
    const own = (table: string) => `(select count(*) from ${table} where ${table}.tenant_id = ? and id <> ?)`;
    const sql = `select ${own("api_key")}, ? from project where name <> ? and ${OWN} limit ${own("api_key")}, ${own("service_account")}`;
    expect(judge(sql, TABLES)).toMatchObject({ allowed: true, tenantParameters: [0, 4, 5, 7] });
  });
});

describe("the guard's memory", () => {
  const text = (id: number) => `select name from project where ${OWN} and created_at = ${id}`;
  const parsesOf = (small: StatementGuard, sql: string) => {
    vi.mocked(parse).mockClear();
    try {
      small.assertScoped({ sql, params: [ADA] }, ADA, true);
    } catch {
      // refused
    }
    return vi.mocked(parse).mock.calls.length;
  };

  it("holds so many texts, of which the one unused for longest goes first", () => {
    const small = new StatementGuard(TABLES, 2);
    expect([1, 2, 1, 3, 1, 2].map((id) => parsesOf(small, text(id)))).toEqual([1, 1, 0, 1, 0, 1]);
  });

  it("holds no text that is refused", () => {
    const small = new StatementGuard(TABLES, 2);
    const bad = "select name from project";
    expect([bad, bad, text(1), bad, text(1)].map((sql) => parsesOf(small, sql))).toEqual([1, 1, 1, 1, 0]);
  });
});

describe("the guard lets through", () => {
  it.each(HONEST)("$sql", (attack) => {
    expect(refusal(attack)).toBe("");
    expect(arena.crossesTenants(attack)).toBe(false);
    expect(arena.answer(attack)).not.toMatch(/Error/);
  });

  it.each([...FUNCTIONS])("the function %s", (name) => {
    expect(judge(`select ${name}(name) from project where ${OWN}`, TABLES)).toMatchObject({ allowed: true });
  });
});

describe("the guard finds no end of nesting in", () => {
  it.each([
    ["parentheses", `select ${"(".repeat(9_000)}1${")".repeat(9_000)} from project where ${OWN}`],
    ["subqueries", `select ${"(select ".repeat(1_900)}1${")".repeat(1_900)} from project where ${OWN}`],
    ["negations", `select name from project where ${OWN} and ${"- ".repeat(9_900)}1`],
  ])("%s: it answers, and never with anything but yes or a reason", (_, sql) => {
    expect(refusal({ sql, params: [ADA] })).toMatch(/^(|statement refused: it is nested too deeply.*)$/s);
  });
});

const PROVE = process.env.PROVE === "1";

describe("500 honest statements, changed", { timeout: 300_000 }, () => {
  const sent = fc.sample(changed, PROVE ? { numRuns: 100_000 } : { numRuns: 500, seed: 20_261_124 });
  const passed = sent.filter((attack) => refusal(attack) === "");
  const shown = ({ sql, params }: Attack) => `${sql} -- ${JSON.stringify(params)}`;

  it("that pass answer and leave the same whether the other tenant is there or not", () => {
    expect(passed.filter((attack) => arena.crossesTenants(attack)).map(shown)).toEqual([]);
  });

  it("that pass and are not to see deleted rows answer the same whether there are any or not", () => {
    const unburied = passed.filter((attack) => refusal(attack, false) === "");
    expect(unburied.filter((attack) => arena.digsUp(attack)).map(shown)).toEqual([]);
    expect(passed.filter((attack) => arena.digsUp(attack)).length, "others do").toBeGreaterThan(5);
  });

  it("still work in a fixed share", () => {
    const working = passed.filter((attack) => arena.answer(attack).includes(`canary ${ADA}`));
    expect(working.length).toBeGreaterThan(sent.length / 20);
  });

  it("would cross in at least one of ten without the guard", () => {
    const crossing = sent.slice(0, 5_000).filter((attack) => arena.crossesTenants(attack));
    expect(crossing.length).toBeGreaterThan(Math.min(sent.length, 5_000) / 10);
  });
});
