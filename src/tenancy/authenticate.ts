import type { AdmitReply, BindReply, BindRequest, OpeningCall } from "../../durable-objects/tenant-gate.messages";
import { objectName } from "../core/object-name";
import type { PolicySnapshot } from "../core/policy";
import type { Directory } from "../data/directory";
import { ApiError } from "../errors";
import { BoundedCache } from "./bounded-cache";
import {
  type Actor,
  MINTING_SCOPES,
  mint,
  PLATFORM_TENANT,
  type Region,
  SCOPES,
  type Scope,
  type TenantContext,
  type TenantHome,
  type TenantLocation,
} from "./context";
import type { EndUserClaims, EndUserTokens } from "./end-user-tokens";
import { askGate, askInLine, type GateAt } from "./gates";
import { hashKey, kindOfKey } from "./keys";

/** Who calls, bound to the policy in force. */
export interface Authenticated {
  readonly context: TenantContext;
  readonly policy: PolicySnapshot;
  /** What the gate said of the call, where it had to be asked who calls. */
  readonly opened?: Opened;
}

/** The gate's answer to a call that came along with its credential. */
export interface Opened {
  readonly admission: AdmitReply;
  readonly askedAtMs: number;
}

/**
 * The call that a request is for, made only when the gate must be asked who calls: then both questions are one round
 * trip. It settles with undefined where the request is refused anyway, or where reading its body would be work that
 * nobody should do for a credential which may be good for nothing.
 */
export type Opening = (who: {
  readonly region: Region;
  /** An end user's own list. */
  readonly models: readonly string[] | null;
}) => Promise<Omit<OpeningCall, "endUser"> | undefined>;

export interface AuthenticateOptions {
  readonly directory: Directory;
  readonly gateAt: GateAt;
  readonly tokens: EndUserTokens;
  /** Registers the operator's first key when it is this one. */
  readonly bootstrap: (keyHash: string) => Promise<boolean>;
  /** How long a binding is trusted after it was asked for. */
  readonly bindingMs: number;
}

interface Binding {
  readonly askedAtMs: number;
  readonly reply: Omit<Extract<BindReply, { bound: true }>, "admission">;
}

/** Entries of each cache; one is a few hundred bytes. */
const CACHE_ENTRIES = 10_000;
/** A key never changes its tenant, so where it lives may be trusted for long; whether it is valid, the gate says. */
const LOCATION_MS = 60_000;

/**
 * The door: turns a credential into a bound tenant. The credential alone decides; no header, query or body field
 * names a tenant. Directory first (cold only), then the gate, which is the authority for the key.
 */
export class Authenticator {
  readonly #locations = new BoundedCache<{ readonly atMs: number; readonly location: TenantLocation }>(CACHE_ENTRIES);
  readonly #bindings = new BoundedCache<Binding>(CACHE_ENTRIES);
  readonly #policies = new BoundedCache<PolicySnapshot>(CACHE_ENTRIES);
  /** Key id → name of its binding. */
  readonly #namesOf = new BoundedCache<string>(CACHE_ENTRIES);

  constructor(readonly options: AuthenticateOptions) {}

  /** @throws ApiError 400, 401, 403 or 503 */
  async authenticate(request: Request, needed: readonly Scope[], opening?: Opening): Promise<Authenticated> {
    const credential = credentialOf(request);
    const kind = kindOfKey(credential);
    if (kind === undefined && credential.split(".").length === 3) {
      return this.#endUser(request, credential, needed, opening);
    }
    if (kind === undefined) throw invalidKey();
    const keyHash = await hashKey(credential);
    const location = await this.#locate(keyHash);
    const { region } = location;
    const call = opening && (async () => withEndUser(await opening({ region, models: null }), null));
    const bound = await this.#bind(location, { keyHash }, request.signal, call);
    if (!bound) throw invalidKey();
    const { key, policy, ...opened } = bound;
    const actor: Actor =
      key.serviceAccountId === null
        ? { type: "admin_key", keyId: key.id }
        : { type: "api_key", keyId: key.id, serviceAccountId: key.serviceAccountId };
    const scopes = SCOPES.filter((known) => key.scopes.includes(known));
    assertScopes(scopes, needed);
    return { context: mint(homeOf(location, policy), actor, scopes), policy, ...opened };
  }

