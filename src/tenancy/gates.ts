import type { ChangeCommand, ChangeReply, TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import { objectName } from "../core/object-name";
import { ApiError } from "../errors";
import { assertMinted, type Region, type TenantContext, type TenantLocation } from "./context";
import { acrossErasure } from "./erased-objects";
import { newId } from "./ids";

/** Reaches the gate of a tenant's home. */
export type GateAt = (location: TenantLocation) => TenantGateRpc;

/**
 * The jurisdiction seam for a tenant's own objects of any class: the region is always part of the object's name, and
 * where the runtime knows jurisdictions it also picks the namespace. The local runtime knows none
 * (`docs/production-differences.md`).
 */
export function objectsOf<Rpc extends object>(
  namespace: DurableObjectNamespace,
  jurisdictions: "on" | "off",
): (location: TenantLocation) => Rpc {
  return (location) => {
    const { region } = location;
    const home =
      jurisdictions === "on" && region !== "global"
        ? namespace.jurisdiction(region as DurableObjectJurisdiction)
        : namespace;
    return acrossErasure(() => home.getByName(objectName(location)) as unknown as Rpc);
  };
}

/** The same seam for objects that belong to no tenant: one for each name in a region. */
export function sharedObjectsOf<Rpc>(
  namespace: DurableObjectNamespace,
  jurisdictions: "on" | "off",
): (region: Region, name: string) => Rpc {
  return (region, name) => {
    const isBound = jurisdictions === "on" && region !== "global";
    const home = isBound ? namespace.jurisdiction(region as DurableObjectJurisdiction) : namespace;
    return home.getByName(`${region}/${name}`) as unknown as Rpc;
  };
}

/**
 * Calls a gate. Without its answer nothing is admitted: fail closed.
 * @param code what the caller is told when the gate cannot be reached
 * @throws ApiError 503
 */
export async function askGate<T>(
  ask: () => Promise<T>,
  code: "admission_unavailable" | "storage_unavailable" = "admission_unavailable",
): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    // Every method of the gate is idempotent, so one retry of a passing failure is safe; overload is left alone.
    if (isTransient(error)) {
      try {
        return await ask();
      } catch (again) {
        return unavailable(again, code);
      }
    }
    return unavailable(error, code);
  }
}

/** A question that may leave something reserved at the gate, and how to tell. */
export interface InLine<T> {
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly isAdmitted: (reply: T) => boolean;
  /** Keeps the last word to the gate alive after the reply, where there is one. */
  readonly waitUntil?: (promise: Promise<unknown>) => void;
}

/**
 * Asks for what a caller may have to wait for in the gate's line. Whoever goes away, or gets no admission although an
 * earlier question may have been answered with one, tells the gate so: nothing stays reserved for it.
 */
export async function askInLine<T>(
  gate: TenantGateRpc,
  { requestId, signal, isAdmitted, waitUntil }: InLine<T>,
  ask: () => Promise<T>,
): Promise<T> {
  const leave = () => {
    const left = gate.leave(requestId).catch(() => {}); // unheard, what it holds expires by itself
    waitUntil?.(left);
  };
  let asked = 0;
  const askAgain = () => {
    asked++;
    return ask();
  };
  signal.addEventListener("abort", leave, { once: true });
  try {
    const reply = await askGate(askAgain);
    if (asked > 1 && !isAdmitted(reply)) leave();
    return reply;
  } catch (error) {
    leave();
    throw error;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

function isTransient(error: unknown): boolean {
  const flags = error as { retryable?: boolean; overloaded?: boolean } | null;
  return flags?.retryable === true && flags.overloaded !== true;
}

function unavailable(error: unknown, code: "admission_unavailable" | "storage_unavailable"): never {
  console.error(JSON.stringify({ event: "gate_unreachable", reason: String(error) }));
  const message = "The platform cannot check this request's limits right now, so it is refused. Try again shortly.";
  throw new ApiError(code, message, { headers: { "retry-after": "1" } });
}

/** Changes a tenant's own facts at its gate, in the name of the operator's key (or of the platform itself). */
export async function changeTenant(
  gate: TenantGateRpc,
  context: TenantContext,
  command: ChangeCommand,
): Promise<Extract<ChangeReply, { changed: true }>> {
  assertMinted(context);
  const actorKeyId = context.actor.type === "admin_key" ? context.actor.keyId : null;
  const request = { command, actorKeyId, auditId: newId("auditEvent") };
  const reply = await askGate(() => gate.change(request), "storage_unavailable");
  if (reply.changed) return reply;
  switch (reply.reason) {
    case "not_found":
      throw new ApiError("not_found", "No such object in this project.");
    case "archived":
      throw new ApiError("project_archived", "This project is archived and cannot be changed.");
    case "exists":
      throw new ApiError("conflict", "An object with this id exists already.");
    case "not_empty":
      throw new ApiError("conflict", "This project already has accounts or keys; its isolation can no longer be set.");
    case "too_many": {
      const message = "This project has as many service accounts or keys as one can have, deleted ones included.";
      throw new ApiError("storage_quota_exceeded", message, { headers: { "x-should-retry": "false" } });
    }
    case "not_deleted":
      throw new ApiError("conflict", "There is nothing to restore: this object is not deleted.");
    case "parent_deleted":
      throw new ApiError("conflict", "The service account of this key is deleted. Restore the account first.");
  }
}
