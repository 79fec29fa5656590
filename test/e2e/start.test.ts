import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
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

const start = (port: number, ...args: string[]) => startWith({}, port, ...args);

/** Runs `npm start` in a group of its own and reads what it prints. */
async function startWith(env: Record<string, string>, port: number, ...args: string[]): Promise<Announced> {
  const script = join(ROOT, "scripts/start.mjs");
  const options = ["--port", String(port), "--persist-to", folder, ...args];
  running = spawn(process.execPath, [script, ...options], {
    cwd: ROOT,
    env: { ...process.env, ...env },
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

const LOOPBACK = /^(0100007F|0{24}01000000):/;
const DEVELOPMENT_PATHS = [
  ...["explorer", "explorer/", "explorer/api", "explorer/api/d1/database", "explorer/api/storage/kv/namespaces"],
  ...["scheduled", "email", "platform-proxy", "r2/s3", "r2/s3/tenantry-local-artifacts", "r2/public/x"],
].map((path) => `/cdn-cgi/local/${path}`);
DEVELOPMENT_PATHS.push(
  ...["/cdn-cgi/handler/scheduled", "/cdn-cgi/handler/email", "/cdn-cgi/mf/scheduled", "/cdn-cgi/mf/reload"],
  ...["/cdn-cgi/ProxyWorker/play", "/cdn-cgi/InspectorProxyWorker/websocket", "/cdn-cgi/", "/cdn-cgi", "/__scheduled"],
  ...["/__cf_local/stream", "/__cf_local/imagedelivery", "/json/list", "/json/version", "/"],
);
/** Other ways to write a path, for whoever reads it a second time. */
const disguised = (path: string) => [
  `http://localhost${path}`,
  `/v1/..${path}`,
  `/v1/%2e%2e${path}`,
  `/v1/%2E.${path}`,
  `/v1/..\\${path.slice(1)}`,
  `/v1/x/../..${path}`,
  `/${path}`,
  `/.${path}`,
  path.replace("cdn", "%63dn"),
  path.toUpperCase(),
  `${path}?x=/v1/`,
  `${path}#/v1/`,
];

/** A request as it is written here; fetch would tidy it up. */
const ask = (port: number, method: string, path: string, headers: Record<string, string | string[]>) =>
  new Promise<{ status: number; text: string }>((settle, fail) => {
    const asked = request(
      { host: "127.0.0.1", port, method, path, headers, agent: false, timeout: 10_000 },
      (reply) => {
        let text = "";
        reply.setEncoding("utf8").on("data", (chunk) => (text += chunk));
        reply.on("end", () => settle({ status: reply.statusCode ?? 0, text: text.slice(0, 200) }));
      },
    );
    asked.on("error", fail).on("timeout", () => asked.destroy(new Error("no answer")));
    asked.end();
  });

/** Only Linux tells here what runs and where it listens. */
const HAS_PROC = existsSync("/proc/self/stat");
/** What runs in the group of `npm start`. */
const processesOfStart = () =>
  (HAS_PROC ? readdirSync("/proc") : []).flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const afterName = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ");
      if (Number(afterName?.[2]) !== running?.pid) return [];
      return [{ pid, cmdline: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ") }];
    } catch {
      return []; // it has ended meanwhile
    }
  });

/** Where its processes listen, as the kernel writes it. */
function listeningAddresses(): string[] {
  const sockets = new Set(
    processesOfStart().flatMap(({ pid }) =>
      readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
        try {
          return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
        } catch {
          return [];
        }
      }),
    ),
  );
  return (HAS_PROC ? ["tcp", "tcp6"] : []).flatMap((kind) =>
    readFileSync(`/proc/net/${kind}`, "utf8")
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === "0A" && sockets.has(fields[9] ?? ""))
      .map((fields) => fields[1] ?? ""),
  );
}
const listeningPorts = () => [
  ...new Set(listeningAddresses().map((at) => Number.parseInt(at.split(":")[1] ?? "", 16))),
];

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

  it("serves the platform's own paths and nothing of the development server behind it, whoever asks", async () => {
    const port = await freePort();
    await start(port);
    const local = ["localhost", `localhost:${port}`, "127.0.0.1", "[::1]"];
    for (const host of [...local, "example.com"])
      for (const path of [...DEVELOPMENT_PATHS, ...disguised("/cdn-cgi/local/explorer/api/d1/database")])
        for (const method of ["GET", "POST"]) {
          const { status, text } = await ask(port, method, path, { host });
          expect([400, 401, 404], `${method} ${path} at ${host}: ${text}`).toContain(status);
        }
    // The server behind believes this header, which takes the place of its path.
    for (const name of ["mf-original-url", "MF-Original-URL", "mf-route-override", "x-forwarded-proto"]) {
      const headers = { host: "localhost", [name]: "http://localhost/cdn-cgi/local/explorer/api/d1/database" };
      expect((await ask(port, "GET", "/v1/models", headers)).status, name).toBe(401);
    }
    // Behind it, on a port of this machine alone, there is no explorer either.
    for (const inner of listeningPorts().filter((each) => each !== port)) {
      const reply = await ask(inner, "GET", "/cdn-cgi/local/explorer/api", { host: "localhost" }).catch(
        () => undefined,
      );
      expect(reply?.status ?? 404, String(inner)).toBeGreaterThanOrEqual(400);
    }
    expect(listeningAddresses().filter((address) => !LOOPBACK.test(address))).toEqual([]);
    expect((await ask(port, "GET", "/health", { host: "localhost" })).status).toBe(200);
    const twice = await ask(port, "GET", "/v1/models", { authorization: ["Bearer a", "Bearer b"] });
    expect(twice.status).toBeGreaterThanOrEqual(400);
  });

  it("shows no key in the list of processes, and hands on the upstream's as it is", async () => {
    const mock = await MockUpstream.start({ text: "from the upstream" });
    const key = "up-$TREAM'\"$$=\\x#1";
    const keys = join(folder, "key");
    writeFileSync(keys, `${key}\n`);
    const announced = await start(await freePort(), "--upstream", mock.url, "--upstream-key-file", keys);
    expect(await stream(announced, "gpt-4o-mini")).toContain("upstream");
    expect(mock.requests.at(-1)?.headers.authorization).toBe(`Bearer ${key}`);
    const arguments_ = processesOfStart().map(({ cmdline }) => cmdline);
    expect(arguments_.some((each) => each.includes("wrangler"))).toBe(HAS_PROC); // the control: these are the ones
    for (const secret of [key, announced["admin key"], announced["tenant key"]])
      for (const each of arguments_) expect(each).not.toContain(secret);
    expect(statSync(join(folder, "start.env")).mode & 0o777).toBe(0o600);
    const stopped = once(running as ChildProcess, "exit");
    running?.kill("SIGTERM");
    await stopped;
    expect(existsSync(join(folder, "start.env"))).toBe(false);
    const other = await startWith({ TENANTRY_UPSTREAM_KEY: "from-env" }, await freePort(), "--upstream", mock.url);
    expect(await stream(other, "gpt-4o-mini")).toContain("upstream");
    expect(mock.requests.at(-1)?.headers.authorization).toBe("Bearer from-env");
    await mock.stop();
  });

  it("takes no key as an argument", async () => {
    await expect(
      start(await freePort(), "--upstream", "http://localhost:9/v1", "--upstream-key", "x"),
    ).rejects.toThrow();
  });

  it("puts any OpenAI-compatible server in the embedded model's place", async () => {
    const mock = await MockUpstream.start({ text: "from the upstream" });
    const announced = await start(await freePort(), "--upstream", mock.url);
    expect(announced.curl).toContain('"model":"mock"');
    expect(await stream(announced, "gpt-4o-mini")).toContain("upstream");
    await mock.stop();
  });
});
