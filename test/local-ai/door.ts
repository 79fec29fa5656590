import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import type { Meter } from "../../local-ai/embedded-model";

export interface Door {
  /** `env.AI.run(model, inputs)` in a Worker. */
  run(inputs: unknown, model?: string): Promise<Response>;
  /** The same with `signal`, whose end the Worker sees as a client that left. */
  stream(inputs: object, signal?: AbortSignal): Promise<Response>;
  /** Asks for a stream and lets it lie. */
  drop(inputs: object): Promise<void>;
  meter(): Promise<Meter>;
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
    loader: { ".bin": "copy" },
    external: ["cloudflare:workers"],
  });
  const miniflare = new Miniflare(convertV4MiniflareOptions(options(folder, persistTo)));
  await miniflare.ready;
  const { origin } = await miniflare.unsafeGetDirectURL("door");
  const call = (path: string, inputs: unknown, model = "@local/tiny-support-lm", signal?: AbortSignal) =>
    fetch(origin + path, {
      method: "POST",
      body: JSON.stringify({ model, inputs }),
      ...(signal === undefined ? {} : { signal }),
    });
  return {
    run: (inputs, model) => call("/run", inputs, model),
    stream: (inputs, signal) => call("/run", { ...inputs, stream: true }, undefined, signal),
    drop: async (inputs) => void (await (await call("/drop", { ...inputs, stream: true })).text()),
    meter: async () => (await (await fetch(`${origin}/meter`)).json()) as Meter,
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
        ],
        compatibilityDate: "2026-11-01",
        compatibilityFlags: ["nodejs_compat"],
        durableObjects: { EMBEDDED_MODEL: { className: "EmbeddedModel", useSQLite: true } },
        serviceBindings: { AI: { name: "door", entrypoint: "LocalAI" } },
        unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
      },
    ],
  }) as never;
