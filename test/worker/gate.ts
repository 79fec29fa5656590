import { env } from "cloudflare:workers";
import type { AdmitRequest, FinishRequest, TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import type { Isolation } from "../../src/core/policy";

/** A gate of a fresh tenant with one key, and the calls that tests make of it. */
export async function freshGate(
  limits: { requestsPerMinute?: number; tokensPerMinute?: number } = {},
  isolation: Isolation = "pool",
) {
  const tenantId = `proj_${crypto.randomUUID()}`;
  const stub = env.TENANT_GATE.getByName(`global/${tenantId}`);
  const gate = stub as unknown as TenantGateRpc;
  const change = (command: Parameters<TenantGateRpc["change"]>[0]["command"]) =>
    gate.change({ command, actorKeyId: "key_admin", auditId: crypto.randomUUID() });
  await change({ type: "create_tenant", name: "Test", residency: "GLOBAL", externalKeyId: null });
  if (isolation !== "pool") await change({ type: "set_isolation", isolation });
  await change({ type: "create_service_account", id: "svc", name: "test" });
  const key = {
    hash: tenantId.padEnd(64, "0").slice(0, 64),
    redactedValue: "…",
    name: "k",
    serviceAccountId: "svc",
    expiresAtMs: null,
  };
  await change({ type: "create_key", id: "key", ...key, scopes: ["data"] });
  await change({ type: "set_model_limits", model: "m", ...limits });
  const admit = (requestId: string, more: Partial<AdmitRequest> = {}) => gate.admit({ ...REQUEST, requestId, ...more });
  const finish = (requestId: string, end: Partial<NonNullable<FinishRequest["end"]>> = {}) =>
    gate.finish({ requestId, end: { ...END, ...end } });
  return { tenantId, stub, gate, change, admit, finish, keyHash: key.hash };
}

export const REQUEST: Omit<AdmitRequest, "requestId"> = {
  kind: "completions",
  route: "/v1/chat/completions",
  model: "m",
  provider: "workers-ai",
  providerModel: "@cf/m",
  keyId: "key",
  endUser: null,
  serviceTier: "default",
  stream: false,
  promptTokens: 10,
  outputTokens: 20,
  outputLowerable: false,
  choices: 1,
  patienceMs: 5_000,
  holdMs: 60_000,
};
export const END = {
  outcome: "completed" as const,
  promptTokens: 5,
  cachedTokens: 0,
  completionTokens: 7,
  estimated: false,
  adapterDigest: null,
  promptVersion: null,
  firstTokenMs: 1,
  totalMs: 2,
};

export const ALL = {
  limit: 100,
  order: "asc",
  afterSeq: null,
  fromMs: null,
  toMs: null,
  model: null,
  keyId: null,
} as const;
