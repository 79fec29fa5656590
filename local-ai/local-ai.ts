import { WorkerEntrypoint } from "cloudflare:workers";
import type { EmbeddedModel, RunOptions } from "./embedded-model";
import { InferenceUpstreamError, noSuchModel } from "./errors";
import type { MeterReading } from "./meter";

interface Env {
  readonly EMBEDDED_MODEL: DurableObjectNamespace<EmbeddedModel>;
}

/** Answers `env.AI.run(model, inputs, options)` as Workers AI does, from the embedded model. */
export class LocalAI extends WorkerEntrypoint<Env> {
  async run(model: unknown, inputs: unknown, options?: RunOptions): Promise<unknown> {
    try {
      if (typeof model !== "string") throw noSuchModel(String(model));
      return await this.#model.run(model, inputs, options);
    } catch (error) {
      throw asUpstreamError(error);
    }
  }

  /** Cloudflare's REST API of fine-tunes, as `api.cloudflare.com` answers it. */
  override fetch(request: Request): Promise<Response> {
    return this.#model.fetch(request);
  }

  /** What the model has really computed: calls, tokens, generations under way. */
  meter(): Promise<MeterReading> {
    return this.#model.meter();
  }

  get #model() {
    return this.env.EMBEDDED_MODEL.getByName("embedded");
  }
}

/** Errors that crossed RPC keep name and message, not their class. */
function asUpstreamError(error: unknown): Error {
  if (error instanceof InferenceUpstreamError) return error;
  if (error instanceof Error && error.name === "InferenceUpstreamError") {
    const [code, ...text] = error.message.split(": ");
    return new InferenceUpstreamError(Number(code), text.join(": "));
  }
  console.error("embedded model failed", error); // the caller learns nothing of it
  return new InferenceUpstreamError(3043, "Internal server error");
}
