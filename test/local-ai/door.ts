import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import type { MeterReading } from "../../local-ai/meter";

interface Call {
  readonly model?: unknown;
  readonly inputs: unknown;
  readonly options?: object;
  /** Its end is what the Worker sees of a client that left. */
  readonly signal?: AbortSignal;
}

export interface Door {
  /** `env.AI.run(model, inputs, options)` in a Worker; a stream comes as it is. */
  run(call: Call): Promise<Response>;
  /** Asks for a stream and lets it lie. */
  drop(call: Call): Promise<void>;
  meter(): Promise<MeterReading>;
  /** Calls the trainer's binding; bytes come as base64. */
  train<T>(method: string, ...args: unknown[]): Promise<T>;
  /** What the binding answers in place of `api.cloudflare.com`. */
  api(request: Request): Promise<Response>;
  stop(): Promise<void>;
}

/** The embedded model inside workerd, behind a service binding as in `wrangler.toml`. */
export async function openDoor(persistTo?: string): Promise<Door> {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-door-"));
  await build({
    entryPoints: [join(import.meta.dirname, "door-worker.ts")],
    outdir: folder,
    bundle: true,
    format: "esm",
    assetNames: "[name]",
    loader: { ".bin": "copy", ".wasm": "copy" },
    external: ["cloudflare:workers", "node:timers"],
  });
  const miniflare = new Miniflare(convertV4MiniflareOptions(options(folder, persistTo)));
  await miniflare.ready;
  const { origin } = await miniflare.unsafeGetDirectURL("door");
  const post = (path: string, { model = "@local/tiny-support-lm", inputs, options, signal }: Call) =>
    fetch(origin + path, { method: "POST", body: JSON.stringify({ model, inputs, options }), signal: signal ?? null });
  return {
    run: (call) => post("/run", call),
    drop: async (call) => void (await (await post("/drop", call)).text()),
    train: async <T>(method: string, ...args: unknown[]) => {
      const response = await fetch(`${origin}/trainer/${method}`, { method: "POST", body: JSON.stringify(args) });
      const answer = (await response.json()) as T & { name: string; message: string };
      if (!response.ok) throw Object.assign(new Error(answer.message), { name: answer.name });
      return answer;
    },
    api: async (request) => {
      const { method, headers } = request;
      const body = method === "GET" ? null : await request.arrayBuffer();
      return fetch(origin + new URL(request.url).pathname, { method, headers, body });
    },
    meter: async () => (await (await fetch(`${origin}/meter`)).json()) as MeterReading,
    stop: async () => {
      await miniflare.dispose();
      rmSync(folder, { recursive: true });
    },
  };
}

const options = (folder: string, persistTo: string | undefined) =>
  ({
    log: new Log(LogLevel.ERROR),
    ...(persistTo === undefined ? {} : { resourcePersistencePath: persistTo }),
    workers: [
      {
        name: "door",
        modulesRoot: folder,
        modules: [
          { type: "ESModule", path: join(folder, "door-worker.js") },
          { type: "Data", path: join(folder, "model.fp16.safetensors.bin") },
          { type: "CompiledWasm", path: join(folder, "engine.wasm") },
          { type: "CompiledWasm", path: join(folder, "trainer.wasm") },
        ],
        compatibilityDate: "2026-11-01",
        compatibilityFlags: ["nodejs_compat"],
        durableObjects: {
          EMBEDDED_MODEL: { className: "EmbeddedModel", useSQLite: true },
          EMBEDDED_TRAINER: { className: "EmbeddedTrainer", useSQLite: true },
        },
        serviceBindings: {
          AI: { name: "door", entrypoint: "LocalAI" },
          TRAINER: { name: "door", entrypoint: "LocalTrainer" },
        },
        unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
      },
    ],
  }) as never;
