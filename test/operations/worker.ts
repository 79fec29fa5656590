/**
 * The Worker as it is in production, with a counter at everything that Cloudflare bills or that takes a round trip:
 * calls of Durable Objects, statements of D1, rows that objects read and write, calls of providers. `DELAY_MS` makes
 * each round trip so much longer, so that those that follow each other cannot hide. `/operations` tells what was
 * counted, and begins anew; what is posted to `/faults` fails from then on.
 */
import worker, * as platform from "../../src/index";
import type { Fault, Operation } from "./operations";

interface Tracked extends Omit<Operation, "end" | "rowsRead" | "rowsWritten"> {
  end: number;
  rows: () => { rowsRead: number; rowsWritten: number };
}
const NO_ROWS = { rowsRead: 0, rowsWritten: 0 };
let log: Tracked[] = [];
let clock = 0; // order, not time
let faults: Fault[] = [];

/** The next fault of an operation; each has so many times. */
function takeFault(of: string, where: Fault["where"]): void {
  const fault = faults.find((one) => one.of === of && one.where === where && one.times > 0);
  if (!fault) return;
  fault.times--;
  throw Object.assign(new Error(`injected: ${of} is unreachable`), { retryable: true });
}

async function tracked<T>(of: string, delayMs: number, call: () => Promise<T>): Promise<T> {
  const operation: Tracked = { of, begin: clock++, end: Number.MAX_SAFE_INTEGER, rows: () => NO_ROWS };
  log.push(operation);
  try {
    if (delayMs > 0) await scheduler.wait(delayMs);
    takeFault(of, "request");
    const result = await call();
    takeFault(of, "reply");
    const meta = (result as { meta?: D1Meta } | null)?.meta;
    if (meta) operation.rows = () => ({ rowsRead: meta.rows_read, rowsWritten: meta.rows_written });
    return result;
  } finally {
    operation.end = clock++;
  }
}

/** Members that are replaced; everything else stays as it is. */
function replaced<T extends object>(target: T, members: Readonly<Record<string, unknown>>): T {
  return new Proxy(target, {
    get(of, name) {
      if (typeof name === "string" && name in members) return members[name];
      const value: unknown = Reflect.get(of, name);
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
}

function countedObjects(of: string, namespace: DurableObjectNamespace, delayMs: number): DurableObjectNamespace {
  const getByName = (name: string) => {
    const stub = namespace.getByName(name) as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    return new Proxy(stub, {
      get:
        (_, method: string) =>
        (...args: unknown[]) =>
          tracked(`${of}.${method}`, delayMs, async () => stub[method]?.(...args)),
    });
  };
  return replaced(namespace, { getByName });
}

function countedDatabase(of: string, database: D1Database, delayMs: number): D1Database {
  const originals = new WeakMap<object, D1PreparedStatement>();
  const counted = (statement: D1PreparedStatement): D1PreparedStatement => {
    const all = () => tracked(of, delayMs, () => statement.all());
    const proxy = replaced(statement, {
      bind: (...values: unknown[]) => counted(statement.bind(...values)),
      all,
      run: () => tracked(of, delayMs, () => statement.run()),
      // Tells no rows by itself.
      raw: async () => (await all()).results.map((row) => Object.values(row as object)),
    });
    originals.set(proxy, statement);
    return proxy;
  };
  return replaced(database, {
    prepare: (text: string) => counted(database.prepare(text)),
    batch: (statements: D1PreparedStatement[]) =>
      tracked(of, delayMs, () => database.batch(statements.map((one) => originals.get(one) ?? one))),
  });
}

const environments = new WeakMap<object, object>();

/** One counted environment for each: the platform keeps what it builds from it. */
function counted(env: Record<string, unknown>): object {
  const known = environments.get(env);
  if (known) return known;
  const delayMs = Number(env.DELAY_MS ?? 0);
  const objects = (name: string) => countedObjects(name, env[name] as DurableObjectNamespace, delayMs);
  const database = (name: string) => countedDatabase(name, env[name] as D1Database, delayMs);
  const made = {
    ...env,
    TENANT_GATE: objects("TENANT_GATE"),
    MODEL_DISPATCHER: objects("MODEL_DISPATCHER"),
    IDEMPOTENCY_STORE: objects("IDEMPOTENCY_STORE"),
    BACKGROUND_RUNS: objects("BACKGROUND_RUNS"),
    TENANT_DATABASE: objects("TENANT_DATABASE"),
    DB: database("DB"),
    DIRECTORY: database("DIRECTORY"),
  };
  environments.set(env, made);
  return made;
}

/** Rows that an object reads and writes in its own storage; an alarm that is set is billed as a row. */
function countedStorage(of: string, ctx: DurableObjectState): DurableObjectState {
  const { sql } = ctx.storage;
  const exec = sql.exec.bind(sql);
  const note = (rows: Tracked["rows"]) => log.push({ of: `${of} rows`, begin: clock, end: clock++, rows });
  sql.exec = ((...args: Parameters<typeof exec>) => {
    const cursor = exec(...args);
    note(() => ({ rowsRead: cursor.rowsRead, rowsWritten: cursor.rowsWritten }));
    return cursor;
  }) as typeof sql.exec;
  const setAlarm = ctx.storage.setAlarm.bind(ctx.storage);
  ctx.storage.setAlarm = (...args) => {
    note(() => ({ rowsRead: 0, rowsWritten: 1 }));
    return setAlarm(...args);
  };
  return ctx;
}

type Env = Record<string, unknown>;
export class TenantGate extends platform.TenantGate {
  constructor(ctx: DurableObjectState, env: Env) {
    super(countedStorage("TENANT_GATE", ctx), counted(env));
  }
}
export class ModelDispatcher extends platform.ModelDispatcher {
  constructor(ctx: DurableObjectState, env: Env) {
    super(countedStorage("MODEL_DISPATCHER", ctx), counted(env));
  }
}
export const { BackgroundRuns, IdempotencyStore, TenantDatabase } = platform;

const callProvider = globalThis.fetch;
globalThis.fetch = (input, init) => tracked("provider", 0, () => callProvider(input, init));

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/faults") {
      faults = await request.json<Fault[]>();
      return new Response(null, { status: 204 });
    }
    if (pathname !== "/operations") return worker.fetch(request, counted(env), ctx);
    const taken = log.map(({ rows, ...operation }) => ({ ...operation, ...rows() }));
    log = [];
    return Response.json(taken);
  },
} satisfies ExportedHandler<Env>;
