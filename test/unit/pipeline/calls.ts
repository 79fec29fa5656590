import { firstPolicy } from "../../../src/core/plans";
import { Tokenizers } from "../../../src/core/tokens/tokenizers";
import { ModelCatalogue } from "../../../src/inference/catalogue";
import { type CallStart, ModelCall, type Output, type PipelinePorts } from "../../../src/pipeline/model-call";
import type { ChatRequest, ModelRequest } from "../../../src/pipeline/model-request";
import type { Actor } from "../../../src/tenancy/context";
import { vocabularyFile } from "../core/tokens";

const entry = { owned_by: "o", created: 1, provider: "openai-compatible", provider_model: "p", regions: ["global"] };
const chat = { ...entry, task: "chat", context_tokens: 100, default_max_output_tokens: 10 };
export const CATALOGUE = ModelCatalogue.parse({
  version: "1",
  models: [
    { ...chat, name: "plain", aliases: ["alias"] },
    { ...chat, name: "counted", tokenizer: "o200k" },
    {
      ...chat,
      name: "able",
      capabilities: ["tools", "json_object", "json_schema", "seed", "stop", "top_k", "penalties", "logit_bias"],
    },
    { ...chat, name: "judge", classifier: "c" },
    { ...entry, name: "embed", task: "embedding", context_tokens: 100, dimensions: 3 },
    { ...entry, name: "safe", task: "moderation", provider: "rules", context_tokens: 100 },
  ],
});

export const chatRequest = (more: Partial<ChatRequest> = {}): ChatRequest =>
  ({
    ...{ kind: "completions", model: "plain", serviceTier: "default", stream: true, choices: 1 },
    messages: [{ role: "user", content: "12345678" }],
    ...more,
  }) as ChatRequest;

/** Those that the platform counts by. */
export const TOKENIZERS = new Tokenizers({
  cl100k: vocabularyFile("cl100k"),
  o200k: vocabularyFile("o200k"),
  llama3Extension: vocabularyFile("llama3-extension"),
});

const API_KEY: Actor = { type: "api_key", keyId: "key_1", serviceAccountId: "svc_1" };

/** A caller under the first policy, with what a test changes of it. */
export const callerWith = (more: { actor?: Actor; allowedModels?: readonly string[] | null } = {}) =>
  ({
    context: {
      tenantId: "proj_1",
      region: "global",
      isolation: "pool",
      actor: more.actor ?? API_KEY,
      scopes: ["data"],
    },
    policy: { ...firstPolicy("proj_1", "global"), allowedModels: more.allowedModels ?? null },
  }) as unknown as CallStart["caller"];

/** A call as its route starts it; ports are only those that a test gives. */
export function callOf(request: ModelRequest, ports: Partial<PipelinePorts> = {}, more: Partial<CallStart> = {}) {
  return new ModelCall({
    ...{ id: "req_1", route: "/v1/chat/completions", caller: callerWith(), request, patienceMs: 0, startedAtMs: 0 },
    ports: { catalogue: CATALOGUE, tokenizers: TOKENIZERS, ...ports } as PipelinePorts,
    ...{ opened: undefined, waitUntil: () => {} },
    ...more,
  });
}

export async function* outputOf(...deltas: readonly Output[]): AsyncGenerator<Output> {
  yield* deltas;
}
