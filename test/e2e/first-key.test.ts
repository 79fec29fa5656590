import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { generateAdminKey, hashKey } from "../../scripts/keys.mjs";
import { type Platform, startPlatform } from "../isolates";
import { Operator } from "../operator";

const DAY_MS = 86_400_000;
const folder = mkdtempSync(join(tmpdir(), "tenantry-first-key-"));
let platform: Platform;
afterEach(async () => {
  await platform.stop();
  rmSync(folder, { recursive: true, force: true });
});

const list = (key: string) =>
  fetch(`${platform.url}/v1/organization/admin_api_keys`, { headers: { authorization: `Bearer ${key}` } });
const gate = () =>
  platform.miniflare.unsafeGetDurableObjectStorage("isolate-0", "TenantGate", { name: "global/platform" });

/** The operator's gate finds, when it wakes, that its deleted keys lie so many days back and that the purge is due. */
async function daysLater(days: number): Promise<void> {
  const storage = await gate();
  await storage.exec(`update api_key set deleted_at = deleted_at - ${days * DAY_MS} where deleted_at is not null`);
  await storage.exec("update due set due_at = 1 where kind = 'purge'");
}

describe("the operator's first key", () => {
  it("stays deleted: through the retention window, its purge, restarts, and however often it is sent", async () => {
    const options = { bundle: "production", persistTo: folder, vars: { BINDING_MS: 0 } } as const;
    platform = await startPlatform(options);
    const { adminKey } = platform;
    const keys = new Operator(platform.url, adminKey).client.admin.organization.adminAPIKeys;
    const second = await keys.create({ name: "second" });
    const [first] = (await keys.list()).data.filter(({ id }) => id !== second.id);
    const successor = new Operator(platform.url, second.value).client.admin.organization.adminAPIKeys;
    await successor.delete(first?.id ?? "");
    expect((await list(adminKey)).status).toBe(401);
    for (const days of [29, 2, 400]) {
      await daysLater(days);
      await platform.stop();
      platform = await startPlatform({ ...options, adminKey });
      const left = async () => (await (await gate()).exec("select id from api_key")) as unknown[];
      expect((await list(second.value)).status).toBe(200); // wakes the gate, whose alarm is overdue
      if (days !== 29) await expect.poll(async () => JSON.stringify(await left())).not.toContain(String(first?.id));
      for (let round = 0; round < 3; round++) expect((await list(adminKey)).status).toBe(401);
      const listed = (await (await list(second.value)).json()) as { data: { id: string }[] };
      expect(listed.data.map(({ id }) => id)).toEqual([second.id]);
    }
    // Another first key, which the operator has configured since, is another key.
    await platform.stop();
    const other = generateAdminKey();
    platform = await startPlatform({ ...options, adminKey: other });
    expect((await list(other)).status).toBe(200);
    expect((await list(adminKey)).status).toBe(401);
    // One that is configured as first although it was made, and deleted, as any other: it stays deleted too.
    const third = await new Operator(platform.url, other).client.admin.organization.adminAPIKeys.create({ name: "3" });
    await new Operator(platform.url, other).client.admin.organization.adminAPIKeys.delete(third.id);
    await platform.stop();
    platform = await startPlatform({ ...options, vars: { BOOTSTRAP_ADMIN_KEY_HASH: hashKey(third.value) } });
    expect((await list(third.value)).status).toBe(401);
    expect((await list(other)).status).toBe(200);
  });
});
