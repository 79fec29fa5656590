import type { ObjectAddress } from "../src/core/object-name";
import { firstPolicy } from "../src/core/plans";
import { modelLimits, type PolicySnapshot } from "../src/core/policy";
import type { Copy } from "./ports";
import type { ChangeCommand } from "./tenant-gate.messages";

/** What a tenant's gate is the authority for, besides its policy. */
export interface TenantFacts {
  readonly policy: PolicySnapshot | null;
  readonly profile: TenantProfile | null;
  readonly accounts: ReadonlyMap<string, Account>;
  readonly keys: ReadonlyMap<string, Key>;
}
export interface TenantProfile {
  readonly name: string;
  readonly residency: string;
  readonly externalKeyId: string | null;
  readonly createdAtMs: number;
  readonly archivedAtMs: number | null;
}
export interface Account {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly createdAtMs: number;
  readonly deletedAtMs: number | null;
}
export interface Key {
  readonly id: string;
  readonly hash: string;
  readonly serviceAccountId: string | null;
  readonly name: string;
  readonly redactedValue: string;
  readonly scopes: readonly string[];
  readonly expiresAtMs: number | null;
  readonly createdAtMs: number;
  readonly deletedAtMs: number | null;
}

/** A decided change: what to store, what to copy, and the administrative event that goes with it. */
export interface Change {
  readonly policy?: PolicySnapshot;
  readonly profile?: TenantProfile;
  readonly accounts?: readonly Account[];
  readonly keys?: readonly Key[];
  readonly event: {
    readonly type: string;
    readonly resourceId: string;
    readonly details: Readonly<Record<string, unknown>>;
  };
}
export type Decided = Change | { readonly refused: "not_found" | "archived" | "exists" };

/** Decides what a command changes. Pure; the event types are those of OpenAI's audit log. */
export function decideChange(
  address: ObjectAddress,
  facts: TenantFacts,
  command: ChangeCommand,
  nowMs: number,
): Decided {
  const { policy, profile } = facts;
  if (command.type === "create_tenant") {
    if (policy) return { refused: "exists" };
    const { name, residency, externalKeyId } = command;
    return {
      policy: firstPolicy(address.tenantId, address.region),
      profile: { name, residency, externalKeyId, createdAtMs: nowMs, archivedAtMs: null },
      event: { type: "project.created", resourceId: address.tenantId, details: { data: { name } } },
    };
  }
  if (!policy || !profile) return { refused: "not_found" };
  if (policy.status === "archived") return { refused: "archived" };
  switch (command.type) {
    case "modify_tenant": {
      const { type: _, ...changes } = command;
      return {
        profile: { ...profile, ...withoutUndefined(changes) },
        event: {
          type: "project.updated",
          resourceId: address.tenantId,
          details: { changes_requested: command.name === undefined ? {} : { name: command.name } },
        },
      };
    }
    case "archive_tenant":
      return {
        policy: { ...policy, version: policy.version + 1, status: "archived" },
        profile: { ...profile, archivedAtMs: nowMs },
        event: { type: "project.archived", resourceId: address.tenantId, details: {} },
      };
    case "set_model_limits":
      return changeLimits(policy, command);
    case "create_service_account":
    case "modify_service_account":
    case "delete_service_account":
      return changeAccount(policy, facts, command, nowMs);
    case "create_key":
    case "delete_key":
      return changeKey(policy, facts, command, nowMs);
  }
}

type CommandOf<T extends ChangeCommand["type"]> = Extract<ChangeCommand, { type: T }>;

