import type { ObjectAddress } from "../src/core/object-name";
import { firstPolicy } from "../src/core/plans";
import type { PolicySnapshot } from "../src/core/policy";
import { changeAccount, changeKey } from "./account-changes";
import { changeLimits } from "./limit-changes";
import type { Copy } from "./ports";
import { restorableUntilMs } from "./retention";
import { type Change, type Decided, type TenantFacts, type TenantProfile, withoutUndefined } from "./tenant-facts";
import type { ChangeCommand } from "./tenant-gate.messages";

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
  if (!policy || !profile || policy.status === "purged") return { refused: "not_found" };
  if (command.type === "restore_tenant") return restoreTenant(policy, profile, nowMs);
  if (policy.status === "archived") return { refused: "archived" };
  const known = { ...facts, policy, profile };
  switch (command.type) {
    case "modify_tenant":
    case "archive_tenant":
    case "set_isolation":
    case "set_retention":
    case "set_data_retention":
      return changeTenant(known, command, nowMs);
    case "suspend_tenant":
    case "resume_tenant":
    case "set_plan":
    case "set_monthly_spend":
    case "set_limits":
    case "set_model_limits":
      return changeLimits(policy, command);
    case "create_service_account":
    case "modify_service_account":
    case "delete_service_account":
    case "restore_service_account":
      return changeAccount(policy, facts, command, nowMs);
    case "create_key":
    case "delete_key":
    case "restore_key":
      return changeKey(policy, facts, command, nowMs);
  }
}

type CommandOf<T extends ChangeCommand["type"]> = Extract<ChangeCommand, { type: T }>;
type Known = TenantFacts & { readonly policy: PolicySnapshot; readonly profile: TenantProfile };

function changeTenant(
  { policy, profile, isEmpty }: Known,
  command: CommandOf<"modify_tenant" | "archive_tenant" | "set_isolation" | "set_retention" | "set_data_retention">,
  nowMs: number,
): Decided {
  const resourceId = policy.tenantId;
  const updated = (changes: object) => ({
    event: { type: "project.updated", resourceId, details: { changes_requested: changes } },
  });
  const nextPolicy = { ...policy, version: policy.version + 1 };
  switch (command.type) {
    case "modify_tenant": {
      const { type: _, ...changes } = command;
      const next = { ...profile, ...withoutUndefined(changes) };
      return { profile: next, ...updated(command.name === undefined ? {} : { name: command.name }) };
    }
    case "archive_tenant":
      return {
        policy: { ...nextPolicy, status: "archived" },
        profile: { ...profile, archivedAtMs: nowMs },
        event: { type: "project.archived", resourceId, details: {} },
      };
    case "set_isolation": {
      const { isolation } = command;
      // What is already there would stay behind; moving it is another operation.
      if (!isEmpty && isolation !== policy.isolation) return { refused: "not_empty" };
      return { policy: { ...nextPolicy, isolation }, ...updated({ isolation }) };
    }
    case "set_retention": {
      const { type: _, ...days } = command;
      const requested = withoutUndefined({ retention_days: days.retentionDays, artifact_days: days.artifactDays });
      return { policy: { ...nextPolicy, ...withoutUndefined(days) }, ...updated(requested) };
    }
    case "set_data_retention": {
      const { dataRetention } = command;
      return { policy: { ...nextPolicy, dataRetention }, ...updated({ data_retention: dataRetention }) };
    }
  }
}

/** Brings back an archived tenant as it was, until its retention window ends. */
function restoreTenant(policy: PolicySnapshot, profile: TenantProfile, nowMs: number): Decided {
  const untilMs = restorableUntilMs({ policy, profile });
  if (untilMs === undefined) return { refused: "not_deleted" };
  if (nowMs >= untilMs) return { refused: "not_found" };
  return {
    policy: { ...policy, version: policy.version + 1, status: "active" },
    profile: { ...profile, archivedAtMs: null },
    event: {
      type: "project.updated",
      resourceId: policy.tenantId,
      details: { changes_requested: { status: "active" } },
    },
  };
}

/** The last change of a tenant: from now on nothing brings it back. */
export function purgedTenant(policy: PolicySnapshot): Change {
  return {
    policy: { ...policy, version: policy.version + 1, status: "purged" },
    event: { type: "project.deleted", resourceId: policy.tenantId, details: {} },
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
  const isPurged = status === "purged";
  const copies: Copy[] = [];
  if (profile && (change.profile || isPurged)) {
    const deletedAtMs = isPurged ? nowMs : null;
    copies.push({ of: "project", ...profile, status, updatedAtMs: nowMs, deletedAtMs });
  }
  for (const account of change.accounts ?? []) copies.push({ of: "service_account", ...account, updatedAtMs: nowMs });
  for (const key of change.keys ?? []) copies.push({ of: "api_key", ...key, updatedAtMs: nowMs });
  copies.push({ of: "audit_event", ...change.event, ...audit, effectiveAtMs: nowMs });
  return copies;
}
