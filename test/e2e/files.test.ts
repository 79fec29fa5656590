import { createHash, randomBytes } from "node:crypto";
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Platform, startPlatform } from "../isolates";
import { Operator, type TestTenant } from "../operator";

let platform: Platform;
let operator: Operator;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startPlatform();
  operator = new Operator(platform.url, platform.adminKey);
  tenant = await operator.createTenant();
});
afterAll(() => platform.stop());

const files = (of = tenant) => of.client.files;
const upload = async (content: string | Uint8Array, more: Partial<OpenAI.FileCreateParams> = {}, of = tenant) =>
  files(of).create({ file: await toFile(Buffer.from(content), "a name.txt"), purpose: "user_data", ...more });
const content = async (id: string, headers: Record<string, string> = {}, of = tenant) => {
  const reply = await fetch(`${platform.url}/v1/files/${id}/content`, {
    headers: { authorization: `Bearer ${of.key}`, ...headers },
  });
  return { reply, bytes: new Uint8Array(await reply.arrayBuffer()) };
};
const batchLine = (id: string) =>
  JSON.stringify({ custom_id: id, method: "POST", url: "/v1/chat/completions", body: { model: "m" } });
/** What lies in object storage of a tenant. */
const objects = async (of: TestTenant) => {
  const bucket = await platform.miniflare.getR2Bucket("ARTIFACTS", "isolate-0");
  return (await bucket.list({ prefix: `global/${of.projectId}/files/` })).objects;
};

