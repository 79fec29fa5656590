import type { Model } from "../catalogue";
import { type Provider, ProviderError } from "../provider";
import { LearnedDialects } from "./learned-dialects";
import { openaiCompatible } from "./openai-compatible";
import { rules } from "./rules";
import { type AiBinding, workersAi } from "./workers-ai";

export type { AiBinding } from "./workers-ai";

export interface ProviderPorts {
  readonly ai: AiBinding | undefined;
  readonly upstream: {
    readonly baseUrl: string | undefined;
    readonly apiKey: string | null;
    readonly timeoutMs: number;
  };
}

/** What this isolate has learned of upstreams: data of the platform, none of a tenant's. */
const dialects = new LearnedDialects();

/**
 * The provider of a model.
 * @param address one of the model's endpoints, where it has several
 * @throws ProviderError `unauthorized` when this deployment has none configured
 */
export function providerFor(model: Model, { ai, upstream }: ProviderPorts, address?: string): Provider {
  switch (model.provider) {
    case "workers-ai":
      if (!ai) throw new ProviderError("unauthorized", `model ${model.name} needs the AI binding`);
      return workersAi(ai);
    case "rules":
      return rules;
    case "openai-compatible": {
      const baseUrl = address ?? model.endpoint ?? upstream.baseUrl;
      if (!baseUrl) throw new ProviderError("unauthorized", `model ${model.name} needs UPSTREAM_URL`);
      // The platform's secret goes to the platform's upstream, never to another model's own endpoint.
      const apiKey = model.endpoint === null ? upstream.apiKey : null;
      return openaiCompatible({ ...upstream, baseUrl, apiKey, dialects, fetch: (...request) => fetch(...request) });
    }
  }
}