function changeLimits(policy: PolicySnapshot, command: CommandOf<"set_model_limits">): Change {
  const { model, requestsPerMinute, tokensPerMinute } = command;
  const limits = { ...modelLimits(policy, model), ...withoutUndefined({ requestsPerMinute, tokensPerMinute }) };
  return {
    policy: {
      ...policy,
      version: policy.version + 1,
      limits: { ...policy.limits, models: { ...policy.limits.models, [model]: limits } },
    },
    event: {
      type: "rate_limit.updated",
      resourceId: `rl-${model}`,
      details: {
        changes_requested: {
          max_requests_per_1_minute: limits.requestsPerMinute,
          max_tokens_per_1_minute: limits.tokensPerMinute,
        },
      },
    },
  };
}

function changeAccount(
  policy: PolicySnapshot,
  facts: TenantFacts,
  command: CommandOf<"create_service_account" | "modify_service_account" | "delete_service_account">,
  nowMs: number,
): Decided {
  const known = facts.accounts.get(command.id);
  if (command.type === "create_service_account") {
    if (known) return { refused: "exists" };
    const account = { id: command.id, name: command.name, role: "member", createdAtMs: nowMs, deletedAtMs: null };
    const details = { data: { role: account.role } };
    return { accounts: [account], event: { type: "service_account.created", resourceId: command.id, details } };
  }
  if (!known || known.deletedAtMs !== null) return { refused: "not_found" };
  if (command.type === "modify_service_account") {
    const changes = withoutUndefined({ name: command.name, role: command.role });
    const details = { changes_requested: command.role === undefined ? {} : { role: command.role } };
    return {
      accounts: [{ ...known, ...changes }],
      event: { type: "service_account.updated", resourceId: command.id, details },
    };
  }
  // A service account takes its keys with it.
  const keys = [...facts.keys.values()]
    .filter((key) => key.serviceAccountId === command.id && key.deletedAtMs === null)
    .map((key) => ({ ...key, deletedAtMs: nowMs }));
  return {
    policy: { ...policy, version: policy.version + 1 },
    accounts: [{ ...known, deletedAtMs: nowMs }],
    keys,
    event: { type: "service_account.deleted", resourceId: command.id, details: {} },
  };
}

function changeKey(
  policy: PolicySnapshot,
  facts: TenantFacts,
  command: CommandOf<"create_key" | "delete_key">,
  nowMs: number,
): Decided {
  const nextPolicy = { ...policy, version: policy.version + 1 };
  if (command.type === "delete_key") {
    const known = facts.keys.get(command.id);
    if (!known || known.deletedAtMs !== null) return { refused: "not_found" };
    return {
      policy: nextPolicy,
      keys: [{ ...known, deletedAtMs: nowMs }],
      event: { type: "api_key.deleted", resourceId: command.id, details: {} },
    };
  }
  if (facts.keys.has(command.id)) return { refused: "exists" };
  if (command.serviceAccountId !== null) {
    const account = facts.accounts.get(command.serviceAccountId);
    if (!account || account.deletedAtMs !== null) return { refused: "not_found" };
  }
  const { type: _, ...key } = command;
  return {
    policy: nextPolicy,
    keys: [{ ...key, createdAtMs: nowMs, deletedAtMs: null }],
    event: { type: "api_key.created", resourceId: command.id, details: { data: { scopes: command.scopes } } },
  };
}

/** The copies of a change, dependants after what they refer to. */
export function copiesOf(
  change: Change,
  facts: TenantFacts,
  audit: { id: string; actorKeyId: string | null },
  nowMs: number,
): Copy[] {
  const status = (change.policy ?? facts.policy)?.status ?? "active";
  const profile = change.profile ?? facts.profile;
  const copies: Copy[] = [];
  if (change.profile && profile) copies.push({ of: "project", ...profile, status, updatedAtMs: nowMs });
  for (const account of change.accounts ?? []) copies.push({ of: "service_account", ...account, updatedAtMs: nowMs });
  for (const key of change.keys ?? []) copies.push({ of: "api_key", ...key, updatedAtMs: nowMs });
  copies.push({ of: "audit_event", ...change.event, ...audit, effectiveAtMs: nowMs });
  return copies;
}

function withoutUndefined<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}
