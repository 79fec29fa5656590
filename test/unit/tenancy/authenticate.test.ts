import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { BindReply, BindRequest, TenantGateRpc } from "../../../durable-objects/tenant-gate.messages";
import type { PolicySnapshot } from "../../../src/core/policy";
import type { Directory } from "../../../src/data/directory";
import { Authenticator, type Opening } from "../../../src/tenancy/authenticate";
import type { Scope } from "../../../src/tenancy/context";
import { type EndUserClaims, EndUserTokens } from "../../../src/tenancy/end-user-tokens";
import { generateKey, hashKey } from "../../../src/tenancy/keys";

const BINDING_MS = 800;
const LOCATION_MS = 60_000;
const TENANT = "proj_a";
const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** One tenant with one key, as a directory and a gate know them; the tests change what they know. */
async function world() {
  const key = generateKey("tenant");
  const keyHash = await hashKey(key);
  const state = {
    alive: true,
    located: true,
    scopes: ["data", "account"] as string[],
    serviceAccountId: "svc" as string | null,
    policy: { version: 1, status: "active", isolation: "pool" } as unknown as PolicySnapshot,
    binds: [] as BindRequest[],
    locates: 0,
    bootstraps: 0,
  };
  const locate = async () => {
    state.locates++;
    return state.located ? { tenantId: TENANT, region: "global" as const } : undefined;
  };
  const directory = {
    locateKey: async (hash: string) => (hash === keyHash ? locate() : undefined),
    locateTenant: async (id: string) => (id === TENANT ? locate() : undefined),
  } as unknown as Directory;
  const bind = async (request: BindRequest): Promise<BindReply> => {
    state.binds.push(request);
    const { credential, knownPolicyVersion } = request;
    const isKnown = "keyId" in credential ? credential.keyId === "key_1" : credential.keyHash === keyHash;
    if (!state.alive || !isKnown) return { bound: false, reason: "unknown_key" };
    const { policy, scopes, serviceAccountId } = state;
    if (policy.status !== "active") return { bound: false, reason: policy.status as "archived" };
    return {
      bound: true,
      key: { id: "key_1", serviceAccountId, scopes: scopes as never },
      policyVersion: policy.version,
      policy: policy.version === knownPolicyVersion ? null : policy,
      admission: null,
    };
  };
  const tokens = new EndUserTokens("a-secret-of-the-tests-that-is-long-enough");
  const authenticator = new Authenticator({
    directory,
    gateAt: () => ({ bind, policy: async () => state.policy }) as unknown as TenantGateRpc,
    tokens,
    bootstrap: async () => {
      state.bootstraps++;
      return false;
    },
    bindingMs: BINDING_MS,
  });
  const ask = (credential: string, needed: readonly Scope[] = ["data"], headers = {}, opening?: Opening) => {
    const request = new Request("http://x/v1/models", {
      headers: { authorization: `Bearer ${credential}`, ...headers },
    });
    return authenticator.authenticate(request, needed, opening);
  };
  const codeOf = (asked: Promise<unknown>) =>
    asked.then(
      () => "ok",
      (error: { code?: string }) => error.code ?? String(error),
    );
  const claims: EndUserClaims = {
    ...{ tenantId: TENANT, keyId: "key_1", subject: "ann", models: null, origins: null, requestsPerMinute: null },
  };
  const mint = (more: Partial<EndUserClaims> = {}, ttlSeconds = 3_600) =>
    tokens.mint({ ...claims, ...more }, ttlSeconds, Math.floor(Date.now() / 1000));
  return { key, state, authenticator, ask, codeOf, mint };
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"] });
});
afterEach(() => {
  vi.useRealTimers();
});
const later = (ms: number) => vi.setSystemTime(Date.now() + ms);

