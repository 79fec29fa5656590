import { PLATFORM_TENANT } from "./context";
import { askGate, type GateAt } from "./gates";
import { newId } from "./ids";

/** The operator's first key has this id for ever. Once deleted it stays deleted: the gate remembers its hash. */
const BOOTSTRAP_KEY_ID = "key_bootstrap";

/**
 * Registers the operator's first admin key, known to the configuration only by its hash, the first time it is used.
 * @returns whether `keyHash` is that key and the platform's gate knows it
 */
export async function registerBootstrapKey(
  gateAt: GateAt,
  configuredHash: string | undefined,
  keyHash: string,
): Promise<boolean> {
  if (configuredHash === undefined || configuredHash !== keyHash) return false;
  const gate = gateAt({ tenantId: PLATFORM_TENANT, region: "global" });
  const change = (command: Parameters<typeof gate.change>[0]["command"]) =>
    askGate(() => gate.change({ command, actorKeyId: null, auditId: newId("auditEvent") }), "storage_unavailable");
  await change({ type: "create_tenant", name: "Platform", residency: "GLOBAL", externalKeyId: null });
  const reply = await change({
    type: "create_key",
    id: BOOTSTRAP_KEY_ID,
    hash: keyHash,
    redactedValue: "sk-tenantry-admin-…",
    name: "Bootstrap",
    serviceAccountId: null,
    scopes: ["admin"],
    expiresAtMs: null,
  });
  if (reply.changed) return true;
  // Somebody else sent it first, and its copy may still be on its way to the directory; or it is deleted.
  const credential = { keyHash };
  return (await askGate(() => gate.bind({ credential, knownPolicyVersion: null, call: null }))).bound;
}
