import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import type { AcceptRequest, BackgroundRunsRpc } from "../../durable-objects/background-runs.messages";
import { type Script, scripts } from "./entry";

const LIMITS = { runs: 10, bytes: 100_000, endUserRuns: 2 };
const SECRET = "the patient's name is Ada";

/** An object of a fresh tenant, its script, and what its runs have written. */
function fresh(script: Partial<Script> = {}) {
  const name = `global/proj_${crypto.randomUUID()}`;
  const stub = env.SCRIPTED_RUNS.getByName(name);
  const runs = stub as unknown as BackgroundRunsRpc;
  const written = new Map<string, string>();
  const released: string[] = [];
  const begun: string[] = [];
  const gates: { write: Error | undefined } = { write: undefined };
  scripts.set(name, {
    async run({ id }) {
      begun.push(id);
      return "completed";
    },
    async write({ id }, outcome) {
      if (gates.write) throw gates.write;
      written.set(id, outcome);
    },
    async release({ id }) {
      released.push(id);
    },
    ...script,
  });
  const request = (id: string, more: Partial<AcceptRequest> = {}): AcceptRequest => ({
    ...{ id, createdAtMs: 1, task: JSON.stringify({ script: name, prompt: SECRET }), endUser: "" },
    ...{ heldUntilMs: Date.now() + 1_000_000, limits: LIMITS },
    ...more,
  });
  const rows = () =>
    runInDurableObject(stub, (_, { storage: { sql } }) =>
      sql.exec<Record<string, SqlStorageValue>>("select * from run order by id").toArray(),
    );
  const change = (text: string) => runInDurableObject(stub, (_, { storage: { sql } }) => void sql.exec(text));
  return {
    name,
    stub,
    runs,
    request,
    written,
    released,
    begun,
    gates,
    rows,
    change,
    alarm: () => runDurableObjectAlarm(stub),
  };
}
/** Runs until the test lets it end, or it is cancelled. Objects share no promises with the test, so it looks. */
function held() {
  const state = { isStarted: false, mayEnd: false };
  const run: Script["run"] = async (_, signal) => {
    state.isStarted = true;
    while (!state.mayEnd && !signal.aborted) await scheduler.wait(1);
    return signal.aborted ? "cancelled" : "completed";
  };
  return { run, state, started: () => expect.poll(() => state.isStarted).toBe(true) };
}

