import type {
  AstNode,
  CmdList,
  Expr,
  FromClause,
  QualifiedName,
  SelectTable,
  Upsert,
  VariableExpr,
} from "sqlite3-parser";

export type Judged =
  | {
      readonly allowed: true;
      readonly tenantParameters: readonly number[];
      readonly excludesDeleted: boolean;
      /** Whether `$n` is the nth to appear. To SQLite it is only a name, which it numbers by appearance. */
      readonly numberedInOrder: boolean;
    }
  | { readonly allowed: false; readonly reason: string };

/**
 * The kinds of syntax that the product's statements are made of. Whatever is not here is refused: common table
 * expressions, UNION, windows, `x in tablename`, PRAGMA, ATTACH and all the rest. Who needs more adds it here, with
 * an attack on it in the tests.
 */
const KNOWN: ReadonlySet<string> = new Set([
  ...["CmdList", "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"],
  ...["Select", "SelectFrom", "FromClause", "TableSelectTable", "TableCallSelectTable", "JoinedSelectTable"],
  ...["TypedJoinJoinOperator", "OnJoinConstraint", "ExprResultColumn", "AsAs", "ElidedAs", "SortedColumn", "Limit"],
  ...["SelectInsertBody", "SelectValues", "ValuesRow", "Upsert", "UpsertIndex", "SetUpsertDo", "NothingUpsertDo"],
  ...["SetAssignment", "QualifiedName", "Name", "Id", "NameExpr", "QualifiedExpr", "VariableExpr"],
  ...["BinaryExpr", "UnaryExpr", "ParenthesizedExpr", "IsNullExpr", "NotNullExpr", "BetweenExpr", "LikeExpr"],
  ...["InSelectExpr", "InListExpr", "ExistsExpr", "SubqueryExpr", "CaseExpr", "WhenThen", "CastExpr", "Type"],
  ...["FunctionCallExpr", "FunctionCallStarExpr"],
  ...["NumericLiteral", "StringLiteral", "BlobLiteral", "KeywordLiteral", "NullLiteral"],
]);

/** Functions that only compute from their arguments, in both dialects. Add here what reads and changes nothing else. */
export const FUNCTIONS: ReadonlySet<string> = new Set([
  ...["count", "sum", "min", "max", "coalesce", "ifnull", "nullif", "abs", "round", "length", "lower", "upper"],
]);
/** Functions that make rows of their argument, and of nothing else. */
export const ROW_FUNCTIONS: ReadonlySet<string> = new Set([
  "json_each",
  "jsonb_array_elements_text",
  "jsonb_each_text",
]);

/**
 * Names as the schema writes them. Postgres folds capitals of a name without quotes, so that `T` and `"T"` are two
 * tables there and one here; what stands in brackets is a name here and an expression there; and it cuts names at 63.
 */
const PLAIN_NAME = /^[a-z_][a-z0-9_]{0,62}$/;

class Refusal extends Error {}
const refuse = (reason: string): never => {
  throw new Refusal(reason);
};

/** Judges the syntax tree of one text. */
export function judgeTree(root: CmdList, tables: ReadonlySet<string>): Judged {
  try {
    return new Judge(root, tables).judge();
  } catch (error) {
    if (error instanceof Refusal) return { allowed: false, reason: error.message };
    if (error instanceof RangeError) return { allowed: false, reason: "it is nested too deeply" }; // no stack is left
    throw error;
  }
}

/** What a scope reaches, by its alias or its name. */
interface Reached {
  readonly name: string;
  /** Undefined for a function of rows. */
  readonly table: string | undefined;
  /** Conditions that every row of it must pass. */
  readonly conditions: readonly Expr[];
}

class Judge {
  readonly #tenantVariables = new Set<AstNode>();
  readonly #variables: { readonly node: AstNode; readonly name: string; readonly offset: number }[] = [];
  #excludesDeleted = true;
  /** The rows of an INSERT: the one place where VALUES may stand. */
  #inserted: AstNode | undefined;

  constructor(
    readonly root: CmdList,
    readonly tables: ReadonlySet<string>,
  ) {}

  judge(): Judged {
    const [command, ...more] = this.root.cmds;
    if (!command || more.length > 0) refuse("it is not one statement");
    this.#visit(this.root);
    return { allowed: true, excludesDeleted: this.#excludesDeleted, ...this.#parameters() };
  }

  /** Every node, whatever property it hangs on: what is overlooked is not allowed. */
  #visit(node: AstNode): void {
    if (!KNOWN.has(node.type)) refuse(`${node.type} is not allowed here`);
    this.#check(node);
    for (const value of Object.values(node)) {
      for (const child of Array.isArray(value) ? value : [value]) {
        if (isNode(child)) this.#visit(child);
      }
    }
  }