describe("a verified key", () => {
  it("is trusted for as long as the binding says and not a millisecond longer: then a revoked one is refused", async () => {
    const { key, state, ask, codeOf } = await world();
    expect(await codeOf(ask(key))).toBe("ok");
    state.alive = false;
    later(BINDING_MS - 1);
    expect(await codeOf(ask(key))).toBe("ok");
    expect(state.binds).toHaveLength(1);
    later(1);
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
    expect(state.binds).toHaveLength(3); // what was refused is not trusted
  });

  it("is trusted from when the gate was asked, however long its answer took", async () => {
    const { key, state, ask, codeOf, authenticator } = await world();
    const { gateAt } = authenticator.options;
    const slow = new Authenticator({
      ...authenticator.options,
      gateAt: (location) => {
        const gate = gateAt(location);
        const bind = async (request: BindRequest) => {
          const reply = await gate.bind(request);
          later(BINDING_MS - 100);
          return reply;
        };
        return { ...gate, bind } as unknown as TenantGateRpc;
      },
    });
    const request = () => new Request("http://x/", { headers: { authorization: `Bearer ${key}` } });
    await slow.authenticate(request(), ["data"]);
    state.alive = false;
    later(100);
    expect(await codeOf(slow.authenticate(request(), ["data"]))).toBe("invalid_api_key");
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
  });

  it("is trusted anew when the gate admits a call of it, from when that was asked, under the same policy alone", async () => {
    const { key, state, ask, codeOf, authenticator } = await world();
    const bound = await ask(key);
    later(700);
    const askedAtMs = Date.now();
    later(50);
    authenticator.renew(bound, askedAtMs, 1);
    state.alive = false;
    later(BINDING_MS - 51);
    expect(await codeOf(ask(key))).toBe("ok");
    later(1);
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
  });

  it.each([
    ["another policy in force", { version: 2 }],
    ["a question older than the binding", { backMs: 10_000 }],
  ])("is not trusted longer by %s", async (_, { version = 1, backMs = 0 }: { version?: number; backMs?: number }) => {
    const { key, state, ask, codeOf, authenticator } = await world();
    const bound = await ask(key);
    later(700);
    authenticator.renew(bound, Date.now() - backMs, version);
    state.alive = false;
    later(101);
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
  });

  it("is trusted no shorter for an answer that comes late to a question asked before", async () => {
    const { key, state, ask, authenticator } = await world();
    const bound = await ask(key);
    later(700);
    authenticator.renew(bound, Date.now() - 10_000, 1);
    await ask(key);
    expect(state.binds).toHaveLength(1);
  });

  it("is never renewed by an end user's call, whose own key was not asked for by its hash", async () => {
    const { state, ask, codeOf, mint, authenticator } = await world();
    const token = await mint();
    const bound = await ask(token);
    later(700);
    authenticator.renew(bound, Date.now(), 1);
    state.alive = false;
    later(101);
    expect(await codeOf(ask(token))).toBe("invalid_api_key");
  });

  it("follows the policy that another call has learnt of meanwhile", async () => {
    const { key, state, ask, mint } = await world();
    await ask(key);
    state.policy = { ...state.policy, version: 2 };
    expect((await ask(await mint())).policy.version).toBe(2);
    expect((await ask(key)).policy.version).toBe(2); // within its time, and asked for all the same
    expect(state.binds).toHaveLength(3);
  });

  it.each(["archived", "suspended"] as const)("is refused where its tenant is %s, by name", async (status) => {
    const { key, state, ask, codeOf } = await world();
    state.policy = { ...state.policy, status };
    expect(await codeOf(ask(key))).toBe(`project_${status}`);
  });

  it("is looked for anew when its place was found long ago, and every time while there is none", async () => {
    const { key, state, ask, codeOf } = await world();
    await ask(key);
    later(LOCATION_MS - 1);
    await ask(key);
    expect(state.locates).toBe(1);
    later(1);
    state.located = false;
    expect(await codeOf(ask(key))).toBe("invalid_api_key");
    expect(state.bootstraps).toBe(1);
    state.located = true;
    expect(await codeOf(ask(key))).toBe("ok");
    expect(state.locates).toBe(3);
  });

  it("is known by the whole of itself: nothing is taken from a cache for one that begins or ends alike", async () => {
    const { key, state, ask, codeOf } = await world();
    await ask(key);
    // The high digits come from the first random bytes: keys that are well-formed and begin with the same 40 of them.
    const digits = [...key.slice("sk-tenantry-".length, -6)].map((digit) => BASE62.indexOf(digit));
    const value = digits.reduce((sum, digit) => sum * 62n + BigInt(digit), 0n);
    for (const step of [1n, 2n, 60n]) {
      const hex = ((value + step) % 2n ** 256n).toString(16).padStart(64, "0");
      const near = vi.spyOn(crypto, "getRandomValues").mockReturnValueOnce(Buffer.from(hex, "hex") as never);
      const other = generateKey("tenant");
      near.mockRestore();
      expect(other.slice(0, 40)).toBe(key.slice(0, 40));
      expect(await codeOf(ask(other))).toBe("invalid_api_key");
    }
    expect(state.binds).toHaveLength(1);
  });
});

