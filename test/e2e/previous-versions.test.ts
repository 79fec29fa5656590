import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator } from "../operator";
import { restoreStorage, type StorageImage } from "../storage/image";

const FOLDER = join(import.meta.dirname, "../storage");
const images = readdirSync(FOLDER)
  .filter((file) => /^storage-v\d+\.json$/.test(file))
  .map((file) => JSON.parse(readFileSync(join(FOLDER, file), "utf8")) as StorageImage);

interface Decisions {
  readonly data: readonly { readonly outcome: string; readonly hash: string }[];
}

/** Data outlives versions: what an earlier one stored, this one opens, reads and goes on with. */
describe.each(images)("storage recorded by $recordedBy", (image) => {
  it("opens: keys, limits, decisions in the tail and in sealed segments, usage, and a call that was left held", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-image-"));
    const mock = await MockUpstream.start();
    const vars = { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "now", models: [upstreamModel("mock")] } };
    const options = { bundle: "production" as const, persistTo: folder, adminKey: image.adminKey, vars };
    let platform = await startPlatform(options);
    await restoreStorage(platform, image);
    await platform.stop();
    platform = await startPlatform(options);
    try {
      const operator = new Operator(platform.url, image.adminKey);
      const { projects } = operator.client.admin.organization;
      expect(await projects.retrieve(image.tenantId)).toMatchObject({ name: "Recorded", status: "active" });
      const limits = await projects.rateLimits.listRateLimits(image.tenantId);
      expect(limits.data[0]).toMatchObject({ model: "mock", max_requests_per_1_minute: 77 });
      const client = operator.client.withOptions({ apiKey: image.tenantKey });
      const decisions = () => client.get("/tenantry/decisions?order=asc&limit=100") as Promise<Decisions>;
      // Three sealed, two in the tail, and the held one, which nobody settled: booked at its worst case.
      await expect.poll(async () => (await decisions()).data.length).toBe(6);
      const outcomes = (await decisions()).data.map(({ outcome }) => outcome);
      expect(outcomes).toEqual(["completed", "completed", "completed", "completed", "completed", "unreconciled"]);
      const ask = { model: "mock", messages: [{ role: "user" as const, content: "hi" }] };
      await client.chat.completions.create(ask);
      expect((await decisions()).data).toHaveLength(7);
      const usage = await operator.client.admin.organization.usage.completions({
        start_time: 1_700_000_000,
        project_ids: [image.tenantId],
        limit: 31,
      });
      expect(usage.has_more).toBe(true);
    } finally {
      await platform.stop();
      await mock.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
