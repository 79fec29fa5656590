import { z } from "zod";

/** An adapter that the provider knows; calls name it by `name` or `id`. */
export interface FineTune {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  /** The provider's name of the base. */
  readonly model: string;
}

/** Where adapters are published. Files cannot be changed: what is new is a new fine-tune. */
export interface FineTunes {
  create(fineTune: Omit<FineTune, "id">): Promise<FineTune>;
  /** `adapter_config.json` and `adapter_model.safetensors`, as Hugging Face PEFT writes them. */
  uploadAsset(id: string, fileName: AssetName, bytes: Uint8Array): Promise<void>;
  list(): Promise<readonly FineTune[]>;
}
export type AssetName = "adapter_config.json" | "adapter_model.safetensors";

/** What the provider refused, with its own code; null where it answered in no shape that is known. */
export class FineTuneError extends Error {
  constructor(
    readonly status: number,
    readonly code: number | null,
    message: string,
  ) {
    super(message);
    this.name = "FineTuneError";
  }
}

export interface CloudflareFineTunesOptions {
  readonly accountId: string;
  /** With the permission "Workers AI Write". */
  readonly apiToken: string;
  /** The global one; locally that of the binding, which answers the same paths. */
  readonly fetch: (request: Request) => Promise<Response>;
  /** Of one request, ms. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 60_000;
/** Errors of these operations may lack their code, or even their message. */
const Envelope = z.object({
  success: z.boolean(),
  errors: z.array(z.object({ code: z.number().nullish(), message: z.string().nullish() })).default([]),
  result: z.unknown().optional(),
});
const Listed = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string().nullish(),
  model: z.string(),
});
const fromWire = ({ id, name, description, model }: z.output<typeof Listed>): FineTune => ({
  ...{ id, name, model, description: description ?? "" },
});

/** Cloudflare's REST API, "Workers AI Finetunes"; the binding itself has no such operations. */
export class CloudflareFineTunes implements FineTunes {
  readonly #options: CloudflareFineTunesOptions;

  constructor(options: CloudflareFineTunesOptions) {
    this.#options = options;
  }

  async create(fineTune: Omit<FineTune, "id">): Promise<FineTune> {
    return fromWire(Listed.parse(await this.#send("POST", "", JSON.stringify(fineTune))));
  }

  async uploadAsset(id: string, fileName: AssetName, bytes: Uint8Array): Promise<void> {
    const form = new FormData();
    form.set("file_name", fileName);
    const asset = fileName === "adapter_config.json" ? withModelType(bytes) : bytes;
    form.set("file", new File([new Uint8Array(asset)], fileName));
    await this.#send("POST", `/${encodeURIComponent(id)}/finetune-assets`, form);
  }

  async list(): Promise<readonly FineTune[]> {
    // The reference describes one fine-tune where the API answers with all of them.
    const listed = z.union([z.array(Listed), Listed.transform((one) => [one])]);
    return listed.parse(await this.#send("GET", "")).map(fromWire);
  }

  /** @throws FineTuneError; its message never holds the token */
  async #send(method: string, path: string, body: BodyInit | null = null): Promise<unknown> {
    const { accountId, apiToken, fetch, timeoutMs = TIMEOUT_MS } = this.#options;
    const url = `https://api.cloudflare.com/client/v4/accounts/${encodeURIComponent(accountId)}/ai/finetunes${path}`;
    const headers = new Headers({ authorization: `Bearer ${apiToken}` });
    if (typeof body === "string") headers.set("content-type", "application/json");
    const signal = AbortSignal.timeout(timeoutMs);
    const reply = await fetch(new Request(url, { method, headers, body, signal })).catch((error: unknown) => {
      const why =
        error instanceof Error && error.name === "TimeoutError" ? "did not answer in time" : "cannot be reached";
      throw new FineTuneError(503, null, `the fine-tune API ${why}`);
    });
    const parsed = Envelope.safeParse(await reply.json().catch(() => undefined));
    if (!parsed.success)
      throw new FineTuneError(reply.status, null, `the fine-tune API answered with HTTP ${reply.status}`);
    const { success, errors, result } = parsed.data;
    const [error] = errors;
    if (!success || !reply.ok)
      throw new FineTuneError(
        reply.status,
        error?.code ?? null,
        error?.message ?? `the fine-tune API answered with HTTP ${reply.status}`,
      );
    return result;
  }
}

/** Workers AI wants to be told the family of the base, which PEFT does not write. @throws SyntaxError for no JSON */
function withModelType(config: Uint8Array): Uint8Array {
  const settings = JSON.parse(new TextDecoder().decode(config)) as Record<string, unknown>;
  return new TextEncoder().encode(JSON.stringify({ ...settings, model_type: settings.model_type ?? "llama" }, null, 1));
}
