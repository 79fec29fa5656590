import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openaiCompatible, type UpstreamOptions } from "../../../src/inference/providers/openai-compatible";
import { MockUpstream } from "../../mock-upstream";
import { embeddingModel, failureOf, never } from "./calls";

let mock: MockUpstream;

beforeEach(async () => {
  mock = await MockUpstream.start();
});
afterEach(async () => {
  await mock.stop();
});

const provider = (more: Partial<UpstreamOptions> = {}) =>
  openaiCompatible({ baseUrl: mock.url, apiKey: null, timeoutMs: 20_000, fetch, ...more });

describe("embeddings", () => {
  const call = (inputs: string[]) => ({ model: embeddingModel("openai-compatible", 3), inputs });

  it("are asked for as floats and come one for each input, in order", async () => {
    const { vectors, promptTokens } = await provider().embed(call(["a", "bb b"]), never);
    expect(vectors.map((vector) => vector[0])).toEqual([1, 4]);
    expect(promptTokens).toBe(3);
    expect(mock.requests.at(-1)?.body).toEqual({ model: "embed-1", input: ["a", "bb b"], encoding_format: "float" });
  });

  it("are put in order by their index", async () => {
    const data = [2, 0, 3, 1].map((index) => ({ index, embedding: [index, 1, 1] }));
    mock.script({ rawBody: JSON.stringify({ data }) });
    const { vectors } = await provider().embed(call(["a", "b", "c", "d"]), never);
    expect(vectors.map((vector) => vector[0])).toEqual([0, 1, 2, 3]);
  });

  it("leave no listener behind", async () => {
    const stop = new AbortController();
    await provider().embed(call(["a"]), stop.signal);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  });

  it.each([[null], [{ prompt_tokens: -1 }], [{ prompt_tokens: 0.5 }]])(
    "without true usage report none: %j",
    async (usage) => {
      mock.script({ usage });
      expect((await provider().embed(call(["a"]), never)).promptTokens).toBeNull();
    },
  );

  it.each([
    ["of other dimensions", { dimensions: 4 }],
    ["too few", { rawBody: '{"data":[]}' }],
    ["encoded otherwise", { rawBody: '{"data":[{"index":0,"embedding":"AAAA"}]}' }],
    ["missing", { rawBody: "{}" }],
  ])("that are %s are broken", async (_, script) => {
    mock.script(script);
    expect((await failureOf(() => provider().embed(call(["a"]), never))).failure).toBe("broken");
  });

  it("end by timeout and by signal, and close their connection", async () => {
    mock.script({ hang: true });
    expect((await failureOf(() => provider({ timeoutMs: 30 }).embed(call(["a"]), never))).failure).toBe("timeout");
    const stop = new AbortController();
    const waiting = failureOf(() => provider().embed(call(["a"]), stop.signal));
    await mock.until(({ calls }) => calls === 2);
    stop.abort();
    expect((await waiting).failure).toBe("aborted");
    await mock.until(({ aborted }) => aborted === 2);
  });
});