describe("a scope", () => {
  const cases: [held: Scope[], needed: Scope[], outcome: string][] = [
    [["data"], ["data"], "ok"],
    [["account"], ["account"], "ok"],
    [["data", "account"], ["account", "data"], "ok"],
    [["data"], ["account"], "insufficient_scope"],
    [["account"], ["data"], "insufficient_scope"],
    [["data"], ["account", "data"], "insufficient_scope"],
    [["account"], ["account", "data"], "insufficient_scope"],
    [["data", "account"], ["admin"], "insufficient_scope"],
    [[], ["data"], "insufficient_scope"],
    [[], ["account"], "insufficient_scope"],
    [["admin"], ["data"], "insufficient_scope"],
  ];
  it.each(cases)("held %j, needed %j: %s", async (held, needed, outcome) => {
    const { key, state, ask, codeOf } = await world();
    state.scopes = held;
    expect(await codeOf(ask(key, needed))).toBe(outcome);
  });

  it("says what is needed and what there is", async () => {
    const { key, state, ask } = await world();
    state.scopes = ["account"];
    await expect(ask(key, ["account", "data"])).rejects.toThrow(
      'needs a credential of scope "account" and "data"; yours has "account"',
    );
  });
});

describe("an end user's token", () => {
  it.each([
    ["both scopes", ["account", "data"], "ok"],
    ["account alone", ["account"], "invalid_api_key"],
    ["data alone", ["data"], "invalid_api_key"],
    ["neither", [], "invalid_api_key"],
    ["admin", ["admin"], "invalid_api_key"],
  ])("whose key has %s", async (_, scopes, outcome) => {
    const { state, ask, codeOf, mint } = await world();
    state.scopes = scopes;
    expect(await codeOf(ask(await mint()))).toBe(outcome);
  });

  it("ends with its key, and with either scope of its key, within the time of a binding", async () => {
    const { state, ask, codeOf, mint } = await world();
    const token = await mint();
    for (const left of [["account"], ["data"]]) {
      state.scopes = ["account", "data"];
      later(BINDING_MS);
      expect(await codeOf(ask(token))).toBe("ok");
      state.scopes = left;
      later(BINDING_MS);
      expect(await codeOf(ask(token))).toBe("invalid_api_key");
    }
    state.scopes = ["account", "data"];
    later(BINDING_MS);
    expect(await codeOf(ask(token))).toBe("ok");
    state.alive = false;
    later(BINDING_MS);
    expect(await codeOf(ask(token))).toBe("invalid_api_key");
  });

  it("opens data alone, whatever its key may do", async () => {
    const { state, ask, codeOf, mint } = await world();
    state.scopes = ["account", "data", "admin"];
    const token = await mint();
    expect((await ask(token)).context.scopes).toEqual(["data"]);
    for (const needed of [["account"], ["admin"], ["account", "data"]] as Scope[][])
      expect(await codeOf(ask(token, needed)), String(needed)).toBe("insufficient_scope");
  });

  it("is refused when its time is over, cached or not", async () => {
    const { ask, codeOf, mint } = await world();
    const token = await mint({}, 60);
    expect(await codeOf(ask(token))).toBe("ok");
    later(65_001); // five seconds of tolerance
    expect(await codeOf(ask(token))).toBe("invalid_end_user_token");
  });

  it.each([
    [{}, "origin_not_allowed"],
    [{ origin: "https://b.example" }, "origin_not_allowed"],
    [{ origin: "https://a.example.evil.example" }, "origin_not_allowed"],
    [{ origin: "null" }, "origin_not_allowed"],
    [{ origin: "https://a.example" }, "ok"],
  ])(
    "that is bound to an origin, from %j: %s, and no call of it is opened but from there",
    async (headers, outcome) => {
      const { ask, codeOf, mint, state } = await world();
      const token = await mint({ origins: ["https://a.example"] });
      let opened = 0;
      const opening: Opening = async () => {
        opened++;
        return undefined;
      };
      expect(await codeOf(ask(token, ["data"], headers, opening))).toBe(outcome);
      expect(opened).toBe(outcome === "ok" ? 1 : 0);
      expect(state.binds).toHaveLength(1);
    },
  );

  it("speaks for its own subject, and says so to the gate and to everything after it", async () => {
    const { ask, mint, state } = await world();
    const token = await mint({ subject: "ben", models: ["m"], requestsPerMinute: 7 });
    const asked: unknown[] = [];
    const opening: Opening = async (who) => {
      asked.push(who);
      return { requestId: "r" } as never;
    };
    const { context } = await ask(token, ["data"], {}, opening);
    expect(context.actor).toEqual({
      ...{ type: "end_user", keyId: "key_1", subject: "ben", models: ["m"], requestsPerMinute: 7 },
    });
    expect(asked).toEqual([{ region: "global", models: ["m"] }]);
    expect(state.binds[0]?.call?.endUser).toEqual({ subject: "ben", requestsPerMinute: 7 });
  });
});