  /** The gate has admitted a call of this key after `askedAtMs`: the key was good then, and this policy in force. */
  renew({ context, policy }: Authenticated, askedAtMs: number, policyVersion: number): void {
    if (context.actor.type !== "api_key" || policy.version !== policyVersion) return;
    const names = this.#namesOf.get(context.actor.keyId);
    const known = names === undefined ? undefined : this.#bindings.get(names);
    if (names === undefined || !known || known.askedAtMs >= askedAtMs) return;
    this.#bindings.set(names, { ...known, askedAtMs });
  }

  /** The operator enters one of its tenants. @returns undefined for an id that does not exist, or no longer does */
  async enterTenant(operator: TenantContext, tenantId: string): Promise<TenantContext | undefined> {
    if (operator.tenantId !== PLATFORM_TENANT || operator.actor.type !== "admin_key") {
      throw new TypeError("only the operator enters other tenants");
    }
    if (!/^proj_[A-Za-z0-9_-]{1,64}$/.test(tenantId)) return undefined;
    const location = await this.#remembered(`tenant ${tenantId}`, () => this.options.directory.locateTenant(tenantId));
    if (!location) return undefined;
    const policy = await askGate(() => this.options.gateAt(location).policy(), "storage_unavailable");
    if (!policy || policy.status === "purged") return undefined;
    return mint(homeOf(location, policy), operator.actor, ["admin"]);
  }

  /** A tenant that is being created: its home is decided, its gate does not know it yet. */
  foundTenant(operator: TenantContext, location: TenantLocation): TenantContext {
    if (operator.actor.type !== "admin_key") throw new TypeError("only the operator founds tenants");
    return mint({ ...location, isolation: "pool" }, operator.actor, ["admin"]);
  }

  async #endUser(
    request: Request,
    token: string,
    needed: readonly Scope[],
    opening: Opening | undefined,
  ): Promise<Authenticated> {
    const claims = await this.options.tokens.verify(token);
    const location = await this.#remembered(`tenant ${claims.tenantId}`, () =>
      this.options.directory.locateTenant(claims.tenantId),
    );
    if (!location) throw invalidKey();
    const { keyId, subject, models, requestsPerMinute } = claims;
    const { region } = location;
    const isOwnOrigin = comesFromOwnOrigin(request, claims);
    const call =
      opening && isOwnOrigin
        ? async () => withEndUser(await opening({ region, models }), { subject, requestsPerMinute })
        : undefined;
    const bound = await this.#bind(location, { keyId }, request.signal, call);
    // The token lives no longer than the key that minted it, and than that key's right to mint it.
    if (!bound || !MINTING_SCOPES.every((held) => bound.key.scopes.includes(held))) throw invalidKey();
    assertScopes(["data"], needed);
    if (!isOwnOrigin) throw originNotAllowed();
    const actor: Actor = { type: "end_user", keyId, subject, models, requestsPerMinute };
    const { key: _, policy, ...opened } = bound;
    return { context: mint(homeOf(location, policy), actor, ["data"]), policy, ...opened };
  }

  async #locate(keyHash: string): Promise<TenantLocation> {
    const find = () => this.options.directory.locateKey(keyHash);
    const known = await this.#remembered(`key ${keyHash}`, find);
    if (known) return known;
    if (!(await this.options.bootstrap(keyHash))) throw invalidKey();
    return (await this.#remembered(`key ${keyHash}`, find)) ?? { tenantId: PLATFORM_TENANT, region: "global" };
  }

  async #remembered(
    name: string,
    find: () => Promise<TenantLocation | undefined>,
  ): Promise<TenantLocation | undefined> {
    const known = this.#locations.get(name);
    if (known && Date.now() - known.atMs < LOCATION_MS) return known.location;
    const location = await find();
    if (location) this.#locations.set(name, { atMs: Date.now(), location });
    return location;
  }

  async #bind(
    location: TenantLocation,
    credential: BindRequest["credential"],
    signal: AbortSignal,
    opening: (() => Promise<OpeningCall | undefined>) | undefined,
  ) {
    const gateName = objectName(location);
    const name = `${gateName} ${JSON.stringify(credential)}`;
    const known = this.#bindings.get(name);
    const policy = this.#policies.get(gateName);
    const nowMs = Date.now();
    // A binding is good until `bindingMs` after it was asked for: the answer's own travel time is part of it.
    if (known && policy?.version === known.reply.policyVersion && nowMs - known.askedAtMs < this.options.bindingMs) {
      return { key: known.reply.key, policy };
    }
    const knownPolicyVersion = policy?.version ?? null;
    const gate = this.options.gateAt(location);
    const call = await opening?.();
    const askedAtMs = Date.now(); // after the body has arrived
    const ask = () => gate.bind({ credential, knownPolicyVersion, call: call ?? null });
    const isAdmitted = (answer: BindReply) => answer.bound && answer.admission?.admitted === true;
    const reply = await (call ? askInLine(gate, { requestId: call.requestId, signal, isAdmitted }, ask) : askGate(ask));
    if (!reply.bound) {
      this.#bindings.delete(name);
      if (reply.reason === "unknown_key") return undefined;
      throw tenantRefused(reply.reason);
    }
    const inForce = reply.policy ?? policy;
    if (!inForce) throw new TypeError("gate sent no policy to a caller that knew none");
    this.#policies.set(gateName, inForce);
    this.#namesOf.set(reply.key.id, name);
    const { admission, ...bound } = reply;
    this.#bindings.set(name, { askedAtMs, reply: bound });
    const opened = admission ? { opened: { admission, askedAtMs } } : {};
    return { key: reply.key, policy: inForce, ...opened };
  }
}

