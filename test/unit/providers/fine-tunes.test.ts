import { describe, expect, it } from "vitest";
import { CloudflareFineTunes, FineTuneError } from "../../../src/inference/fine-tunes";

/** Replies as Cloudflare's API reference shows them (Workers AI, "Finetunes" and "Upload a Finetune Asset"). */
const FINE_TUNE = {
  id: "182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e",
  created_at: "2019-12-27T18:11:19.117Z",
  model: "@cf/mistral/mistral-7b-instruct-v0.2-lora",
  modified_at: "2019-12-27T18:11:19.117Z",
  name: "acme-voice",
};
const CREATED = { result: { ...FINE_TUNE, public: false, description: "Acme" }, success: true };
const LISTED = { result: [FINE_TUNE, { ...FINE_TUNE, id: "other", description: null }], success: true };

function clientOf(...replies: (Response | Error)[]) {
  const requests: Request[] = [];
  const client = new CloudflareFineTunes({
    ...{ accountId: "023e105f4ecef8ad", apiToken: "secret-token" },
    fetch: async (request) => {
      requests.push(request);
      const reply = replies.shift();
      if (!reply || reply instanceof Error) throw reply ?? new Error("asked too often");
      return reply;
    },
  });
  return { client, requests };
}
const json = (body: unknown, status = 200) => Response.json(body, { status });
const create = (client: CloudflareFineTunes) =>
  client.create({ name: "acme-voice", description: "Acme", model: FINE_TUNE.model });

describe("publishing an adapter at Cloudflare", () => {
  it("makes a fine-tune of the account with the token in its header", async () => {
    const { client, requests } = clientOf(json(CREATED));
    const made = await create(client);
    expect(made).toEqual({ id: FINE_TUNE.id, name: "acme-voice", description: "Acme", model: FINE_TUNE.model });
    const [request] = requests;
    expect([request?.method, request?.url, request?.headers.get("authorization")]).toEqual([
      "POST",
      "https://api.cloudflare.com/client/v4/accounts/023e105f4ecef8ad/ai/finetunes",
      "Bearer secret-token",
    ]);
    expect(await request?.json()).toEqual({ name: "acme-voice", description: "Acme", model: FINE_TUNE.model });
  });

  it("uploads both files under their exact names, and tells the family that PEFT does not write", async () => {
    const { client, requests } = clientOf(json({ success: true }), json({ success: true }));
    const config = new TextEncoder().encode(JSON.stringify({ peft_type: "LORA", r: 8 }));
    await client.uploadAsset(FINE_TUNE.id, "adapter_config.json", config);
    await client.uploadAsset(FINE_TUNE.id, "adapter_model.safetensors", new Uint8Array([1, 2, 3]));
    const forms = await Promise.all(requests.map((request) => request.formData()));
    const sent = forms.map((form) => [form.get("file_name"), form.get("file") as File] as const);
    expect(sent.map(([name, file]) => [name, file.name])).toEqual([
      ["adapter_config.json", "adapter_config.json"],
      ["adapter_model.safetensors", "adapter_model.safetensors"],
    ]);
    expect(JSON.parse((await sent[0]?.[1].text()) ?? "")).toEqual({ peft_type: "LORA", r: 8, model_type: "llama" });
    expect(new Uint8Array((await sent[1]?.[1].arrayBuffer()) ?? new ArrayBuffer())).toEqual(new Uint8Array([1, 2, 3]));
    expect(requests[0]?.url).toMatch(/\/ai\/finetunes\/182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e\/finetune-assets$/);
  });

  it("keeps the family that the config names", async () => {
    const { client, requests } = clientOf(json({ success: true }));
    await client.uploadAsset("id", "adapter_config.json", new TextEncoder().encode('{"model_type":"mistral"}'));
    const file = (await requests[0]?.formData())?.get("file") as File;
    expect(JSON.parse(await file.text())).toEqual({ model_type: "mistral" });
  });

  it("lists fine-tunes with a description or without, and one alone as the reference has it", async () => {
    const { client } = clientOf(json(LISTED), json({ result: FINE_TUNE, success: true }));
    const [first, second] = await client.list();
    expect([first?.id, first?.description, second?.id, second?.description]).toEqual([FINE_TUNE.id, "", "other", ""]);
    expect(await client.list()).toHaveLength(1);
  });

  it.each([
    [json({ success: false, errors: [{ code: 3039, message: "missing files" }] }, 400), 400, 3039, "missing files"],
    [json({ success: false, result: {}, errors: [{ message: "Bad Request" }] }, 400), 400, null, "Bad Request"],
    [json({ success: false, errors: [{}] }, 400), 400, null, "the fine-tune API answered with HTTP 400"],
    [json({ success: false, errors: [{ code: 10000, message: "Authentication error" }] }, 403), 403, 10000, /Auth/],
    [new Response("<html>Bad gateway</html>", { status: 502 }), 502, null, "the fine-tune API answered with HTTP 502"],
    [new TypeError("connect secret-token"), 503, null, "the fine-tune API cannot be reached"],
    [new DOMException("", "TimeoutError"), 503, null, "the fine-tune API did not answer in time"],
  ] as const)("says what was refused, and never the token: %#", async (reply, status, code, message) => {
    const error = await create(clientOf(reply).client).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(FineTuneError);
    expect(error).toMatchObject({ status, code });
    expect((error as Error).message).toMatch(message);
    expect(JSON.stringify([error, String(error)])).not.toContain("secret-token");
  });
});
