import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import postgres from "postgres";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { freePort } from "../free-port";
import { MockUpstream } from "../mock-upstream";

const ROOT = join(import.meta.dirname, "../..");
let folder = "";
let running: ChildProcess | undefined;

interface Announced {
  readonly url: string;
  readonly "admin key": string;
  readonly "tenant key": string;
  readonly curl: string;
  /** Only with Postgres. */
  readonly database?: string;
}

/** Runs `npm start` in a group of its own and reads what it prints. */
async function start(port: number, ...args: string[]): Promise<Announced> {
  const script = join(ROOT, "scripts/start.mjs");
  const options = ["--port", String(port), "--persist-to", folder, ...args];
  running = spawn(process.execPath, [script, ...options], {
    cwd: ROOT,
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const said: Record<string, string> = {};
  for await (const line of createInterface({ input: running.stdout as NodeJS.ReadableStream })) {
    const [, name, value] = /^(url|admin key|tenant key|database): (.*)$/.exec(line) ?? [];
    if (name && value) said[name] = value;
    if (line.startsWith("curl ")) said.curl = line;
    if (line.startsWith("Press Ctrl-C")) return said as unknown as Announced;
  }
  throw new Error("npm start ended before it was ready");
}

const isServed = (url: string) =>
  fetch(`${url}/health`).then(
    (reply) => reply.ok,
    () => false,
  );

async function stream({ url, "tenant key": key }: Announced, model = "tiny-support-lm"): Promise<string> {
  const headers = { authorization: `Bearer ${key}` };
  const body = JSON.stringify({ model, stream: true, max_tokens: 4, messages: [{ role: "user", content: "hello" }] });
  return (await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })).text();
}

async function decisions({ url, "tenant key": key }: Announced): Promise<number> {
  const reply = await fetch(`${url}/v1/tenantry/decisions`, { headers: { authorization: `Bearer ${key}` } });
  return ((await reply.json()) as { data: unknown[] }).data.length;
}

afterEach(async () => {
  if (running?.exitCode !== null || running.signalCode !== null || !running.pid) return;
  const ended = once(running, "exit");
  process.kill(-running.pid, "SIGTERM");
  await ended;
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tenantry-start-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("npm start", () => {
  it("serves, stops without leaving anybody behind, survives SIGKILL, and finds its keys and data again", async () => {
    const port = await freePort();
    const first = await start(port);
    expect(first.curl).toContain(first["tenant key"]);
    expect(statSync(join(folder, "bootstrap.json")).mode & 0o777).toBe(0o600);
    expect(await stream(first)).toContain("data: [DONE]");
    const stopped = once(running as ChildProcess, "exit");
    running?.kill("SIGTERM");
    expect(await stopped).toEqual([0, null]);
    expect(await isServed(first.url)).toBe(false);

    const second = await start(port);
    expect(second).toEqual(first);
    expect(await decisions(second)).toBe(1);
    expect(await stream(second)).toContain("data: [DONE]");
    process.kill(-(running?.pid ?? 0), "SIGKILL");
    await expect.poll(() => isServed(second.url).then((served) => !served), { timeout: 30_000 }).toBe(true);

    const third = await start(port);
    expect(third).toEqual(first);
    expect(await decisions(third)).toBe(2);
  });

  it("brings a Postgres along, whose row level security can be seen, and finds its data again after SIGKILL", async () => {
    const port = await freePort();
    const first = await start(port, "--database", "postgres");
    expect(await stream(first)).toContain("data: [DONE]");
    const projects = async ({ url, "admin key": key }: Announced) => {
      const reply = await fetch(`${url}/v1/organization/projects`, { headers: { authorization: `Bearer ${key}` } });
      return ((await reply.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
    };
    const [demo] = await projects(first);
    const sql = postgres(first.database ?? "", { max: 1, onnotice: () => {} });
    expect(await sql`select * from tenantry.service_account`).toHaveLength(0);
    const bound = await sql.begin(async (tx) => {
      await tx`select set_config('app.tenant_id', ${demo ?? ""}, true)`;
      return tx`select tenant_id from tenantry.service_account`;
    });
    expect(bound.map((row) => row.tenant_id)).toEqual([demo]);
    await sql.end();
    process.kill(-(running?.pid ?? 0), "SIGKILL");
    await expect.poll(() => isServed(first.url).then((served) => !served), { timeout: 30_000 }).toBe(true);

    const second = await start(port, "--database", "postgres");
    expect(await projects(second)).toEqual([demo]);
    const stopped = once(running as ChildProcess, "exit");
    running?.kill("SIGTERM");
    expect(await stopped).toEqual([0, null]);
    const late = postgres(second.database ?? "", { max: 1, connect_timeout: 2, onnotice: () => {} });
    await expect(late`select 1`).rejects.toThrow(/ECONNREFUSED/);
    await late.end();
  });

  it("puts any OpenAI-compatible server in the embedded model's place", async () => {
    const mock = await MockUpstream.start({ text: "from the upstream" });
    const announced = await start(await freePort(), "--upstream", mock.url);
    expect(announced.curl).toContain('"model":"mock"');
    expect(await stream(announced, "gpt-4o-mini")).toContain("upstream");
    await mock.stop();
  });
});