describe("background runs", () => {
  it("begin when they are told to, write how they ended, and leave nothing", async () => {
    const { runs, request, written, rows } = fresh();
    expect(await runs.accept(request("1"))).toEqual({ accepted: true });
    expect(await runs.accept(request("1"))).toEqual({ accepted: true }); // its first answer was lost
    expect(written.size).toBe(0);
    await runs.begin("1");
    await expect.poll(() => written.get("1")).toBe("completed");
    await expect.poll(rows).toEqual([]);
  });

  it("keep nothing in plain text of what was asked, nor of what was answered", async () => {
    const { runs, request, gates, rows, stub, alarm, written } = fresh({ run: async () => `it says: ${SECRET}` });
    gates.write = new Error("the database is away");
    await runs.accept(request("1"));
    const dump = async () =>
      runInDurableObject(stub, (_, { storage: { sql } }) => {
        const tables = sql.exec<{ name: string }>("select name from sqlite_master where type = 'table'").toArray();
        return tables
          .filter(({ name }) => !name.startsWith("_cf_"))
          .flatMap(({ name }) => sql.exec(`select * from "${name}"`).toArray())
          .flatMap((row) => Object.values(row))
          .map((value) => (value instanceof ArrayBuffer ? new TextDecoder("latin1").decode(value) : String(value)))
          .join("\n");
      });
    expect(await dump()).not.toContain("Ada");
    await runs.begin("1");
    await expect.poll(async () => (await rows())[0]?.outcome ?? null).not.toBeNull();
    expect(await dump()).not.toContain("Ada");
    gates.write = undefined;
    await runInDurableObject(stub, (_, { storage: { sql } }) => void sql.exec("update run set write_at = 0"));
    await alarm();
    expect(written.get("1")).toBe(`it says: ${SECRET}`);
  });

  it("write how they ended until it is written, also after a restart, and do not run again", async () => {
    const { runs, request, written, begun, gates, rows, change, stub, alarm } = fresh();
    gates.write = new Error("the database is away");
    await runs.accept(request("1"));
    await runs.begin("1");
    await expect.poll(async () => (await rows())[0]?.attempt).toBe(1);
    for (let attempt = 2; attempt < 5; attempt++) {
      if (attempt === 3) await evictDurableObject(stub);
      await change("update run set write_at = 0");
      await alarm();
      expect(await rows()).toMatchObject([{ attempt }]);
    }
    // It comes back by itself, later each time.
    const due = Number((await rows())[0]?.write_at) - Date.now();
    expect(due).toBeGreaterThan(0);
    expect(due).toBeLessThanOrEqual(300_000);
    expect(await runInDurableObject(stub, (_, { storage }) => storage.getAlarm())).not.toBeNull();
    gates.write = undefined;
    await change("update run set write_at = 0");
    await alarm();
    expect(written.get("1")).toBe("completed");
    expect(await rows()).toEqual([]);
    expect(begun).toEqual(["1"]);
  });

  it("that a restart cut off are told so, until that is written, and are not begun again", async () => {
    const { runs, request, written, begun, gates, rows, change, stub, alarm } = fresh();
    await runs.accept(request("1"));
    await change("update run set begun = 1, begin_at = 0"); // its process ended here
    await evictDurableObject(stub);
    gates.write = new Error("the database is away");
    await alarm();
    expect(await rows()).toMatchObject([{ attempt: 1 }]);
    gates.write = undefined;
    await change("update run set write_at = 0");
    await evictDurableObject(stub);
    await alarm();
    await expect.poll(() => written.get("1")).toBe("interrupted");
    await expect.poll(rows).toEqual([]);
    expect(begun).toEqual([]);
  });

  it("begin by themselves where their caller was cut off between taking them on and beginning them", async () => {
    const { runs, request, written, stub, change, alarm } = fresh();
    await runs.accept(request("1"));
    expect(await runInDurableObject(stub, (_, { storage }) => storage.getAlarm())).not.toBeNull();
    await alarm();
    expect(written.size).toBe(0); // it is not time yet
    await change("update run set begin_at = 1");
    await alarm();
    expect(written.get("1")).toBe("completed");
  });

  it("are forgotten where their caller could not go on, but not once they have begun", async () => {
    const one = held();
    const { runs, request, rows } = fresh({ run: one.run });
    await runs.accept(request("1"));
    await runs.forget("1");
    expect(await rows()).toEqual([]);
    await runs.accept(request("2"));
    await runs.begin("2");
    await one.started();
    await runs.forget("2");
    expect(await rows()).toHaveLength(1);
    one.state.mayEnd = true;
    await expect.poll(rows).toEqual([]);
  });

  it.each(["taken on", "running", "ended and not written", "cut off"] as const)(
    "are over when they are cancelled while %s",
    async (phase) => {
      const one = held();
      const isHeld = phase === "running";
      const script: Partial<Script> = isHeld
        ? { run: one.run }
        : { run: async (_, signal) => (signal.aborted ? "cancelled" : "completed") };
      const { runs, request, written, gates, rows, change } = fresh(script);
      await runs.accept(request("1"));
      if (phase === "cut off") await change("update run set begun = 1");
      if (isHeld) {
        await runs.begin("1");
        await one.started();
      }
      if (phase === "ended and not written") {
        gates.write = new Error("the database is away");
        await runs.begin("1");
        await expect.poll(async () => (await rows())[0]?.attempt).toBe(1);
        gates.write = undefined;
      }
      await Promise.all([runs.cancel("1"), runs.cancel("1")]);
      expect(written.get("1")).toBe(phase === "ended and not written" ? "completed" : "cancelled");
      expect(await rows()).toEqual([]);
      await runs.cancel("1"); // over is over
    },
  );

  it("are bounded in number, in bytes and for each end user, however many come at once", async () => {
    const { runs, request } = fresh();
    const answers = await Promise.all(Array.from({ length: 15 }, (_, n) => runs.accept(request(`r${n}`))));
    expect(answers.filter(({ accepted }) => accepted)).toHaveLength(10);
    expect(answers.find(({ accepted }) => !accepted)).toEqual({ accepted: false, rule: "runs", limit: 10 });
    const other = fresh();
    const own = (id: string, endUser: string) => other.runs.accept(other.request(id, { endUser }));
    await Promise.all([own("1", "ann"), own("2", "ann")]);
    expect(await own("3", "ann")).toEqual({ accepted: false, rule: "end_user_runs", limit: 2 });
    expect(await own("4", "ben")).toEqual({ accepted: true });
    const task = JSON.stringify({ script: other.name, prompt: "x".repeat(99_900) });
    expect(await other.runs.accept(other.request("5", { task }))).toEqual({
      accepted: false,
      rule: "bytes",
      limit: 100_000,
    });
    await other.runs.forget("1");
    expect(await own("6", "ann")).toEqual({ accepted: true });
    await evictDurableObject(other.stub); // what counts is what is stored
    expect(await own("7", "ann")).toMatchObject({ accepted: false, rule: "end_user_runs" });
  });

  it("give back what is held for them where they wait too long, once", async () => {
    const { runs, request, released, rows, alarm } = fresh();
    await runs.accept(request("1", { heldUntilMs: 1 }));
    await runs.accept(request("2"));
    await alarm();
    await alarm();
    expect(released).toEqual(["1"]);
    expect(await rows()).toMatchObject([{ id: "1", held_until: 0 }, { id: "2" }]);
  });

  it("of an earlier version run, though they lie in plain text and in a table without the later columns", async () => {
    const { name, stub, written, rows, alarm } = fresh();
    await runInDurableObject(stub, (_, { storage: { sql } }) => {
      sql.exec("drop table run");
      sql.exec(`create table run (id text primary key, created_at integer not null, task text not null,
        begun integer not null) without rowid`);
      sql.exec("insert into run values ('old', 1, ?, 0)", JSON.stringify({ script: name }));
    });
    await evictDurableObject(stub);
    await alarm();
    await expect.poll(() => written.get("old")).toBe("completed");
    await expect.poll(rows).toEqual([]);
  });
});
