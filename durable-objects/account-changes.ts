import type { PolicySnapshot } from "../src/core/policy";
import { beyondRetention } from "./retention";
import { type Account, type Decided, type Key, type TenantFacts, withoutUndefined } from "./tenant-facts";
import type { ChangeCommand } from "./tenant-gate.messages";

type CommandOf<T extends ChangeCommand["type"]> = Extract<ChangeCommand, { type: T }>;
/**
 * A gate keeps all of them in memory. Deleted ones count until the retention ends: they can be restored, so that
 * making and deleting is no way around.
 */
export const MAX_ACCOUNTS = 1_000;
export const MAX_KEYS = 5_000;

export type AccountCommand = CommandOf<
  "create_service_account" | "modify_service_account" | "delete_service_account" | "restore_service_account"
>;
export type KeyCommand = CommandOf<"create_key" | "delete_key" | "restore_key">;

/** Decides a change of a service account. Its keys are its dependants: they go with it and come back with it. */
export function changeAccount(
  policy: PolicySnapshot,
  facts: TenantFacts,
  command: AccountCommand,
  nowMs: number,
): Decided {
  const known = facts.accounts.get(command.id);
  if (command.type === "create_service_account") {
    if (known) return { refused: "exists" };
    if (facts.accounts.size >= MAX_ACCOUNTS) return { refused: "too_many" };
    const account = { id: command.id, name: command.name, role: "member", createdAtMs: nowMs, deletedAtMs: null };
    const details = { data: { role: account.role } };
    return { accounts: [account], event: { type: "service_account.created", resourceId: command.id, details } };
  }
  if (command.type === "restore_service_account") return restoreAccount(policy, facts, known, nowMs);
  if (!known || known.deletedAtMs !== null) return { refused: "not_found" };
  if (command.type === "modify_service_account") {
    const changes = withoutUndefined({ name: command.name, role: command.role });
    const details = { changes_requested: command.role === undefined ? {} : { role: command.role } };
    return {
      accounts: [{ ...known, ...changes }],
      event: { type: "service_account.updated", resourceId: command.id, details },
    };
  }
  return {
    policy: next(policy),
    accounts: [{ ...known, deletedAtMs: nowMs }],
    keys: keysOf(facts, known.id, null).map((key) => ({ ...key, deletedAtMs: nowMs })),
    event: { type: "service_account.deleted", resourceId: command.id, details: {} },
  };
}

/** The account, and the keys that were deleted with it; those that were revoked before stay revoked. */
function restoreAccount(
  policy: PolicySnapshot,
  facts: TenantFacts,
  known: Account | undefined,
  nowMs: number,
): Decided {
  if (!known || beyondRetention(facts, nowMs).accounts.includes(known)) return { refused: "not_found" };
  if (known.deletedAtMs === null) return { refused: "not_deleted" };
  return {
    policy: next(policy),
    accounts: [{ ...known, deletedAtMs: null }],
    keys: keysOf(facts, known.id, known.deletedAtMs).map((key) => ({ ...key, deletedAtMs: null })),
    event: { type: "service_account.updated", resourceId: known.id, details: { changes_requested: {} } },
  };
}

const keysOf = (facts: TenantFacts, accountId: string, deletedAtMs: number | null): Key[] =>
  [...facts.keys.values()].filter((key) => key.serviceAccountId === accountId && key.deletedAtMs === deletedAtMs);

/** Decides a change of a key. */
export function changeKey(policy: PolicySnapshot, facts: TenantFacts, command: KeyCommand, nowMs: number): Decided {
  const known = facts.keys.get(command.id);
  switch (command.type) {
    case "create_key": {
      // Deleted stays deleted: the operator's first key is offered anew whenever somebody sends it.
      if (known || facts.hadKey(command.hash)) return { refused: "exists" };
      if (facts.keys.size >= MAX_KEYS) return { refused: "too_many" };
      if (!isAlive(facts, command.serviceAccountId)) return { refused: "not_found" };
      const { type: _, ...key } = command;
      return {
        policy: next(policy),
        keys: [{ ...key, createdAtMs: nowMs, deletedAtMs: null }],
        event: { type: "api_key.created", resourceId: command.id, details: { data: { scopes: command.scopes } } },
      };
    }
    case "delete_key":
      if (!known || known.deletedAtMs !== null) return { refused: "not_found" };
      return {
        policy: next(policy),
        keys: [{ ...known, deletedAtMs: nowMs }],
        event: { type: "api_key.deleted", resourceId: command.id, details: {} },
      };
    case "restore_key":
      if (!known || beyondRetention(facts, nowMs).keys.includes(known)) return { refused: "not_found" };
      if (known.deletedAtMs === null) return { refused: "not_deleted" };
      if (!isAlive(facts, known.serviceAccountId)) return { refused: "parent_deleted" };
      return {
        policy: next(policy),
        keys: [{ ...known, deletedAtMs: null }],
        event: { type: "api_key.updated", resourceId: command.id, details: { changes_requested: {} } },
      };
  }
}

/** Admin keys have no account. */
const isAlive = (facts: TenantFacts, accountId: string | null): boolean =>
  accountId === null || facts.accounts.get(accountId)?.deletedAtMs === null;

const next = (policy: PolicySnapshot): PolicySnapshot => ({ ...policy, version: policy.version + 1 });
