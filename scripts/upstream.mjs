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
  const models = data.map(({ id }) => modelOf(String(id)));
  const unique = models.filter((model, index) => models.findIndex(({ name }) => name === model.name) === index);
  const chat = unique.find(({ task }) => task === "chat");
  if (chat && !unique.some(({ name }) => name === "gpt-4o-mini")) chat.aliases = ["gpt-4o-mini"];
  return { version: "upstream", models: unique };
}

/** Sizes that nobody lists are taken small: an admitted request then fits. */
function modelOf(id) {
  const shared = {
    name: id.replace(/[^a-zA-Z0-9._/-]/g, "-").replace(/^[^a-zA-Z0-9]+/, "") || "model",
    aliases: [],
    owned_by: "upstream",
    created: Math.floor(Date.now() / 1000),
    provider: "openai-compatible",
    provider_model: id,
    context_tokens: 8_192,
    regions: ["global", "eu", "us"],
  };
  if (/embed|bge-|minilm/i.test(id)) return { ...shared, task: "embedding", dimensions: 768, capabilities: [] };
  const capabilities = ["tools", "json_object", "json_schema", "seed", "stop", "penalties", "logprobs", "vision"];
  return { ...shared, task: "chat", default_max_output_tokens: 1_024, capabilities };
}
