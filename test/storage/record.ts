import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateAdminKey } from "../../scripts/keys.mjs";
import { startPlatform, upstreamModel } from "../isolates.ts";
import { MockUpstream } from "../mock-upstream.ts";
import { recordStorage } from "./image.ts";

/**
 * Writes down what this version stores, for later versions to open: `npm run record-storage -- v1`. A version is
 * recorded once, when it is released, and its file never changes again.
 */
const version = process.argv[2] ?? "next";
const folder = mkdtempSync(join(tmpdir(), "tenantry-record-"));
const adminKey = generateAdminKey();
const mock = await MockUpstream.start();
// Short, so that the call that is left held is overdue for whoever opens the image.
const REQUEST_DEADLINE_MS = 2_000;
const options = {
  bundle: "production",
  persistTo: folder,
  adminKey,
  vars: { REQUEST_DEADLINE_MS, UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version, models: [upstreamModel("mock")] } },
} as const;

let platform = await startPlatform(options);
const admin = async (path: string, body?: object) => {
  const init = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const reply = await fetch(`${platform.url}/v1/organization${path}`, {
    ...init,
    headers: { authorization: `Bearer ${adminKey}` },
  });
  if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
  return (await reply.json()) as { id: string; value: string };
};
const project = await admin("/projects", { name: "Recorded" });
const accounts = `/projects/${project.id}/service_accounts`;
const account = await admin(accounts, { name: "recorded", create_service_account_only: true });
const key = await admin(`${accounts}/${account.id}/api_keys`, { name: "recorded", scopes: ["data", "account"] });
await admin(`/projects/${project.id}/rate_limits/rl-mock`, { max_requests_per_1_minute: 77 });
const ask = (signal?: AbortSignal) =>
  fetch(`${platform.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key.value}` },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "hi" }] }),
    ...(signal ? { signal } : {}),
  });

// Three calls that grow old and are sealed into a segment, two in the tail, one still held.
for (let calls = 0; calls < 3; calls++) await (await ask()).json();
const gate = `global/${project.id}`;
const storage = await platform.miniflare.unsafeGetDurableObjectStorage("isolate-0", "TenantGate", { name: gate });
await storage.exec("update journal set at_ms = at_ms - 90000000");
await storage.exec("update due set due_at = 1");
await platform.stop();
platform = await startPlatform(options);
const bucket = await platform.miniflare.getR2Bucket("ARTIFACTS", "isolate-0");
for (;;) {
  await admin(`/projects/${project.id}/rate_limits`); // wakes the gate, whose calendar is overdue
  if ((await bucket.list()).objects.length > 0) break;
}
for (let calls = 0; calls < 2; calls++) await (await ask()).json();
mock.script({ hang: true });
void ask().catch(() => {});
while (mock.counters.inFlight === 0) await new Promise(setImmediate);

const who = { recordedBy: version, tenantId: project.id, adminKey, tenantKey: key.value };
const image = await recordStorage(platform, who);
writeFileSync(join(import.meta.dirname, `storage-${version}.json`), `${JSON.stringify(image, null, 1)}\n`);
await platform.stop();
await mock.stop();
rmSync(folder, { recursive: true, force: true });
console.log(`test/storage/storage-${version}.json`);
