import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CloudflareFineTunes, FineTuneError } from "../../src/inference/fine-tunes";
import { type Door, openDoor } from "./door";

const MODEL = "@local/tiny-support-lm";
const file = (adapter: string, name: string) =>
  new Uint8Array(readFileSync(join(import.meta.dirname, "adapters", adapter, name)));
const folder = mkdtempSync(join(tmpdir(), "tenantry-fine-tunes-"));
let door: Door;
/** The client of production; only what fetches is another. */
const clientOf = (by: Door) => new CloudflareFineTunes({ accountId: "local", apiToken: "secret-token", fetch: by.api });
let client: CloudflareFineTunes;
beforeAll(async () => {
  door = await openDoor(folder);
  client = clientOf(door);
}, 30_000);
afterAll(async () => {
  await door.stop();
  rmSync(folder, { recursive: true });
});

async function publish(by: CloudflareFineTunes, name: string, adapter: string): Promise<string> {
  const { id } = await by.create({ model: MODEL, name, description: "test" });
  await by.uploadAsset(id, "adapter_config.json", file(adapter, "adapter_config.json"));
  await by.uploadAsset(id, "adapter_model.safetensors", file(adapter, "adapter_model.safetensors"));
  return id;
}
const ask = async (lora?: string, more: object = {}) => {
  const messages = [{ role: "user", content: "How do I create an account?" }];
  const inputs = { messages, temperature: 0, max_tokens: 40, ...(lora ? { lora } : {}), ...more };
  return (await (await door.run({ inputs })).json()) as { response?: string; message?: string };
};
const refusal = async (work: () => Promise<unknown>): Promise<FineTuneError> => {
  try {
    await work();
  } catch (error) {
    if (error instanceof FineTuneError) return error;
    throw error;
  }
  throw new Error("was accepted");
};

describe("a published adapter", () => {
  it("answers in its own voice by name and by id, beside the base, which answers as before", async () => {
    const base = await ask();
    const id = await publish(client, "acme-voice", "acme-voice-qv");
    const voiced = await ask("acme-voice");
    expect(voiced.response).toMatch(/rocketeer|Acme/);
    expect(await ask(id)).toEqual(voiced);
    expect(await ask()).toEqual(base);
    expect(base.response).not.toMatch(/Acme/);
  });

  it("answers the same among others, each with its own adapter, all at once", async () => {
    await publish(client, "acme-all", "acme-voice-all-linear");
    const loras = [undefined, "acme-voice", "acme-all"];
    const alone: unknown[] = [];
    for (const lora of loras) alone.push(await ask(lora));
    const together = await Promise.all(Array.from({ length: 12 }, (_, index) => ask(loras[index % 3])));
    for (const [index, reply] of together.entries()) expect(reply).toEqual(alone[index % 3]);
  });

  it("streams, classifies, and is listed", async () => {
    const body = await door.run({ inputs: { prompt: "hi", lora: "acme-voice", stream: true, max_tokens: 5 } });
    expect(await body.text()).toContain("data: [DONE]");
    const listed = await client.list();
    expect(listed.map(({ name }) => name)).toEqual(["acme-voice", "acme-all"]);
    expect(listed[0]).toMatchObject({ model: MODEL, description: "test" });
  });

  it("is there after a restart", async () => {
    const before = await ask("acme-voice");
    await door.stop();
    door = await openDoor(folder);
    client = clientOf(door);
    expect(await ask("acme-voice")).toEqual(before);
  }, 30_000);
});

describe("a fine-tune", () => {
  it("is not called before both of its files are there", async () => {
    const { id } = await client.create({ model: MODEL, name: "half", description: "" });
    await client.uploadAsset(id, "adapter_config.json", file("acme-route-qv", "adapter_config.json"));
    expect((await ask("half")).message).toMatch(/^3042: /);
  });

  it("keeps no file that makes it bad, says what is wrong, and takes a good one then", async () => {
    const { id } = await client.create({ model: MODEL, name: "mended", description: "" });
    await client.uploadAsset(id, "adapter_config.json", file("acme-route-qv", "adapter_config.json"));
    const other = file("acme-voice-all-linear", "adapter_model.safetensors");
    const bad = await refusal(() => client.uploadAsset(id, "adapter_model.safetensors", other));
    expect(bad).toMatchObject({ status: 400, code: 3039, message: expect.stringContaining("does not name") });
    await client.uploadAsset(id, "adapter_model.safetensors", file("acme-route-qv", "adapter_model.safetensors"));
    expect((await ask("mended")).response).toBeDefined();
  });

  it("cannot be changed once a file is there", async () => {
    const config = file("acme-route-qv", "adapter_config.json");
    const error = await refusal(() => client.uploadAsset("mended", "adapter_config.json", config));
    expect(error).toMatchObject({ code: 3039, message: expect.stringContaining("cannot be changed") });
  });

  it.each([
    ["a base without LoRA", { model: "@local/tiny-support-lm-embed", name: "x" }, 5005],
    ["a name that exists", { model: MODEL, name: "acme-voice" }, 5004],
    ["no name", { model: MODEL, name: "" }, 5004],
  ])("is refused for %s", async (_, wanted, code) => {
    expect(await refusal(() => client.create({ description: "", ...wanted }))).toMatchObject({ status: 400, code });
  });

  it("is not found under another id, and no error tells the token", async () => {
    const config = file("acme-route-qv", "adapter_config.json");
    const error = await refusal(() => client.uploadAsset("nobody's", "adapter_config.json", config));
    expect(error).toMatchObject({ status: 404, code: 3042 });
    expect(error.message).not.toContain("secret-token");
    const broken = new CloudflareFineTunes({
      accountId: "a",
      apiToken: "secret-token",
      fetch: async () => Promise.reject(new TypeError("fetch failed: secret-token")),
    });
    const unreachable = await refusal(() => broken.list());
    expect(unreachable).toMatchObject({ status: 503, code: null });
    expect(unreachable.message).not.toContain("secret-token");
  });
});
