import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { decodeJwt, errors, jwtVerify, SignJWT } from "jose";
import { ApiError } from "../errors";

/**
 * End-user tokens: short-lived JWTs (RFC 7519) that a tenant's server mints for its own users' browsers and apps.
 * HS256 with a key per tenant, derived from the platform's secret, so that no tenant's key can sign for another.
 */
const ALGORITHM = "HS256";
const KEY_VERSION = "1";
const ISSUER = "tenantry";
const AUDIENCE = "tenantry:data";
const CLOCK_TOLERANCE_SECONDS = 5;
/** A longer one is refused unread. */
const MAX_TOKEN_CHARACTERS = 8_192;
export const MAX_TTL_SECONDS = 3_600;

/** What a token says. `tokensPerDay` and `microdollarsPerDay` have their claims already; nothing enforces them yet. */
export interface EndUserClaims {
  readonly tenantId: string;
  /** The key that minted it; the token dies with that key. */
  readonly keyId: string;
  readonly subject: string;
  /** Public model names; null allows what the tenant may call. */
  readonly models: readonly string[] | null;
  /** Browser origins it works from; null means any, and callers without a browser. */
  readonly origins: readonly string[] | null;
  readonly requestsPerMinute: number | null;
}

/** Claim names on the wire. `tpd` and `mpd` are reserved: a token that carries them is refused until they are enforced. */
const RESERVED_CLAIMS = ["tpd", "mpd"] as const;

export class EndUserTokens {
  constructor(readonly secret: string) {}

  /** @param ttlSeconds 1 to 3,600 */
  async mint(claims: EndUserClaims, ttlSeconds: number, nowSeconds: number): Promise<string> {
    const { tenantId, keyId, subject, models, origins, requestsPerMinute } = claims;
    return new SignJWT({ tid: tenantId, key: keyId, models, origins, rpm: requestsPerMinute })
      .setProtectedHeader({ alg: ALGORITHM, typ: "JWT", kid: KEY_VERSION })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject(subject)
      .setIssuedAt(nowSeconds)
      .setExpirationTime(nowSeconds + ttlSeconds)
      .sign(this.#keyOf(tenantId));
  }

  /** @throws ApiError `invalid_end_user_token`, the same for every reason but expiry */
  async verify(token: string): Promise<EndUserClaims> {
    try {
      if (token.length > MAX_TOKEN_CHARACTERS) throw new TypeError("too long");
      // Read unverified only to choose the key; a wrong choice cannot verify.
      const { tid } = decodeJwt(token);
      if (typeof tid !== "string" || !/^proj_[A-Za-z0-9_-]{1,64}$/.test(tid)) throw new TypeError("no tenant");
      const { payload, protectedHeader } = await jwtVerify(token, this.#keyOf(tid), {
        algorithms: [ALGORITHM],
        typ: "JWT",
        issuer: ISSUER,
        requiredClaims: ["exp", "iat", "sub"],
        maxTokenAge: MAX_TTL_SECONDS,
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
      });
      const header = Object.keys(protectedHeader).sort().join();
      if (header !== "alg,kid,typ" || protectedHeader.kid !== KEY_VERSION) throw new TypeError("foreign header");
      if (payload.aud !== AUDIENCE) throw new TypeError("foreign audience");
      if (RESERVED_CLAIMS.some((claim) => claim in payload)) throw new TypeError("reserved claim");
      return claimsOf(payload, tid);
    } catch (error) {
      const expired = error instanceof errors.JWTExpired;
      const message = expired
        ? "This end-user token has expired. Ask your server for a new one."
        : "This end-user token is not valid. Ask your server for a new one.";
      throw new ApiError("invalid_end_user_token", message);
    }
  }

  #keyOf(tenantId: string): Uint8Array {
    const derived = createHmac("sha256", this.secret).update(`end-user token ${KEY_VERSION} ${tenantId}`).digest();
    return new Uint8Array(Buffer.from(derived));
  }
}

function claimsOf(payload: Record<string, unknown>, tenantId: string): EndUserClaims {
  const { key, sub, models, origins, rpm } = payload;
  if (typeof key !== "string" || typeof sub !== "string") throw new TypeError("claims missing");
  if (!isListOrNull(models) || !isListOrNull(origins)) throw new TypeError("lists malformed");
  if (rpm !== null && (typeof rpm !== "number" || !Number.isSafeInteger(rpm))) throw new TypeError("rpm malformed");
  return { tenantId, keyId: key, subject: sub, models, origins, requestsPerMinute: rpm };
}

const isListOrNull = (value: unknown): value is readonly string[] | null =>
  value === null || (Array.isArray(value) && value.every((item) => typeof item === "string"));
