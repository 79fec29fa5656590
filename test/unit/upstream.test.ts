import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { upstreamCatalogue } from "../../scripts/upstream.mjs";
import { ModelCatalogue } from "../../src/inference/catalogue";

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A server that answers its paths, and every other with 404. */
async function catalogueOf(paths: Readonly<Record<string, (asked: string) => unknown>>) {
  const started = createServer(async (request, response) => {
    let asked = "";
    for await (const piece of request) asked += String(piece);
    const answer = paths[request.url ?? ""]?.(asked);
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? {}));
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, "127.0.0.1", resolve));
  const catalogue = await upstreamCatalogue(`http://127.0.0.1:${(started.address() as AddressInfo).port}/v1`);
  return ModelCatalogue.parse(catalogue);
}
const listed =
  (...models: readonly object[]) =>
  () => ({ object: "list", data: models });

describe("the catalogue of an upstream", () => {
  it("keeps the names of its models, whatever they are, and respells only what no entry may be called", async () => {
    const names = ["llama3.2:latest", "hf.co/x/y:Q4_K_M", "@cf/x/y", "a b", "ft:gpt:acme"];
    const catalogue = await catalogueOf({ "/v1/models": listed(...names.map((id) => ({ id }))) });
    expect(catalogue.models.map(({ name }) => name)).toEqual([...names.slice(0, 3), "a-b", "ft-gpt:acme"]);
    expect(catalogue.models.map(({ providerModel }) => providerModel)).toEqual(names);
  });

  it("takes vectors of whatever length its models make", async () => {
    const catalogue = await catalogueOf({ "/v1/models": listed({ id: "bge-m3:latest" }) });
    expect(catalogue.find("bge-m3:latest")).toMatchObject({ task: "embedding", dimensions: null });
  });

  it.each<[string, Parameters<typeof catalogueOf>[0]]>([
    ["vLLM", { "/v1/models": listed({ id: "m", max_model_len: 2_048 }) }],
    [
      "llama.cpp",
      { "/v1/models": listed({ id: "m" }), "/props": () => ({ default_generation_settings: { n_ctx: 2_048 } }) },
    ],
    [
      "Ollama",
      {
        "/v1/models": listed({ id: "m" }),
        "/api/show": (asked) => (asked.includes('"m"') ? { model_info: { "llama.context_length": 2_048 } } : {}),
      },
    ],
    [
      "Ollama with a setting of its own",
      {
        "/v1/models": listed({ id: "m" }),
        "/api/show": () => ({ parameters: "stop x\nnum_ctx    2048", model_info: { "llama.context_length": 9 } }),
      },
    ],
  ])("knows the context that %s tells", async (_, paths) => {
    expect((await catalogueOf(paths)).find("m")).toMatchObject({ contextTokens: 2_048, defaultMaxOutputTokens: 1_024 });
  });

  it("takes a small context where the server tells none, or nothing that is a size", async () => {
    const odd = {
      "/v1/models": listed({ id: "m", max_model_len: "big" }),
      "/props": () => [],
      "/api/show": () => null,
    };
    expect((await catalogueOf(odd)).find("m")).toMatchObject({ contextTokens: 8_192 });
  });
});