describe("credentials", () => {
  const CASES: [title: string, headers: (key: string) => Record<string, string>, code: string][] = [
    ["none", () => ({}), "invalid_api_key"],
    ["an empty one", () => ({ authorization: "Bearer " }), "invalid_api_key"],
    ["one in another scheme", (key) => ({ authorization: `Basic ${key}` }), "invalid_api_key"],
    ["one in x-api-key alone", (key) => ({ "x-api-key": key }), "invalid_api_key"],
    ["two in one header", (key) => ({ authorization: `Bearer ${key}, Bearer ${key}` }), "ambiguous_credentials"],
    [
      "two in two headers",
      (key) => ({ authorization: `Bearer ${key}`, "x-api-key": generateKey("tenant") }),
      "ambiguous_credentials",
    ],
    ["an empty second one", (key) => ({ authorization: `Bearer ${key}`, "x-api-key": "" }), "ambiguous_credentials"],
    ["the same one twice", (key) => ({ authorization: `Bearer ${key}`, "x-api-key": key }), "ok"],
    ["something behind it", (key) => ({ authorization: `Bearer ${key} x` }), "invalid_api_key"],
    ["a mistyped one", (key) => ({ authorization: `Bearer ${key.slice(0, -1)}` }), "invalid_api_key"],
  ];
  it.each(CASES)("%s", async (_, headers, code) => {
    const { key, authenticator, codeOf, state } = await world();
    const request = new Request("http://x/", { headers: headers(key) });
    expect(await codeOf(authenticator.authenticate(request, ["data"]))).toBe(code);
    if (code !== "ok") expect([state.locates, state.binds.length]).toEqual([0, 0]); // nobody was asked
  });
});

describe("the operator", () => {
  it("alone enters other tenants, and those that exist", async () => {
    const { key, state, ask, authenticator } = await world();
    const tenant = (await ask(key)).context;
    await expect(authenticator.enterTenant(tenant, TENANT)).rejects.toThrow(TypeError);
    state.serviceAccountId = null; // an admin key, but of this tenant and not of the platform
    later(BINDING_MS);
    await expect(authenticator.enterTenant((await ask(key)).context, TENANT)).rejects.toThrow(TypeError);
  });
});
