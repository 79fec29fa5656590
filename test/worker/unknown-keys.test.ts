import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { MAX_EARLY_BYTES } from "../../src/http/model-call";
import worker from "../../src/index";
import type { Scope } from "../../src/tenancy/context";
import { EndUserTokens } from "../../src/tenancy/end-user-tokens";
import { generateKey, hashKey } from "../../src/tenancy/keys";
import { freshGate } from "./gate";

const MIB = 1024 * 1024;
const PIECE = 16 * 1024;
/** A stream reads one piece ahead, whether anybody wants it or not. */
const UNWANTED = 2 * PIECE;

/** A request whose body tells how much of it was taken. */
function requestOf(path: string, credential: string, bytes: number, headers: Record<string, string> = {}) {
  let taken = 0;
  const piece = new TextEncoder().encode("[0,".repeat(PIECE).slice(0, PIECE));
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (taken >= bytes) return controller.close();
      taken += piece.byteLength;
      controller.enqueue(piece.slice());
    },
  });
  const request = new Request(`http://platform${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${credential}`, "content-type": "application/json", ...headers },
    body,
  });
  return { request, taken: () => taken };
}

async function answer(request: Request) {
  const context = createExecutionContext();
  const reply = (await worker.fetch(request as never, env, context)) as Response;
  await waitOnExecutionContext(context);
  const { error } = (await reply.json()) as { error: { code: string } };
  return { status: reply.status, code: error.code };
}

async function tenant(scopes: Scope[] = ["data"]) {
  const { tenantId, change } = await freshGate();
  const key = generateKey("tenant");
  const id = crypto.randomUUID();
  const facts = { redactedValue: "…", name: "k", serviceAccountId: "svc", expiresAtMs: null };
  await change({ type: "create_key", id, hash: await hashKey(key), ...facts, scopes });
  const token = (origins: string[] | null = null) =>
    new EndUserTokens((env as unknown as { TOKEN_SECRET: string }).TOKEN_SECRET).mint(
      { tenantId, keyId: id, subject: "someone", models: null, origins, requestsPerMinute: null },
      600,
      Math.floor(Date.now() / 1000),
    );
  return { change, key, id, token };
}

/** Credentials that are good for nothing here, none of which this isolate has seen before. */
const REFUSED: readonly (readonly [string, string, () => Promise<string>])[] = [
  ["an invented key", "invalid_api_key", async () => generateKey("tenant")],
  ["no key of any kind", "invalid_api_key", async () => "sk-something"],
  ["an invented token", "invalid_end_user_token", async () => "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"],
  [
    "a revoked key",
    "invalid_api_key",
    async () => {
      const { change, key, id } = await tenant();
      await change({ type: "delete_key", id });
      return key;
    },
  ],
  [
    "a key of a suspended project",
    "project_suspended",
    async () => {
      const { change, key } = await tenant();
      await change({ type: "suspend_tenant" });
      return key;
    },
  ],
  [
    "a key of an archived project",
    "project_archived",
    async () => {
      const { change, key } = await tenant();
      await change({ type: "archive_tenant" });
      return key;
    },
  ],
  ["a key of another scope", "insufficient_scope", async () => (await tenant(["account"])).key],
  [
    "a token whose key was revoked",
    "invalid_api_key",
    async () => {
      const { change, id, token } = await tenant(["account", "data"]);
      await change({ type: "delete_key", id });
      return token();
    },
  ],
  [
    "a token from a foreign origin",
    "origin_not_allowed",
    async () => (await tenant(["account", "data"])).token(["https://app.example"]),
  ],
];
const ROUTES = ["/v1/responses", "/v1/chat/completions", "/v1/embeddings"];

describe("a body of somebody whom nobody has vouched for", () => {
  it.each(REFUSED)("is not read where it is large: %s", async (_, code, credential) => {
    for (const path of ROUTES) {
      const sent = requestOf(path, await credential(), MIB, { "content-length": String(MIB) });
      expect(await answer(sent.request)).toMatchObject({ code });
      expect(sent.taken(), path).toBeLessThanOrEqual(UNWANTED);
    }
  });

  it.each(REFUSED)("is not read where its size is not told: %s", async (_, code, credential) => {
    const sent = requestOf("/v1/responses", await credential(), MIB);
    expect(await answer(sent.request)).toMatchObject({ code });
    expect(sent.taken()).toBeLessThanOrEqual(UNWANTED);
  });

  it.each(REFUSED)("is not read for its digest, or as a form: %s", async (_, code, credential) => {
    for (const headers of [{ "idempotency-key": "a" }, { "content-type": "multipart/form-data; boundary=b" }]) {
      for (const path of ["/v1/responses", "/v1/files"]) {
        const sent = requestOf(path, await credential(), MIB, headers);
        expect(await answer(sent.request)).toMatchObject({ code });
        expect(sent.taken(), path).toBeLessThanOrEqual(UNWANTED);
      }
    }
  });

  it("that is longer than it says is read no further than it says", async () => {
    const { change, key, id } = await tenant();
    await change({ type: "delete_key", id });
    const sent = requestOf("/v1/responses", key, MIB, { "content-length": String(MAX_EARLY_BYTES) });
    expect(await answer(sent.request)).toMatchObject({ code: "invalid_api_key" });
    expect(sent.taken()).toBeLessThanOrEqual(MAX_EARLY_BYTES + UNWANTED);
  });
});
