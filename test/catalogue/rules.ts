/** A table as a live database describes it. */
export interface CatalogueTable {
  readonly name: string;
  readonly columns: readonly { readonly name: string; readonly notNull: boolean }[];
  readonly primaryKey: readonly string[];
  readonly indexes: readonly CatalogueIndex[];
  readonly foreignKeys: readonly ForeignKey[];
  /** Of Postgres alone. */
  readonly rowSecurity?: RowSecurity;
}
export interface CatalogueIndex {
  readonly name: string;
  readonly unique: boolean;
  readonly columns: readonly string[];
  /** Condition of a partial index, lower case, or null. */
  readonly where: string | null;
}
export interface ForeignKey {
  readonly columns: readonly string[];
  readonly table: string;
  readonly referenced: readonly string[];
}
export interface RowSecurity {
  readonly enabled: boolean;
  readonly forced: boolean;
  readonly policies: readonly {
    readonly command: string;
    readonly using: string | null;
    readonly check: string | null;
  }[];
}

/**
 * The tables that need not lead with a tenant. This is the whole list: whoever adds to it says why no row of it
 * could ever be shown to the wrong tenant.
 */
export const EXEMPT: Readonly<Record<string, RegExp>> = {
  // The directory is asked who the tenant is.
  directory: /^directory_(key|tenant)$/,
  // The tools' own books.
  tools: /^(_cf_.*|sqlite_.*|__miniflare_.*|d1_migrations|migration|migration_applied)$/,
};
const isExempt = (name: string) => Object.values(EXEMPT).some((pattern) => pattern.test(name));

/** What is wrong with the tables of a database, each with what to do about it. */
export function violations(tables: readonly CatalogueTable[]): string[] {
  return tables.filter(({ name }) => !isExempt(name)).flatMap((table) => [...wrongWith(table)]);
}

function* wrongWith(table: CatalogueTable): Generator<string> {
  const { name, columns, primaryKey, indexes, foreignKeys } = table;
  const column = (wanted: string) => columns.find((each) => each.name === wanted);
  if (!column("tenant_id")?.notNull) yield `${name}: add tenant_id, not null (spread \`owner\` into its columns)`;
  if (!column("deleted_at") || column("deleted_at")?.notNull) {
    yield `${name}: add a nullable deleted_at (spread \`lifetime\` into its columns)`;
  }
  for (const time of ["created_at", "updated_at"]) {
    if (!column(time)?.notNull) yield `${name}: add ${time}, not null (spread \`lifetime\` into its columns)`;
  }
  if (primaryKey[0] !== "tenant_id") yield `${name}: put tenant_id first in the primary key`;
  for (const index of indexes) {
    if (index.columns[0] !== "tenant_id") yield `${name}: put tenant_id first in the index ${index.name}`;
    if (index.unique && index.where !== "deleted_at is null") {
      yield `${name}: make the unique index ${index.name} partial (\`where deleted_at is null\`), or a deleted row blocks a new one`;
    }
  }
  for (const { columns: own, table: other, referenced } of foreignKeys) {
    if (own[0] !== "tenant_id" || referenced[0] !== "tenant_id") {
      yield `${name}: let the reference to ${other} begin with tenant_id on both sides`;
    }
  }
  if (table.rowSecurity) yield* wrongWithRowSecurity(name, table.rowSecurity);
}

const OWN = "(tenant_id = NULLIF(current_setting('app.tenant_id'::text, true), ''::text))";
/** What each command must be filtered and checked by. */
const POLICIES = {
  select: { using: OWN, check: null },
  insert: { using: null, check: OWN },
  update: { using: OWN, check: OWN },
  delete: { using: OWN, check: null },
} as const;

function* wrongWithRowSecurity(name: string, { enabled, forced, policies }: RowSecurity): Generator<string> {
  const remedy = "run `npm run migrate:postgres`, which puts row level security on every table";
  if (!enabled || !forced) yield `${name}: row level security is not enabled and forced; ${remedy}`;
  for (const [command, { using, check }] of Object.entries(POLICIES)) {
    const of = policies.filter((policy) => policy.command === command);
    // Policies add up: one more would let through what the first holds back.
    if (of.length !== 1 || of[0]?.using !== using || of[0]?.check !== check) {
      yield `${name}: it needs exactly one policy for ${command}, by tenant_id; ${remedy}`;
    }
  }
  if (policies.some(({ command }) => !Object.hasOwn(POLICIES, command)))
    yield `${name}: drop its policy for all commands`;
}
