/** The catalogue of an OpenAI-compatible server, made from what it lists. */
export async function upstreamCatalogue(url, key) {
  const base = url.replace(/\/+$/, "");
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  let reply;
  try {
    reply = await fetch(`${base}/models`, { headers, signal: AbortSignal.timeout(10_000) });
  } catch (error) {
    throw new Error(`no server answers at ${base}/models (${error.cause?.code ?? error.name}); start it first`);
  }
  if (!reply.ok) throw new Error(`${base}/models answered ${reply.status}; check the address and the key`);
  const { data } = await reply.json();
  if (!Array.isArray(data) || data.length === 0) throw new Error(`${base} has no models; pull or load one first`);
  const facts = await serverFacts(base, headers, data);
  const models = data.map((listed) => modelOf(listed, facts));
  const unique = models.filter((model, index) => models.findIndex(({ name }) => name === model.name) === index);
  const chat = unique.find(({ task }) => task === "chat");
  if (chat && !unique.some(({ name }) => name === "gpt-4o-mini")) chat.aliases = ["gpt-4o-mini"];
  return { version: "upstream", models: unique };
}

/** Longest wait for what a server may say of itself, and the most models it is asked about one by one. */
const FACTS_MS = 3_000;
const MAX_ASKED = 50;

/** The context of each model, where the server tells it: llama.cpp in `/props`, Ollama in `/api/show`. */
async function serverFacts(base, headers, listed) {
  const root = base.replace(/\/v1$/, "");
  const json = (path, init = {}) =>
    fetch(root + path, { headers, signal: AbortSignal.timeout(FACTS_MS), ...init })
      .then((reply) => (reply.ok ? reply.json() : undefined))
      .catch(() => undefined);
  const props = await json("/props");
  const ofAll = sizeOf(props?.default_generation_settings?.n_ctx ?? props?.n_ctx);
  const unknown = listed
    .filter((model) => ofAll === undefined && contextListed(model) === undefined)
    .slice(0, MAX_ASKED);
  const shown = await Promise.all(
    unknown.map(async ({ id }) => {
      const details = await json("/api/show", { method: "POST", body: JSON.stringify({ model: id }) });
      return [String(id), contextShown(details)];
    }),
  );
  return { contextOfAll: ofAll, contexts: new Map(shown) };
}

const sizeOf = (value) => (Number.isInteger(value) && value > 0 ? value : undefined);

/** vLLM, OpenRouter, LM Studio and llama.cpp list it under names of their own. */
const contextListed = ({ max_model_len, context_length, max_context_length, context_window, meta }) =>
  [max_model_len, context_length, max_context_length, context_window, meta?.n_ctx].map(sizeOf).find(Boolean);

/** What Ollama runs the model with, where its file says so; else what the model was made for. */
function contextShown(details) {
  const set = /^num_ctx\s+(\d+)$/m.exec(String(details?.parameters ?? ""))?.[1];
  const [, made] = Object.entries(details?.model_info ?? {}).find(([name]) => name.endsWith(".context_length")) ?? [];
  return sizeOf(Number(set)) ?? sizeOf(made);
}

/** Names stay as they are (`llama3.2:latest`); only what no catalogue entry may be called is respelled. */
function nameOf(id) {
  const name = id.replace(/[^a-zA-Z0-9._/:@+-]/g, "-").replace(/^[^a-zA-Z0-9@]+/, "");
  return (name.startsWith("ft:") ? `ft-${name.slice(3)}` : name).slice(0, 128) || "model";
}

/** Sizes that nobody lists are taken small: an admitted request then fits. */
function modelOf(listed, { contextOfAll, contexts }) {
  const id = String(listed.id);
  const context = contextListed(listed) ?? contextOfAll ?? contexts.get(id) ?? 8_192;
  const shared = {
    name: nameOf(id),
    aliases: [],
    owned_by: "upstream",
    created: Math.floor(Date.now() / 1000),
    provider: "openai-compatible",
    provider_model: id,
    context_tokens: context,
    regions: ["global", "eu", "us"],
  };
  // Its vectors have the length that they have: every reply's own is taken.
  if (/embed|bge-|minilm|e5-|gte-/i.test(id))
    return { ...shared, task: "embedding", dimensions: null, capabilities: [] };
  const capabilities = ["tools", "json_object", "json_schema", "seed", "stop", "penalties", "logprobs", "vision"];
  const cap = Math.max(1, Math.min(1_024, Math.floor(context / 2)));
  return { ...shared, task: "chat", default_max_output_tokens: cap, capabilities };
}
