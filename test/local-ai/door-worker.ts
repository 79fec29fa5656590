import type { LocalTrainer } from "../../local-ai/local-trainer";
import type { MeterReading } from "../../local-ai/meter";

export { EmbeddedModel } from "../../local-ai/embedded-model";
export { EmbeddedTrainer } from "../../local-ai/embedded-trainer";
export { LocalAI } from "../../local-ai/local-ai";
export { LocalTrainer } from "../../local-ai/local-trainer";

interface Env {
  readonly AI: {
    run(model: unknown, inputs: unknown, options?: object): Promise<unknown>;
    meter(): Promise<MeterReading>;
    fetch(request: Request): Promise<Response>;
  };
  readonly TRAINER: Service<LocalTrainer>;
}

/** A caller of `env.AI`: hands a JSON call on and shows what came back, streams as they are. */
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname.startsWith("/client/v4/")) return env.AI.fetch(request);
    if (pathname === "/meter") return Response.json(await env.AI.meter());
    if (pathname.startsWith("/trainer/")) return callTrainer(env.TRAINER, pathname.slice(9), await request.json());
    const { model, inputs, options } = (await request.json()) as { model: unknown; inputs: unknown; options?: object };
    try {
      const reply = await env.AI.run(model, inputs, options);
      if (pathname === "/drop") return new Response("dropped"); // the stream is neither read nor cancelled
      return reply instanceof ReadableStream ? new Response(reply) : Response.json(reply);
    } catch (error) {
      const { name, message } = error as Error;
      return Response.json({ name, message }, { status: 500 });
    }
  },
} satisfies ExportedHandler<Env>;

type Method = "start" | "status" | "reports" | "cancel" | "artifacts" | "delete";

/** Bytes go as base64, which JSON has room for. */
async function callTrainer(trainer: Service<LocalTrainer>, method: string, args: unknown): Promise<Response> {
  try {
    const call = trainer[method as Method] as (...given: unknown[]) => Promise<unknown>;
    const result = await call(...(args as unknown[]));
    const text = JSON.stringify(result ?? null, (_, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value,
    );
    return new Response(text);
  } catch (error) {
    const { name, message } = error as Error;
    return Response.json({ name, message }, { status: 500 });
  }
}
