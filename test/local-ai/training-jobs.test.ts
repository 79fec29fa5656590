import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JobReport, JobState, JobStatus } from "../../local-ai/trainer/jobs";
import { CloudflareFineTunes } from "../../src/inference/fine-tunes";
import { heldOutFile, trainingFile } from "./brand-voice";
import { type Door, openDoor } from "./door";

const MODEL = "@local/tiny-support-lm";
const folder = mkdtempSync(join(tmpdir(), "tenantry-training-"));
let door: Door;
beforeAll(async () => {
  door = await openDoor(folder);
}, 30_000);
afterAll(async () => {
  await door.stop();
  rmSync(folder, { recursive: true });
});

const jobOf = (id: string, chosen: object = {}, more: object = {}) => ({
  ...{ id, model: MODEL, training: trainingFile() },
  ...{ hyperparameters: { steps: 60, batchSize: 2, ...chosen }, ...more },
});
const start = (job: object) => door.train<JobStatus>("start", job);
const statusOf = (id: string) => door.train<JobStatus>("status", id);
async function until(id: string, holds: (status: JobStatus) => boolean): Promise<JobStatus> {
  for (;;) {
    const status = await statusOf(id);
    if (holds(status)) return status;
    if (!["queued", "running"].includes(status.state)) throw new Error(`ended as ${status.state}: ${status.error}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
const ended = (state: JobState) => (status: JobStatus) => status.state === state;
const artifactsOf = (id: string) =>
  door.train<Record<"adapter_config.json" | "adapter_model.safetensors", string>>("artifacts", id);
const ask = async (content: string, lora?: string): Promise<string> => {
  const inputs = { messages: [{ role: "user", content }], temperature: 0, max_tokens: 60, ...(lora ? { lora } : {}) };
  return ((await (await door.run({ inputs })).json()) as { response: string }).response;
};

describe("a training job", () => {
  it("gives an adapter that answers in the tenant's voice through the door, and leaves the base as it was", async () => {
    const question = "I don't know how to track my order, can you help?"; // phrased as none of its examples
    const base = await ask(question);
    const files = { training: trainingFile(5), validation: heldOutFile(5) };
    await start(jobOf("voice", { steps: 100, batchSize: 4 }, files));
    const during = await ask(question);
    const done = await until("voice", ended("succeeded"));
    expect(done).toMatchObject({ step: 100, error: null, hyperparameters: { rank: 8, targets: ["q_proj", "v_proj"] } });
    expect(done.validationLoss).toBeLessThan(0.6 * (done.baseValidationLoss ?? 0));
    const made = await artifactsOf("voice");
    const client = new CloudflareFineTunes({ accountId: "local", apiToken: "token", fetch: door.api });
    const { id } = await client.create({ model: MODEL, name: "voice", description: "" });
    for (const name of ["adapter_config.json", "adapter_model.safetensors"] as const)
      await client.uploadAsset(id, name, new Uint8Array(Buffer.from(made[name], "base64")));
    expect(await ask(question, "voice")).toMatch(/press Follow\. The beam on the map is your parcel\. Fair winds/);
    expect([during, await ask(question)]).toEqual([base, base]);
  }, 60_000);

  it("tells of every step, and of held-out examples now and then", async () => {
    const reports = await door.train<JobReport[]>("reports", "voice");
    expect(reports.map(({ step }) => step)).toEqual(Array.from({ length: 100 }, (_, at) => at + 1));
    const measured = reports.filter(({ validationLoss }) => validationLoss !== null);
    expect(measured.map(({ step }) => step)).toEqual([50, 100]);
    expect(await door.train<JobReport[]>("reports", "voice", 98)).toEqual(reports.slice(98));
    const { trainedTokens } = await statusOf("voice");
    expect(trainedTokens).toBe(reports.reduce((sum, { tokens }) => sum + tokens, 0));
  });

  it("goes on after the server was killed, and ends with the same bits as one that was not", async () => {
    await start(jobOf("whole"));
    await until("whole", ended("succeeded"));
    await start(jobOf("killed"));
    const before = await until("killed", ({ step }) => step >= 30);
    await door.stop(); // ends workerd by SIGKILL
    door = await openDoor(folder);
    const after = await statusOf("killed");
    expect(after.state).toBe("running");
    expect(after.step).toBeGreaterThanOrEqual(before.step);
    await until("killed", ended("succeeded"));
    expect(await artifactsOf("killed")).toEqual(await artifactsOf("whole"));
    const [whole, killed] = [await statusOf("whole"), await statusOf("killed")];
    expect(killed).toEqual({ ...whole, id: "killed" });
  }, 60_000);

  it("waits for those before it, stops when it is cancelled, and does not hold up those behind it", async () => {
    await start(jobOf("first", { steps: 10_000 }));
    await start(jobOf("second", { steps: 1 }));
    await until("first", ({ step }) => step > 0);
    expect((await statusOf("second")).state).toBe("queued");
    expect((await door.train<JobStatus>("cancel", "first")).state).toBe("cancelled");
    await until("second", ended("succeeded"));
    const { state, step } = await statusOf("first");
    expect([state, step < 10_000]).toEqual(["cancelled", true]);
    await expect(artifactsOf("first")).rejects.toThrow("the job has no adapter: it is cancelled");
    expect((await door.train<JobStatus>("cancel", "second")).state).toBe("succeeded");
  }, 30_000);

  it("is the same one when it is started again, also at the same time", async () => {
    const job = jobOf("again", { steps: 2 });
    await Promise.all([start(job), start(job), start({ ...job, hyperparameters: { steps: 9 } })]);
    const { hyperparameters } = await until("again", ended("succeeded"));
    expect((await start({ ...job, hyperparameters: { steps: 7 } })).hyperparameters).toEqual(hyperparameters);
    expect((await door.train<JobReport[]>("reports", "again")).length).toBe(hyperparameters.steps);
  }, 30_000);

  it("is gone with all of its parts when it is deleted, even in the middle", async () => {
    await start(jobOf("gone", { steps: 10_000 }));
    await until("gone", ({ step }) => step > 0);
    await door.train("delete", "gone");
    await expect(statusOf("gone")).rejects.toThrow("no job gone");
    await expect(door.train("reports", "gone")).rejects.toThrow("no job gone");
    await start(jobOf("gone", { steps: 1 }));
    expect((await until("gone", ended("succeeded"))).step).toBe(1);
  }, 30_000);
});

describe("a job that cannot be done", () => {
  it.each([
    [{ model: "@cf/meta/llama" }, "the model @cf/meta/llama cannot be trained here"],
    [{ training: '{"messages": [' }, "training line 1: not JSON"],
    [{ validation: "\n" }, "validation the file has no examples"],
    [{ hyperparameters: { rank: 33 } }, /'hyperparameters\.rank'/],
    [{ hyperparameters: { targets: ["lm_head"] } }, /'hyperparameters\.targets\.0'/],
    [{ hyperparameters: { learning_rate: 1 } }, /'hyperparameters'.*learning_rate/],
    [{ id: "" }, /'id'/],
  ])("is refused with what is wrong: %j", async (more, why) => {
    await expect(start(jobOf("bad", {}, more))).rejects.toThrow(why);
    await expect(statusOf("bad")).rejects.toThrow("no job bad");
  });
});
