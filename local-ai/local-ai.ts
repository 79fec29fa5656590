import { WorkerEntrypoint } from "cloudflare:workers";
import type { EmbeddedModel } from "./embedded-model";
import { InferenceUpstreamError, noSuchModel } from "./errors";
import { parseEmbeddings, parseTextGeneration } from "./inputs";
import type { MeterReading } from "./meter";

export const TEXT_MODEL = "@local/tiny-support-lm";
export const EMBEDDING_MODEL = "@local/tiny-support-lm-embed";

interface Env {
  readonly EMBEDDED_MODEL: DurableObjectNamespace<EmbeddedModel>;
}

/** Answers `env.AI.run(model, inputs, options)` as Workers AI does, from the embedded model. */
export class LocalAI extends WorkerEntrypoint<Env> {
  async run(model: unknown, inputs: unknown, options?: { readonly rejectIfBusy?: boolean }): Promise<unknown> {
    const mayWait = options?.rejectIfBusy !== true;
    try {
      if (model === EMBEDDING_MODEL) return await this.#model.embed(parseEmbeddings(inputs), mayWait);
      if (model !== TEXT_MODEL) throw noSuchModel(String(model));
      const input = parseTextGeneration(inputs);
      return await (input.stream ? this.#model.stream(input, mayWait) : this.#model.generate(input, mayWait));
    } catch (error) {
      throw asUpstreamError(error);
    }
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
