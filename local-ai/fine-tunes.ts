import { z } from "zod";
import type { LoraAdapter } from "./adapter";
import type { Config } from "./base-weights";
import { Blobs } from "./blobs";
import { CLASSIFICATION_MODEL, TEXT_MODEL } from "./models";
import { AdapterError, parsePeft } from "./peft";

/** As Workers AI: files have exact names, cannot be changed, and an account has so many fine-tunes. */
const FILES = ["adapter_config.json", "adapter_model.safetensors"] as const;
type AssetName = (typeof FILES)[number];
const MAX_FINE_TUNES = 100;
/** Workers AI takes 300 MB; no adapter of this small a model has as much. */
const MAX_ASSET_BYTES = 16 * 1024 * 1024;
/** What a multipart form may add to a file. */
const FORM_BYTES = 64 * 1024;
const PATH = /^\/client\/v4\/accounts\/[^/]+\/ai\/finetunes(?:\/([^/]+)\/finetune-assets\/?)?$/;

const SCHEMA = `
  create table if not exists finetune (id text primary key, name text not null unique, description text not null,
    model text not null, created_at text not null, modified_at text not null) without rowid;`;

const Create = z.object({
  model: z.string().min(1).max(256),
  name: z.string().min(1).max(128),
  description: z.string().max(1_024).default(""),
});

type FineTune = {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly model: string;
  readonly created_at: string;
  readonly modified_at: string;
};

/**
 * Cloudflare's fine-tune operations (REST API, "Workers AI Finetunes": create, upload an asset, list), answered from
 * the object's own database. A pair of files is read as an adapter as soon as both are there; a bad one is refused,
 * and the file that made it bad is not kept.
 */
export class FineTunes {
  readonly #sql: SqlStorage;
  readonly #assets: Blobs;
  readonly #base: Config;

  constructor(sql: SqlStorage, base: Config) {
    this.#sql = sql;
    this.#assets = new Blobs(sql);
    this.#base = base;
    sql.exec(SCHEMA);
  }

  async handle(request: Request): Promise<Response> {
    const [matched, id] = PATH.exec(new URL(request.url).pathname) ?? [];
    try {
      if (matched === undefined) throw new Refused(404, 7003, `Could not route to ${new URL(request.url).pathname}`);
      if (id !== undefined) {
        if (request.method !== "POST") throw new Refused(405, 10_405, "Method not allowed");
        return envelope(await this.#upload(decodeURIComponent(id), request));
      }
      if (request.method === "GET") return envelope(this.#list());
      if (request.method === "POST") return envelope(this.#create(await jsonOf(request)));
      throw new Refused(405, 10_405, "Method not allowed");
    } catch (error) {
      if (error instanceof Refused) return error.response();
      throw error;
    }
  }

  /** By name or id, complete ones alone. */
  find(nameOrId: string): { readonly id: string; readonly load: () => Promise<LoraAdapter> } | undefined {
    const fineTune = this.#find(nameOrId);
    if (!fineTune || FILES.some((file) => !this.#assets.has(fineTune.id, file))) return undefined;
    const [config, tensors] = FILES;
    const load = async () =>
      parsePeft(this.#assets.read(fineTune.id, config), this.#assets.read(fineTune.id, tensors), this.#base);
    return { id: fineTune.id, load };
  }

  #create(body: unknown): FineTune {
    const parsed = Create.safeParse(body);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new Refused(400, 5004, `'${issue?.path.join(".") ?? ""}' ${issue?.message ?? "is wrong"}`);
    }
    const { model, name, description } = parsed.data;
    if (model !== TEXT_MODEL && model !== CLASSIFICATION_MODEL)
      throw new Refused(400, 5005, `Model ${model} does not support LoRAs`);
    if (this.#find(name)) throw new Refused(400, 5004, `A finetune named ${name} exists`);
    if (this.#list().length >= MAX_FINE_TUNES)
      throw new Refused(400, 5004, `An account has ${MAX_FINE_TUNES} finetunes at most`);
    const now = new Date().toISOString();
    const made = { id: crypto.randomUUID(), name, description, model, created_at: now, modified_at: now };
    this.#sql.exec("insert into finetune values (?, ?, ?, ?, ?, ?)", ...Object.values(made));
    return made;
  }

  #list(): FineTune[] {
    return this.#sql.exec<FineTune>("select * from finetune order by created_at, id").toArray();
  }

  async #upload(nameOrId: string, request: Request): Promise<object> {
    const fineTune = this.#find(nameOrId);
    if (!fineTune) throw new Refused(404, 3042, `No such finetune ${nameOrId}`);
    const { name, bytes } = await assetOf(request);
    if (this.#assets.has(fineTune.id, name))
      throw new Refused(400, 3039, `${name} is there and cannot be changed; make a new finetune`);
    const [config, tensors] = FILES;
    const other = name === config ? tensors : config;
    if (this.#assets.has(fineTune.id, other)) {
      const files = { [name]: bytes, [other]: this.#assets.read(fineTune.id, other) } as Record<AssetName, Uint8Array>;
      try {
        parsePeft(files[config], files[tensors], this.#base);
      } catch (error) {
        if (error instanceof AdapterError) throw new Refused(400, 3039, error.message);
        throw error;
      }
    }
    this.#assets.write(fineTune.id, name, bytes);
    this.#sql.exec("update finetune set modified_at = ? where id = ?", new Date().toISOString(), fineTune.id);
    return { id: fineTune.id, file_name: name, bucket_name: "local", name: fineTune.name };
  }

  #find(nameOrId: string): FineTune | undefined {
    return this.#sql.exec<FineTune>("select * from finetune where id = ?1 or name = ?1", nameOrId).toArray()[0];
  }
}

/** An error in Cloudflare's envelope. */
class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: number,
    message: string,
  ) {
    super(message);
  }

  response(): Response {
    const { status, code, message } = this;
    return Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });
  }
}

const envelope = (result: unknown) => Response.json({ success: true, errors: [], messages: [], result });

async function jsonOf(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    throw new Refused(400, 3003, "The body is not JSON");
  }
}

/** Of a multipart form: `file_name` and `file`. */
async function assetOf(request: Request): Promise<{ readonly name: AssetName; readonly bytes: Uint8Array }> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_ASSET_BYTES + FORM_BYTES) throw tooLarge();
  let form: FormData;
  try {
    form = await request.formData();
  } catch {
    throw new Refused(400, 3003, "The body is no multipart form");
  }
  const [name, file] = [form.get("file_name"), form.get("file")];
  const known = FILES.find((each) => each === name);
  if (!known) throw new Refused(400, 3039, `file_name must be ${FILES.join(" or ")}`);
  if (!(file instanceof File)) throw new Refused(400, 3003, "file is missing");
  if (file.size > MAX_ASSET_BYTES) throw tooLarge();
  return { name: known, bytes: new Uint8Array(await file.arrayBuffer()) };
}

const tooLarge = () => new Refused(413, 3006, `A file has ${MAX_ASSET_BYTES} bytes at most here`);
