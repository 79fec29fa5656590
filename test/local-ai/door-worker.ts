import type { MeterReading } from "../../local-ai/meter";

export { EmbeddedModel } from "../../local-ai/embedded-model";
export { LocalAI } from "../../local-ai/local-ai";

interface Env {
  readonly AI: {
    run(model: unknown, inputs: unknown, options?: object): Promise<unknown>;
    meter(): Promise<MeterReading>;
    fetch(request: Request): Promise<Response>;
  };
}

/** A caller of `env.AI`: hands a JSON call on and shows what came back, streams as they are. */
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname.startsWith("/client/v4/")) return env.AI.fetch(request);
    if (pathname === "/meter") return Response.json(await env.AI.meter());
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