describe("a file", () => {
  it("is uploaded, found, listed, read and deleted through the official client", async () => {
    const made = await upload("hello there");
    expect(made).toMatchObject({ object: "file", bytes: 11, filename: "a name.txt", purpose: "user_data" });
    expect(await files().retrieve(made.id)).toEqual(made);
    expect((await files().list({ purpose: "user_data" })).data).toContainEqual(made);
    expect((await files().list({ purpose: "batch" })).data).not.toContainEqual(made);
    expect(await (await files().content(made.id)).text()).toBe("hello there");
    expect(await files().delete(made.id)).toMatchObject({ deleted: true });
    await expect(files().retrieve(made.id)).rejects.toMatchObject({ status: 404 });
    await expect(files().content(made.id)).rejects.toMatchObject({ status: 404 });
  });

  it("of any size comes back byte for byte, in parts too, and lies sealed", async () => {
    const owner = await operator.createTenant();
    for (const size of [0, 1, 65_535, 65_536, 65_537, 1_000_000, 6_000_000]) {
      const bytes = new Uint8Array(randomBytes(size));
      const { id } = await upload(bytes, {}, owner);
      const whole = await content(id, {}, owner);
      expect(createHash("sha256").update(whole.bytes).digest("hex")).toBe(
        createHash("sha256").update(bytes).digest("hex"),
      );
      expect(whole.reply.headers.get("etag")).toBe(`"${createHash("sha256").update(bytes).digest("hex")}"`);
      expect(whole.reply.headers.get("content-length")).toBe(String(size));
      const head = await fetch(`${platform.url}/v1/files/${id}/content`, {
        method: "HEAD",
        headers: { authorization: `Bearer ${owner.key}`, range: "bytes=0-0" }, // which HEAD knows nothing of
      });
      expect([head.status, head.headers.get("content-length")]).toEqual([200, String(size)]);
      if (size < 2) continue;
      for (const [range, from, to] of [
        ["bytes=0-0", 0, 1],
        [`bytes=${size - 2}-`, size - 2, size],
        ["bytes=-1", size - 1, size],
        ["bytes=1-70000", 1, Math.min(70_001, size)],
      ] as const) {
        const part = await content(id, { range }, owner);
        expect([part.reply.status, part.reply.headers.get("content-range")]).toEqual([
          206,
          `bytes ${from}-${to - 1}/${size}`,
        ]);
        expect(part.reply.headers.get("content-length")).toBe(String(to - from));
        expect(Buffer.compare(part.bytes, bytes.subarray(from, to))).toBe(0);
      }
      expect((await content(id, { range: `bytes=${size}-` }, owner)).reply.status).toBe(416);
    }
    const secret = "a very secret sentence";
    const { id } = await upload(secret, {}, owner);
    const bucket = await platform.miniflare.getR2Bucket("ARTIFACTS", "isolate-0");
    const lying = await bucket.get(`global/${owner.projectId}/files/v1/${id}`);
    expect(Buffer.from((await lying?.arrayBuffer()) ?? new ArrayBuffer()).includes(secret)).toBe(false);
  });

  it("of JSON Lines is checked line by line, and a bad one leaves nothing behind", async () => {
    const owner = await operator.createTenant();
    const good = await upload(`${batchLine("a")}\n${batchLine("b")}\n`, { purpose: "batch" }, owner);
    expect(good.expires_at).toBe(good.created_at + 30 * 24 * 60 * 60);
    await expect(upload(`${batchLine("a")}\n{"custom_id":1}`, { purpose: "batch" }, owner)).rejects.toMatchObject({
      status: 400,
      code: "invalid_file",
      param: "file",
      message: expect.stringContaining("line 2"),
    });
    expect((await files(owner).list()).data).toHaveLength(1);
    expect(await objects(owner)).toHaveLength(1);
  });

  it("expires when it was told to", async () => {
    const made = await upload("x", { expires_after: { anchor: "created_at", seconds: 3_600 } });
    expect(made.expires_at).toBe(made.created_at + 3_600);
    const database = await platform.miniflare.getD1Database("DB", "isolate-0");
    await database.prepare("update file set expires_at = 1 where id = ?").bind(made.id).run();
    await expect(files().retrieve(made.id)).rejects.toMatchObject({ status: 404 });
    expect((await files().list()).data.map(({ id }) => id)).not.toContain(made.id);
    await expect(files().content(made.id)).rejects.toMatchObject({ status: 404 });
  });

  it("belongs to its tenant, and an end user's to that end user", async () => {
    const { id } = await upload("mine");
    const other = await operator.createTenant();
    await expect(files(other).retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(files(other).delete(id)).rejects.toMatchObject({ status: 404 });
    expect((await content(id, {}, other)).reply.status).toBe(404);
    const clientOfUser = async (subject: string) => {
      const minted = await tenant.client.post<{ value: string }>("/tenantry/end_user_tokens", { body: { subject } });
      return new OpenAI({ baseURL: `${platform.url}/v1`, apiKey: minted.value });
    };
    const [ann, ben] = [await clientOfUser("ann"), await clientOfUser("ben")];
    const anns = await ann.files.create({ file: await toFile(Buffer.from("ann's"), "a"), purpose: "user_data" });
    await expect(ben.files.content(anns.id)).rejects.toMatchObject({ status: 404 });
    expect((await ben.files.list()).data).toEqual([]);
    expect((await ann.files.list()).data.map((file) => file.id)).toEqual([anns.id]);
    expect(await (await files().content(anns.id)).text()).toBe("ann's");
  });

  it("is refused beyond the plan's room, and many at once never get beyond it", async () => {
    const small = await operator.createTenant();
    const path = `${platform.url}/v1/tenantry/projects/${small.projectId}/plan`;
    const headers = { authorization: `Bearer ${platform.adminKey}` };
    await fetch(path, { method: "POST", headers, body: '{"plan":"free"}' });
    const results = await Promise.allSettled(Array.from({ length: 120 }, () => upload("x", {}, small)));
    const made = results.filter(({ status }) => status === "fulfilled").length;
    expect(made).toBeLessThanOrEqual(100);
    const refused = results.flatMap((result) =>
      result.status === "rejected" ? [result.reason as { code: string }] : [],
    );
    expect(new Set(refused.map(({ code }) => code))).toEqual(new Set(["storage_quota_exceeded"]));
    expect(await objects(small)).toHaveLength(made);
    for (let more = made; more < 100; more++) await upload("x", {}, small); // one after another, all of the room
    await expect(upload("x", {}, small)).rejects.toMatchObject({ status: 403, code: "storage_quota_exceeded" });
    expect((await files(small).list()).data).toHaveLength(100);
  }, 30_000);

  it("is not taken where nothing may be kept", async () => {
    const secret = await operator.createTenant();
    await operator.client.admin.organization.projects.dataRetention.update(secret.projectId, {
      retention_type: "zero_data_retention",
    });
    await expect(upload("x", {}, secret)).rejects.toMatchObject({ status: 403, code: "data_not_kept" });
  });

  it.each([
    ["no file", (form: FormData) => form.delete("file"), 400, "missing_required_parameter"],
    ["two files", (form: FormData) => form.append("file", new Blob(["b"]), "b"), 400, "invalid_form"],
    ["no purpose", (form: FormData) => form.delete("purpose"), 400, "missing_required_parameter"],
    ["an unknown purpose", (form: FormData) => form.set("purpose", "fun"), 400, "invalid_value"],
    ["an unknown field", (form: FormData) => form.set("color", "red"), 400, "unknown_parameter"],
    [
      "a life too short",
      (form: FormData) => form.set("expires_after[seconds]", "10"),
      400,
      "missing_required_parameter",
    ],
  ] as const)("with %s is refused, and leaves nothing behind", async (_, change, status, code) => {
    const owner = await operator.createTenant();
    const form = new FormData();
    form.set("file", new Blob(["a"]), "a");
    form.set("purpose", "user_data");
    change(form);
    const reply = await fetch(`${platform.url}/v1/files`, {
      method: "POST",
      headers: { authorization: `Bearer ${owner.key}` },
      body: form,
    });
    expect([reply.status, ((await reply.json()) as { error: { code: string } }).error.code]).toEqual([status, code]);
    expect(await objects(owner)).toEqual([]);
  });

  it("in another form, and a form that is cut off, are refused", async () => {
    const post = (type: string, body: string) =>
      fetch(`${platform.url}/v1/files`, {
        method: "POST",
        headers: { authorization: `Bearer ${tenant.key}`, "content-type": type },
        body,
      });
    expect((await post("application/json", "{}")).status).toBe(415);
    const cut = '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of a';
    expect((await post("multipart/form-data; boundary=b", cut)).status).toBe(400);
    expect((await post("multipart/form-data", "x")).status).toBe(415);
    expect((await post("multipart/form-data; boundary=", "x")).status).toBe(400);
  });
});
