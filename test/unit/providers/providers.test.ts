import { afterEach, describe, expect, it, vi } from "vitest";
import { providerFor } from "../../../src/inference/providers";
import { chatCall, chatModel, collected, failureOf, never, textIn } from "./calls";

const upstream = { baseUrl: "http://upstream.test/v1", apiKey: "platform-key", timeoutMs: 1_000 };
const ai = { run: async () => ({ response: "from the binding" }) };
const ours = chatModel("openai-compatible", "m");
const elsewhere = { ...ours, endpoint: "http://elsewhere.test/v1/" };

function fetched() {
  const seen: { url: string; authorization: string | null }[] = [];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    seen.push({ url, authorization: new Headers(init.headers).get("authorization") });
    return Response.json({ choices: [{ index: 0, message: { content: "from upstream" }, finish_reason: "stop" }] });
  });
  return seen;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("the provider of a model", () => {
  const answer = async (model: typeof ours | typeof elsewhere | ReturnType<typeof chatModel>) =>
    textIn(await collected(await providerFor(model, { ai, upstream }).chat(chatCall(model, { stream: false }), never)));

  it("is the one that the catalogue names", async () => {
    fetched();
    expect(await answer(chatModel("workers-ai", "@cf/x/y"))).toBe("from the binding");
    expect(await answer(ours)).toBe("from upstream");
  });

  it("is asked at the model's own endpoint where it has one, and never gets the platform's key there", async () => {
    const seen = fetched();
    await answer(ours);
    await answer(elsewhere);
    expect(seen).toEqual([
      { url: "http://upstream.test/v1/chat/completions", authorization: "Bearer platform-key" },
      { url: "http://elsewhere.test/v1/chat/completions", authorization: null },
    ]);
  });

  it("fails as one without credentials where the deployment has not configured it", async () => {
    const nothing = { ai: undefined, upstream: { ...upstream, baseUrl: undefined } };
    for (const model of [ours, chatModel("workers-ai", "@cf/x/y")]) {
      expect((await failureOf(async () => providerFor(model, nothing))).failure).toBe("unauthorized");
    }
  });
});