const homeOf = (location: TenantLocation, { isolation }: PolicySnapshot): TenantHome => ({ ...location, isolation });

/** Also what the pipeline says when the gate refuses at admission. */
export function tenantRefused(reason: "unknown_key" | "archived" | "suspended"): ApiError {
  switch (reason) {
    case "unknown_key":
      return invalidKey();
    case "archived":
      return new ApiError("project_archived", "The project of this key is archived.");
    case "suspended":
      return new ApiError(
        "project_suspended",
        "The project of this key is suspended. Ask whoever runs this platform.",
        {
          headers: { "x-should-retry": "false" },
        },
      );
  }
}

function credentialOf(request: Request): string {
  const authorization = request.headers.get("authorization");
  const apiKeyHeader = request.headers.get("x-api-key");
  if (!authorization) throw invalidKey();
  const credential = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  // Headers joins repeated ones with a comma, which no credential contains.
  const several = authorization.includes(",") || (apiKeyHeader !== null && apiKeyHeader !== credential);
  if (several) {
    throw new ApiError("ambiguous_credentials", "More than one credential was sent. Send one Authorization header.");
  }
  if (!credential) throw invalidKey();
  return credential;
}

function assertScopes(scopes: readonly Scope[], needed: readonly Scope[]): void {
  if (needed.every((scope) => scopes.includes(scope))) return;
  const named = (list: readonly Scope[]) => list.map((scope) => `"${scope}"`).join(" and ") || "none";
  throw new ApiError(
    "insufficient_scope",
    `This path needs a credential of scope ${named(needed)}; yours has ${named(scopes)}.`,
  );
}

const withEndUser = (
  call: Omit<OpeningCall, "endUser"> | undefined,
  endUser: OpeningCall["endUser"],
): OpeningCall | undefined => call && { ...call, endUser };

function comesFromOwnOrigin(request: Request, { origins }: EndUserClaims): boolean {
  if (origins === null) return true;
  const origin = request.headers.get("origin");
  return origin !== null && origins.includes(origin);
}

const originNotAllowed = () =>
  new ApiError("origin_not_allowed", "This end-user token does not work from this origin.");

/** One answer for every bad credential, so that it teaches nothing. */
function invalidKey(): ApiError {
  return new ApiError("invalid_api_key", "Incorrect API key provided. Send `Authorization: Bearer <your key>`.");
}
