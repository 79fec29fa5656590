import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { generateAdminKey } from "../scripts/keys.mjs";
import { startKillable } from "../test/crash.ts";
import { upstreamModel } from "../test/isolates.ts";
import { createTenant } from "./operator.ts";

/**
 * What a large upload does to a server's memory: the most that workerd holds above what it held before, beside a
 * Worker that reads the form in the ordinary way. Writes bench/results/uploads.json.
 */
const MEGABYTES = 90;
const ALLOWED = 64;

/** Resident megabytes of every workerd below a process. */
function residentOf(root: number): number {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // it ended meanwhile
    }
  }
  const isBelow = (pid: number): boolean => pid === root || (parents.has(pid) && isBelow(parents.get(pid) as number));
  let kilobytes = 0;
  for (const pid of parents.keys()) {
    if (!isBelow(pid)) continue;
    try {
      if (!readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("workerd")) continue;
      kilobytes += Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
    } catch {
      // it ended meanwhile
    }
  }
  return kilobytes / 1024;
}

const bytes = randomBytes(MEGABYTES * 1024 * 1024);
function formOf(size: number): FormData {
  const form = new FormData();
  form.set("purpose", "user_data");
  form.set("file", new Blob([bytes.subarray(0, size)]), "large.bin");
  return form;
}

/** The most that an upload adds, in megabytes; sampled every 10 ms. */
async function added(root: number, upload: (form: FormData) => Promise<Response>): Promise<number> {
  for (let warm = 0; warm < 5; warm++) await (await upload(formOf(1024 * 1024))).text();
  const before = residentOf(root);
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, residentOf(root));
  }, 10);
  const reply = await upload(formOf(bytes.byteLength));
  if (!reply.ok) throw new Error(`the upload was answered with ${reply.status}: ${await reply.text()}`);
  await reply.text();
  clearInterval(timer);
  return Math.max(most, residentOf(root)) - before;
}

const folder = mkdtempSync(join(tmpdir(), "tenantry-uploads-"));
const adminKey = generateAdminKey();
const catalogue = { version: "uploads", models: [upstreamModel("mock")] };
const vars = { UPSTREAM_URL: "http://127.0.0.1:9/v1", MODEL_CATALOGUE: catalogue };
const platform = await startKillable({ bundle: "production", persistTo: folder, adminKey, vars });
const { key } = await createTenant({ url: platform.url, adminKey }, "mock");
const own = await added(platform.pid, (body) =>
  fetch(`${platform.url}/v1/files`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body }),
);
await platform.kill();

const ORDINARY = `export default { async fetch(request, env) {
  if (new URL(request.url).pathname === "/simulator") {
    const upload = await env.BUCKET.createMultipartUpload("file");
    const whole = new Uint8Array(80 * 65552).fill(7);
    const parts = [];
    const count = Math.ceil(Number(request.headers.get("x-bytes")) / whole.length);
    for (let number = 1; number <= count; number++) parts.push(await upload.uploadPart(number, whole));
    await upload.complete(parts);
    return new Response("stored");
  }
  const file = (await request.formData()).get("file");
  await env.BUCKET.put("file", await file.arrayBuffer());
  return new Response("stored");
} }`;
const ordinary = new Miniflare(
  convertV4MiniflareOptions({
    ...{ log: new Log(LogLevel.ERROR), modules: true, script: ORDINARY, compatibilityDate: "2026-11-01" },
    ...{ r2Buckets: ["BUCKET"], resourcePersistencePath: join(folder, "ordinary") },
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
  } as never),
);
const url = await ordinary.ready;
const simulator = await added(process.pid, (form) => {
  const { size } = form.get("file") as File;
  return fetch(new URL("/simulator", url), { headers: { "x-bytes": String(size) } });
});
const control = await added(process.pid, (body) => fetch(url, { method: "POST", body }));
await ordinary.dispose();
rmSync(folder, { recursive: true, force: true });

console.log(`| an upload of ${MEGABYTES} MB adds | MB |\n|---|---|`);
console.log(`| to this platform, with the local simulator of R2 in the same process | ${own.toFixed(0)} |`);
console.log(`| to a Worker that hands as much to the simulator, from one buffer | ${simulator.toFixed(0)} |`);
console.log(`| so to this platform alone | ${(own - simulator).toFixed(0)} (≤ ${ALLOWED}) |`);
console.log(`| to a Worker that reads the form whole | ${control.toFixed(0)} |`);
const out = join(import.meta.dirname, "results");
mkdirSync(out, { recursive: true });
const machine = { cores: cpus().length, processor: cpus()[0]?.model ?? "", node: process.version };
const result = { name: "uploads", machine, megabytes: MEGABYTES, added: { own, simulator, control }, allowed: ALLOWED };
writeFileSync(join(out, "uploads.json"), `${JSON.stringify(result, null, 1)}\n`);
process.exitCode = own - simulator > ALLOWED ? 1 : 0;