  #check(node: AstNode): void {
    switch (node.type) {
      case "SelectFrom":
        this.#scope(reachedBy(node.from, conjuncts(node.whereClause)));
        break;
      case "UpdateStmt":
        if (node.orConflict || node.from) refuse("UPDATE with OR or FROM is not allowed here");
        this.#assertTenantStays(node.sets);
        this.#scope([targetOf(node.tblName, node.whereClause)]);
        break;
      case "DeleteStmt":
        this.#scope([targetOf(node.tblName, node.whereClause)]);
        break;
      case "InsertStmt":
        this.#insert(node);
        break;
      case "SelectValues":
        if (this.#inserted !== node) refuse("VALUES is not allowed here");
        break;
      case "QualifiedName":
        if (node.dbName) refuse("tables of a named schema are not allowed here");
        break;
      case "QualifiedExpr":
        if (node.schema) refuse("columns of a named schema are not allowed here");
        break;
      case "TableCallSelectTable":
        if (!ROW_FUNCTIONS.has(lower(node.tblName.objName.text))) refuse("this function of rows is not allowed here");
        break;
      case "FunctionCallExpr":
      case "FunctionCallStarExpr":
        if (!FUNCTIONS.has(lower(node.name.name))) refuse(`the function ${node.name.name} is not allowed here`);
        break;
      case "Name":
        if (!PLAIN_NAME.test(node.text)) refuse("only plain names in lower case are allowed here");
        break;
      case "Id":
      case "Type":
        if (!PLAIN_NAME.test(node.name)) refuse("only plain names in lower case are allowed here");
        break;
      case "VariableExpr":
        this.#variables.push({ node, name: node.name, offset: node.span.offset });
        break;
    }
  }

  /** Each table in a scope is a tenant table, under a name of its own, and bound there to the tenant. */
  #scope(reached: readonly Reached[]): void {
    if (new Set(reached.map(({ name }) => lower(name))).size < reached.length) refuse("two tables have one name");
    for (const { name, table, conditions } of reached) {
      if (table === undefined) continue;
      this.#assertTenantTable(table);
      const variable = conditions.map((condition) => tenantVariable(condition, name)).find((found) => found);
      this.#tenantVariables.add(variable ?? refuse(`${name} is not bound to the tenant`));
      if (!conditions.some((condition) => excludesDeleted(condition, name))) this.#excludesDeleted = false;
    }
  }

  #insert(node: Extract<AstNode, { type: "InsertStmt" }>): void {
    if (node.orConflict) refuse("INSERT with OR is not allowed here");
    if (node.tblName.alias) refuse("an alias of what is inserted into is not allowed here");
    this.#assertTenantTable(node.tblName.objName.text);
    const places = (node.columns ?? []).flatMap(({ text }, place) => (isTenant(text) ? [place] : []));
    if (places.length !== 1) refuse("tenant_id is not among the columns, once");
    const { body } = node;
    if (body.type !== "SelectInsertBody" || body.select.select.type !== "SelectValues") {
      throw new Refusal("only VALUES can be inserted");
    }
    this.#inserted = body.select.select;
    for (const { values } of body.select.select.values) {
      const value = values[places[0] ?? -1];
      this.#tenantVariables.add(value?.type === "VariableExpr" ? value : refuse("tenant_id is not a parameter"));
    }
    if (body.upsert) this.#upsert(body.upsert);
  }

  #upsert(upsert: Upsert): void {
    if (upsert.next) refuse("several ON CONFLICT are not allowed here");
    const isOwn = upsert.index?.targets.some(({ expr }) => isTenant(columnOf(expr) ?? ""));
    if (!isOwn) refuse("ON CONFLICT does not name tenant_id");
    if (upsert.doClause.type === "SetUpsertDo") this.#assertTenantStays(upsert.doClause.sets);
  }

  #assertTenantStays(sets: readonly { readonly colNames: readonly { readonly text: string }[] }[]): void {
    if (sets.some(({ colNames }) => colNames.some(({ text }) => isTenant(text)))) refuse("tenant_id cannot be changed");
  }

  #assertTenantTable(name: string): void {
    if (!this.tables.has(name)) refuse(`${name} is no table of a tenant`);
  }

  /** Places of the parameters that must be the tenant: `?` count from left to right, `$n` say it themselves. */
  #parameters(): { tenantParameters: number[]; numberedInOrder: boolean } {
    const inOrder = [...this.#variables].sort((a, b) => a.offset - b.offset);
    const isPlain = inOrder.every(({ name }) => name === "?");
    const seen = new Set<number>();
    let numberedInOrder = true;
    const tenantParameters = inOrder.flatMap(({ node, name }, index) => {
      const number = isPlain ? index + 1 : Number(name.slice(1));
      if (!isPlain && (name !== `$${number}` || !Number.isInteger(number) || number < 1)) {
        refuse("its parameters are neither all ? nor all $1, $2 …");
      }
      seen.add(number);
      numberedInOrder &&= number <= seen.size;
      return this.#tenantVariables.has(node) ? [number - 1] : [];
    });
    return { tenantParameters, numberedInOrder };
  }
}

