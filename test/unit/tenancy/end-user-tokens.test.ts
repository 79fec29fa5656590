import { createHmac } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type EndUserClaims, EndUserTokens, MAX_TTL_SECONDS } from "../../../src/tenancy/end-user-tokens";

const SECRET = "a-secret-of-the-tests-that-is-long-enough";
const tokens = new EndUserTokens(SECRET);
const CLAIMS: EndUserClaims = {
  ...{ tenantId: "proj_a", keyId: "key_1", subject: "ann" },
  ...{ models: ["m"], origins: ["https://a.example"], requestsPerMinute: 7 },
};
const now = () => Math.floor(Date.now() / 1000);
const encode = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const claims = () => ({
  ...{ tid: "proj_a", key: "key_1", sub: "u", models: null, origins: null, rpm: null },
  ...{ iss: "tenantry", aud: "tenantry:data", iat: now(), exp: now() + 60 },
});
/** Signed as the platform signs, so that a token differs from a good one in one thing alone. */
function sign(payload: object, header: object = {}, tenantId = "proj_a", secret = SECRET, digest = "sha256"): string {
  const head = encode({ alg: "HS256", typ: "JWT", kid: "1", ...header });
  const key = createHmac("sha256", secret).update(`end-user token 1 ${tenantId}`).digest();
  const signature = createHmac(digest, key)
    .update(`${head}.${encode(payload)}`)
    .digest("base64url");
  return `${head}.${encode(payload)}.${signature}`;
}
const codeOf = (token: string) =>
  tokens.verify(token).then(
    () => "ok",
    (error: { code?: string }) => error.code ?? String(error),
  );

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("an end user's token", () => {
  it("says what was minted, and nothing else", async () => {
    expect(await tokens.verify(await tokens.mint(CLAIMS, 60, now()))).toEqual(CLAIMS);
    const free = { ...CLAIMS, models: null, origins: null, requestsPerMinute: null };
    expect(await tokens.verify(await tokens.mint(free, 60, now()))).toEqual(free);
    expect(await codeOf(sign(claims()))).toBe("ok"); // the control of all that follows
  });

  it.each([1, 60, MAX_TTL_SECONDS])("lives %i s, and five more for clocks that differ", async (ttlSeconds) => {
    const token = await tokens.mint(CLAIMS, ttlSeconds, now());
    vi.setSystemTime(Date.now() + (ttlSeconds + 4) * 1000);
    expect(await codeOf(token)).toBe("ok");
    vi.setSystemTime(Date.now() + 2_000);
    expect(await codeOf(token)).toBe("invalid_end_user_token");
    await expect(tokens.verify(token)).rejects.toThrow(/has expired|not valid/);
  });

  const without = (name: string) => Object.fromEntries(Object.entries(claims()).filter(([key]) => key !== name));
  it.each<[string, () => string]>([
    ["no algorithm", () => `${encode({ alg: "none", typ: "JWT", kid: "1" })}.${encode(claims())}.`],
    ["an algorithm of another length", () => sign(claims(), { alg: "HS512" }, "proj_a", SECRET, "sha512")],
    ["the key of another tenant", () => sign(claims(), {}, "proj_b")],
    ["another secret", () => sign(claims(), {}, "proj_a", `${SECRET}x`)],
    ["a tenant that is no project", () => sign({ ...claims(), tid: "platform" }, {}, "platform")],
    ["a tenant with a path in it", () => sign({ ...claims(), tid: "proj_a/../b" }, {}, "proj_a/../b")],
    ["another type", () => sign(claims(), { typ: "at+jwt" })],
    ["no type", () => sign(claims(), { typ: undefined })],
    ["no key id", () => sign(claims(), { kid: undefined })],
    ["another key id", () => sign(claims(), { kid: "2" })],
    ["a key id that is a number", () => sign(claims(), { kid: 1 })],
    ["a key address", () => sign(claims(), { jku: "http://127.0.0.1:9/k" })],
    ["a key of its own", () => sign(claims(), { jwk: { kty: "oct", k: "AAAA" } })],
    ["a critical extension", () => sign(claims(), { crit: ["b64"], b64: true })],
    ["another issuer", () => sign({ ...claims(), iss: "tenantry/" })],
    ["no issuer", () => sign(without("iss"))],
    ["another audience", () => sign({ ...claims(), aud: "dashboard" })],
    ["no audience", () => sign(without("aud"))],
    ["a list of audiences", () => sign({ ...claims(), aud: ["tenantry:data"] })],
    ["no expiry", () => sign(without("exp"))],
    ["an expiry as a text", () => sign({ ...claims(), exp: String(now() + 60) })],
    ["an expiry that has passed", () => sign({ ...claims(), exp: now() - 6 })],
    ["no time of issue", () => sign(without("iat"))],
    ["an issue in the future", () => sign({ ...claims(), iat: now() + 60, exp: now() + 120 })],
    ["a life longer than an hour", () => sign({ ...claims(), iat: now() - 3_610, exp: now() + 60 })],
    ["a start in the future", () => sign({ ...claims(), nbf: now() + 60 })],
    ["no subject", () => sign(without("sub"))],
    ["a subject that is a list", () => sign({ ...claims(), sub: ["ann"] })],
    ["no key that minted it", () => sign(without("key"))],
    ["models that are a text", () => sign({ ...claims(), models: "m" })],
    ["models that were left out", () => sign(without("models"))],
    ["origins that are no texts", () => sign({ ...claims(), origins: [1] })],
    ["origins that were left out", () => sign(without("origins"))],
    ["a rate that is a text", () => sign({ ...claims(), rpm: "7" })],
    ["a rate that is a fraction", () => sign({ ...claims(), rpm: 0.5 })],
    ["a rate that was left out", () => sign(without("rpm"))],
    ["a limit of tokens that nothing enforces yet", () => sign({ ...claims(), tpd: null })],
    ["a limit of money that nothing enforces yet", () => sign({ ...claims(), mpd: 5 })],
    ["more than 8,192 characters", () => sign({ ...claims(), sub: "x".repeat(8_192) })],
    ["a signature cut short", () => sign(claims()).slice(0, -4)],
    ["a signature of nothing", () => `${sign(claims()).split(".").slice(0, 2).join(".")}.`],
    [
      "a payload that was changed",
      () => {
        const [head, , signature] = sign(claims()).split(".");
        return `${head}.${encode({ ...claims(), sub: "ben" })}.${signature}`;
      },
    ],
  ])("with %s is refused", async (_, forge) => {
    expect(await codeOf(forge())).toBe("invalid_end_user_token");
  });
});
