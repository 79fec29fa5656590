// Brings a Postgres up to date: the pool's schema `tenantry`, and every schema that a tenant has of its own. Connects
// as the owner of the tables, never as the application.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import postgres from "postgres";

const FOLDER = join(import.meta.dirname, "..", "migrations", "postgres");
export const APP_ROLE = "tenantry_app";
/** Any number, the same for all who migrate one database. */
const LOCK = 7_263_451;

const BOOKS = `
  create schema if not exists tenantry;
  create table if not exists tenantry.migration (name text primary key, every_time boolean not null,
    body text not null, digest text not null);
  create table if not exists tenantry.migration_applied (schema_name text not null, name text not null,
    digest text not null default '', applied_at timestamptz not null default now(), primary key (schema_name, name));`;

/** The texts in the order of their application. */
export function migrations() {
  const read = (folder, everyTime) =>
    readdirSync(folder)
      .filter((file) => (everyTime ? /\.sql$/ : /^\d{4}_.*\.sql$/).test(file))
      .sort()
      .map((name) => {
        const body = readFileSync(join(folder, name), "utf8");
        return { name, everyTime, body, digest: createHash("sha256").update(body).digest("hex") };
      });
  return [...read(FOLDER, false), ...read(join(FOLDER, "every-time"), true)];
}

/**
 * Applies what each schema has not seen. May be run as often as wanted, and by several at once: the second waits.
 * @param url of the owner's connection, direct (not through Hyperdrive or a transaction pool)
 * @param appPassword sets the password of the application's role; without it an existing role keeps its own
 * @returns what was applied where
 * @throws Error when the application's role could get round row level security
 */
export async function migratePostgres({ url, appPassword, texts = migrations(), report = () => {} }) {
  const sql = postgres(url, { max: 1, onnotice: () => {}, connection: { application_name: "tenantry migrations" } });
  try {
    await sql`select pg_advisory_lock(${LOCK})`;
    await ensureRole(sql, appPassword);
    await sql.unsafe(BOOKS);
    await book(sql, texts);
    await sql.unsafe(readFileSync(join(FOLDER, "tenant-schemas.sql"), "utf8"));
    const applied = [];
    for (const schema of await schemas(sql)) {
      for (const text of texts) {
        if (!(await apply(sql, schema, text))) continue;
        applied.push({ schema, name: text.name });
        report(`${schema}: ${text.name}`);
      }
    }
    return applied;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** The application's role: neither superuser nor exempt from row level security, and owner of nothing. */
async function ensureRole(sql, appPassword) {
  const [role] = await sql`select rolsuper or rolbypassrls as exempt, rolname = current_user as is_owner
    from pg_roles where rolname = ${APP_ROLE}`;
  if (!role) await sql.unsafe(`create role ${APP_ROLE} login nosuperuser nocreatedb nocreaterole noinherit`);
  if (role?.exempt)
    throw new Error(`role ${APP_ROLE} is a superuser or has BYPASSRLS: row level security would not hold`);
  if (role?.is_owner) throw new Error(`migrate as the owner of the tables, not as ${APP_ROLE}`);
  if (appPassword === undefined) return;
  const [{ literal }] = await sql`select quote_literal(${appPassword}) as literal`;
  await sql.unsafe(`alter role ${APP_ROLE} password ${literal}`);
}

/** Writes the texts down, so that schemas made later repeat them; whoever makes one now is waited for. */
async function book(sql, texts) {
  await sql.begin(async (tx) => {
    await tx`lock table tenantry.migration in exclusive mode`;
    for (const { name, everyTime, body, digest } of texts) {
      const [known] = await tx`select digest from tenantry.migration where name = ${name}`;
      if (known && known.digest !== digest && !everyTime) {
        throw new Error(`migration ${name} has changed since it was applied; write a new one instead`);
      }
      await tx`insert into tenantry.migration (name, every_time, body, digest)
        values (${name}, ${everyTime}, ${body}, ${digest})
        on conflict (name) do update set body = excluded.body, digest = excluded.digest`;
    }
  });
}

/** The pool's schema, and all that belong to tenants. */
async function schemas(sql) {
  const rows = await sql`select nspname as name from pg_namespace
    where nspname like 'proj\\_%' and nspowner = (select oid from pg_roles where rolname = current_user) order by 1`;
  return ["tenantry", ...rows.map(({ name }) => name)];
}

async function apply(sql, schema, { name, everyTime, body, digest }) {
  return sql.begin(async (tx) => {
    const [known] = await tx`select digest from tenantry.migration_applied
      where schema_name = ${schema} and name = ${name}`;
    if (known && !everyTime) return false;
    await tx`select set_config('search_path', quote_ident(${schema}), true)`;
    await tx.unsafe(body);
    await tx`insert into tenantry.migration_applied (schema_name, name, digest) values (${schema}, ${name}, ${digest})
      on conflict (schema_name, name) do update set digest = excluded.digest, applied_at = now()`;
    return known?.digest !== digest;
  });
}