/** What a FROM reaches, each with the conditions that its rows must pass there. */
function reachedBy(from: FromClause | undefined, where: readonly Expr[]): Reached[] {
  if (!from?.select) return [];
  const joined = (from.joins ?? []).map(({ operator, table, constraint }) => {
    const isInnerOrLeft = operator.type === "TypedJoinJoinOperator" && INNER_OR_LEFT.has(operator.joinType ?? INNER);
    if (!isInnerOrLeft) refuse("only INNER and LEFT JOIN are allowed here");
    // What stands in ON filters the table it joins, never those to its left: a LEFT JOIN keeps their rows.
    const on = constraint?.type === "OnJoinConstraint" ? conjuncts(constraint.expr) : [];
    return reachedAs(table, [...where, ...on]);
  });
  return [reachedAs(from.select, where), ...joined];
}

/** Bits of the parser's join types. */
const INNER = 1;
const LEFT_OUTER = 8 | 32;
const INNER_OR_LEFT: ReadonlySet<number> = new Set([INNER, LEFT_OUTER]);

function reachedAs(table: SelectTable, conditions: readonly Expr[]): Reached {
  if (table.type !== "TableSelectTable" && table.type !== "TableCallSelectTable") {
    return refuse(`${table.type} is not allowed here`);
  }
  const name = table.tblName.objName.text;
  const isTable = table.type === "TableSelectTable";
  return { name: table.alias?.name.text ?? name, table: isTable ? name : undefined, conditions };
}

const targetOf = ({ objName, alias }: QualifiedName, where: Expr | undefined): Reached => ({
  name: alias?.text ?? objName.text,
  table: objName.text,
  conditions: conjuncts(where),
});

/** The conditions that all must hold: what AND joins, through any parentheses. */
function conjuncts(condition: Expr | undefined): Expr[] {
  if (condition?.type === "ParenthesizedExpr" && condition.exprs.length === 1) return conjuncts(condition.exprs[0]);
  if (condition?.type === "BinaryExpr" && condition.op === "And") {
    return [...conjuncts(condition.left), ...conjuncts(condition.right)];
  }
  return condition ? [condition] : [];
}

/** The parameter in `<table>.tenant_id = ?`, when the condition is that and nothing else. */
function tenantVariable(condition: Expr, table: string): VariableExpr | undefined {
  if (condition.type !== "BinaryExpr" || condition.op !== "Equals") return undefined;
  const { left, right } = condition;
  return isColumn(left, table, "tenant_id") && right.type === "VariableExpr" ? right : undefined;
}

function excludesDeleted(condition: Expr, table: string): boolean {
  if (condition.type === "IsNullExpr") return isColumn(condition.expr, table, "deleted_at");
  if (condition.type !== "BinaryExpr" || condition.op !== "Is") return false;
  return isColumn(condition.left, table, "deleted_at") && condition.right.type === "NullLiteral";
}

const isColumn = (expr: Expr, table: string, column: string): boolean =>
  expr.type === "QualifiedExpr" && expr.table.text === table && expr.column.text === column;

/** The column that an expression is, by whatever name of its table. */
function columnOf(expr: Expr): string | undefined {
  if (expr.type === "QualifiedExpr") return expr.column.text;
  return expr.type === "Id" ? expr.name : undefined;
}

const lower = (text: string) => text.toLowerCase();
const isTenant = (column: string) => lower(column) === "tenant_id";
const isNode = (value: unknown): value is AstNode =>
  typeof value === "object" && value !== null && typeof (value as { type?: unknown }).type === "string";
